"""The contract of sources, for those of perdure."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from perdure_scheduler.contract_sources import SourceContract, SourceWorld
from perdure_scheduler.file_source import FileSource

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


class TestFilesThatAreWatched(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return LocalFolder(tmp_path)


class TestFilesThatAreListed(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld:
        return MemoryFolder(tmp_path.name)
