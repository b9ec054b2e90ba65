"""Actors that write into the folder of their last snapshot what has changed since."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import method, task, workflow
from perdure.client import Perdure, open_store
from perdure.errors import RunFailed

written: list[str] = []
gate: list[str] = []


class Boxes(perdure.Actor):
    """Keeps a text in each of some files."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.changed: set[str] = set()

    @method
    def put(self, name: str, text: str) -> int:
        self.texts[name] = text
        self.changed.add(name)
        return len(self.texts)

    @method
    def spoil(self, name: str) -> None:
        self.put(name, "spoilt")
        raise ValueError("no")

    @method(readonly=True)
    def read(self) -> dict[str, str]:
        return dict(sorted(self.texts.items()))

    def save(self, folder: str) -> None:
        self.changed = set(self.texts)
        self.save_changes(folder)

    def save_changes(self, folder: str) -> None:
        for name in sorted(self.changed):
            (Path(folder) / name).write_text(self.texts[name])
        written.append("".join(sorted(self.changed)))
        self.changed = set()

    def load(self, folder: str) -> None:
        self.texts = {path.name: path.read_text() for path in Path(folder).iterdir()}
        self.changed = set()


@task
def closed_at_first(n: int) -> int:
    gate.append("")
    if len(gate) == 1:
        raise OSError("closed")
    return n


@workflow
def boxes() -> Any:
    held: Any = Boxes.bind()
    held.put.bind("a", "1")
    held.put.bind("b", "2")
    failed = held.spoil.options(catch=True).bind("a")
    before = held.read.bind()
    third = held.put.bind("c", "3")
    between = closed_at_first.options(after=failed).bind(third)
    held.put.options(after=between).bind("b", "4")
    return [before, held.read.bind()]


WANTED = [{"a": "1", "b": "2"}, {"a": "1", "b": "4", "c": "3"}]


@pytest.fixture
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Perdure]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    written.clear()
    gate.clear()
    with open_store(str(tmp_path / "store" / "perdure.db"), executor="inline") as opened:
        yield opened


def test_what_has_changed_is_all_that_is_written(inline: Perdure) -> None:
    gate.append("")

    assert inline.run(boxes) == WANTED

    # The constructor, a, b; the state is loaded again after the call that failed; then c, b.
    assert [each for each in written if each] == ["a", "b", "c", "b"]


def test_resumed_run_has_the_state_that_was_saved_in_parts(inline: Perdure) -> None:
    with pytest.raises(RunFailed):
        inline.run(boxes, run_id="r")

    assert inline.resume("r").result() == WANTED


def test_folder_goes_with_its_instance(inline: Perdure, tmp_path: Path) -> None:
    gate.append("")
    inline.run(boxes)
    gc.collect()

    assert list((tmp_path / "temporary").iterdir()) == []


def test_eager_execution_gives_the_same(inline: Perdure) -> None:
    gate.append("")

    assert boxes() == WANTED
