"""A graph that nobody knows beforehand: divide and conquer, with a map at each level.

``python examples/dynamic.py`` counts the words of a made-up library: each folder is a step that
maps over its files and returns calls of itself for the folders in it, so the graph grows to the
depth of the tree. Then it counts again with one file added: only that file, and what is above it,
runs.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import perdure
from perdure import task, workflow

BRANCHES, DEPTH, FILES = 2, 3, 3


@task
def count(path: str, changed_at: float) -> dict[str, int]:
    """Count the words of one file; when it changed is an argument, so that a change is seen."""
    return dict(Counter(Path(path).read_text().split()))


@task
def add(parts: list[dict[str, int]]) -> dict[str, int]:
    """Add counts up."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


@task(volatile=True)
def conquer(folder: str) -> dict[str, int]:
    """Return the graph of a folder: a map over its files, and this step for each folder in it."""
    here = sorted(Path(folder).iterdir())
    files = [path for path in here if path.is_file()]
    times = [path.stat().st_mtime for path in files]
    counted = count.map([str(path) for path in files], changed_at=perdure.each(times))
    below = [conquer.bind(str(path)) for path in here if path.is_dir()]
    return add.bind([add.bind(counted), *below])


@workflow
def library(folder: str) -> dict[str, int]:
    """Count the words of a tree of folders."""
    return conquer.bind(folder)


def make(folder: Path, depth: int = DEPTH) -> None:
    """Write a tree of folders with a few words in each file."""
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.txt").write_text(f"word{number} " * (number + 1) + f"depth{depth}")
    for number in range(BRANCHES if depth > 1 else 0):
        make(folder / f"part{number}", depth - 1)


def files_read(run: perdure.Run) -> int:
    """Count the files that this run itself has read."""
    counted = run.steps(name="*count[*]")
    return sum(1 for step in counted if step.row is not None and step.row.attempt)


def main() -> None:
    """Count, add a file, count again."""
    with tempfile.TemporaryDirectory() as place, perdure.open(os.path.join(place, "p.db")) as store:
        folder = Path(place) / "library"
        make(folder)
        first = store.start(library, folder=str(folder), run_id="first")
        words = first.result()
        print(f"{len(words)} words, {sum(words.values())} in all")
        print(f"{len(first.steps())} steps, {files_read(first)} files read")
        (folder / "part1" / "new.txt").write_text("new word2")
        again = store.start(library, folder=str(folder), reuse="first")
        words = again.result()
        print(f"with one file more: {sum(words.values())} in all, {files_read(again)} file read")


if __name__ == "__main__":
    main()
