"""What it costs to keep the state of an actor of which one file has changed.

    python -m tests.benchmarks.states
    python -m tests.benchmarks.states --mib 16 --rounds 1

An actor whose state is a folder of 64 files of equal size is constructed, called without a change,
and called so that one file is another. Each figure is the whole call: until its result and the
snapshot are committed, over SQLite with full durability, with the actor inline. Once the actor
writes all its files for each snapshot, by ``save``, once what has changed, by ``save_changes``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path
from statistics import median

from tests.benchmarks.rounds import circumstances
from tests.benchmarks.saves import FILES, size_of

import perdure
from perdure import actor, workflow


class Shards:
    """Keeps its bytes in files; ``write`` makes one of them another."""

    def __init__(self, mib: int) -> None:
        self.shards = [os.urandom((mib << 20) // FILES) for _ in range(FILES)]
        self.changed: set[int] = set(range(FILES))

    def write(self, number: int | None) -> None:
        # What is hashed again while its time is that of the last tick of the clock is not measured.
        threading.Event().wait(0.1)
        if number is not None:
            self.shards[number] = os.urandom(len(self.shards[number]))
            self.changed.add(number)

    def save(self, folder: str) -> None:
        self.changed = set(range(FILES))
        self._write(folder)

    def _write(self, folder: str) -> None:
        for number in self.changed:
            (Path(folder) / f"{number}.bin").write_bytes(self.shards[number])
        self.changed.clear()

    def load(self, folder: str) -> None:
        self.shards = [(Path(folder) / f"{n}.bin").read_bytes() for n in range(FILES)]
        self.changed = set()


@actor
class Whole(Shards):
    """Writes all of its files for each snapshot."""


@actor
class Changes(Shards):
    """Writes what has changed."""

    def save_changes(self, folder: str) -> None:
        self._write(folder)


@workflow
def kept(cls: perdure.Static[object], mib: perdure.Static[int]) -> object:
    """Construct the actor, and call it."""
    state = cls.bind(mib)  # type: ignore[attr-defined]
    state.write.bind(None)
    calls = [state.write.bind(number) for number in (3, 5, 7)]
    return calls[-1]


def one_round(cls: type, mib: int) -> dict[str, list[float]]:
    """Return how many seconds the kinds of calls took, and by how many MiB the blobs grew."""
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as whole,
        perdure.open(str(Path(whole) / "perdure.db"), executor="inline") as client,
    ):
        client.run(kept, inputs={"cls": cls, "mib": mib}, run_id="r")
        attempts = [step.attempts[-1] for step in client.get_run("r").steps()]
        took = [(each.finished_at - each.started_at).total_seconds() for each in attempts]
        stored = size_of(Path(client.settings.blobs)) / (1 << 20)
    return {
        "the constructor: all": took[:1],
        "a call that changes nothing": [took[1] - 0.1],
        "a call that changes one file": [seconds - 0.1 for seconds in took[2:]],
        "MiB stored in all": [stored],
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {"save": {}, "save_changes": {}}
    for _ in range(given.rounds):
        for how, cls in (("save", Whole), ("save_changes", Changes)):
            for name, figures in one_round(cls, given.mib).items():
                found[how].setdefault(name, []).extend(figures)
    print(circumstances(given.rounds))
    print(f"| {given.mib} MiB in {FILES} files | ms, by `save` | ms, by `save_changes` |")
    print("|---|---|---|")
    *times, stored = found["save"]
    for name in times:
        cells = [f"{median(found[how][name]) * 1000:.1f}" for how in found]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"| {stored} | {' | '.join(f'{median(found[how][stored]):.1f}' for how in found)} |")


if __name__ == "__main__":
    main()
