"""The contract of sources, for those of perdure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from perdure.target import load_module
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.contract_sources import SourceContract, SourceWorld, hear
from perdure_scheduler.file_source import FileSource
from perdure_scheduler.sources import Source

EXAMPLE = Path(__file__).parents[2] / "examples" / "triggers" / "lines.py"

OFTEN = timedelta(milliseconds=50)


class LocalFolder:
    """CSV files land in a folder of this machine; each is renamed when it is whole."""

    def __init__(self, folder: Path, *, every: timedelta = timedelta(minutes=5)) -> None:
        self._folder = folder
        self._every = every
        self._count = 0

    def source(self) -> FileSource:
        return FileSource(f"{self._folder}/*.csv", every=self._every)

    def happen(self) -> None:
        self._count += 1
        path = self._folder / f"{self._count:03}.csv"
        part = path.with_suffix(".part")
        part.write_text(f"{self._count}\n")
        os.rename(part, path)


class MemoryFolder:
    """CSV files are written into a store that tells nothing, so that listings find them."""

    def __init__(self, name: str) -> None:
        self._url = f"memory://{name}"
        self._count = 0

    def source(self) -> FileSource:
        return FileSource(f"{self._url}/**/*.csv", every=OFTEN)

    def happen(self) -> None:
        self._count += 1
        with fsspec.open(f"{self._url}/{self._count:03}/rows.csv", "wt") as file:
            file.write(f"{self._count}\n")


class Spool:
    """A queue: messages are files, which go when it is known that they are committed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def source(self) -> Spool:
        return self

    def happen(self) -> None:
        self._count += 1
        (self._folder / f"{self._count:03}").touch()

    async def listen(self, cursor: str | None) -> AsyncIterator[Arrival]:
        given: set[str] = set()
        while True:
            for name in sorted(set(os.listdir(self._folder)) - given):
                given.add(name)
                yield Arrival(key=name)
            await asyncio.sleep(0.02)

    async def committed(self, arrivals: Sequence[Arrival]) -> None:
        for each in arrivals:
            (self._folder / each.key).unlink(missing_ok=True)


class AppendedLines:
    """The source of examples/triggers/lines.py, and who appends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def source(self) -> Source:
        lines: Source = load_module(str(EXAMPLE)).Lines(self._path)
        return lines

    def happen(self) -> None:
        self._count += 1
        with self._path.open("a") as file:
            file.write(f'{{"item": "tea", "count": {self._count}}}\n')


class TestFilesThatAreWatched(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return LocalFolder(tmp_path)


class TestFilesThatAreListed(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return MemoryFolder(tmp_path.name)


class TestQueueThatIsTold(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return Spool(tmp_path)

    def test_what_was_committed_is_gone(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        spool.happen()

        asyncio.run(spool.committed(hear(spool, None, 1).arrivals))

        assert os.listdir(tmp_path) == []


class TestExampleOfASource(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return AppendedLines(tmp_path / "orders.jsonl")
