"""Workloads of the engine, each in a process of its own: what it prints is what it took.

    python -m tests.benchmarks.workloads chain inline 1000 /tmp/somewhere

A run goes into a new store in that folder; ``raw`` writes the rows of the run that is there.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import perdure
from perdure import Static, task, workflow

RUN_ID = "measured"
_STEPS = "SELECT * FROM step WHERE run_id = ? ORDER BY seq"


@task
def add_one(n: int) -> int:
    return n + 1


@task
def nothing(n: int) -> int:
    return n


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@workflow
def chain(steps: Static[int]) -> int:
    """Each step needs the one before: no two of them share a commit."""
    value = 0
    for _ in range(steps):
        value = add_one.bind(value)
    return value


@workflow
def fan_out(steps: Static[int]) -> int:
    """No step needs another: as many of them share a commit as end together."""
    return total.bind([nothing.bind(n) for n in range(steps)])


WORKFLOWS = {"chain": chain, "fan_out": fan_out}
ROWS_A_COMMIT = {"chain": 1, "fan_out": 1000}


def through_perdure(name: str, executor: str, steps: int, folder: Path) -> float:
    """Return the seconds that a run takes, from the call of ``run`` to its result."""
    with perdure.open(str(folder / "perdure.db"), executor=executor) as client:
        client.runtime  # noqa: B018 - the store is made before the clock starts
        begin = time.perf_counter()
        WORKFLOWS[name].run(steps, run_id=RUN_ID)
        return time.perf_counter() - begin


def by_hand(name: str, folder: Path) -> float:
    """Return the seconds that the rows of that run take, written straight into such a table.

    In WAL mode with full synchronisation, as perdure writes them: a chain one row a commit.
    """
    for old in folder.glob("raw.db*"):
        old.unlink()
    with perdure.open(str(folder / "raw.db")) as client:
        client.runtime  # noqa: B018 - makes the tables
    source, target = sqlite3.connect(folder / "perdure.db"), sqlite3.connect(folder / "raw.db")
    rows = iter(source.execute(_STEPS, [RUN_ID]).fetchall())
    target.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
    begin = time.perf_counter()
    while due := list(islice(rows, ROWS_A_COMMIT[name])):
        places = ", ".join("?" * len(due[0]))
        target.executemany(f"INSERT INTO step VALUES ({places})", due)
        target.commit()
    return time.perf_counter() - begin


def main(words: Sequence[str]) -> int:
    """Print the seconds of one workload."""
    name, executor, steps, folder = words[0], words[1], int(words[2]), Path(words[3])
    if executor == "raw":
        print(by_hand(name, folder))
    else:
        print(through_perdure(name, executor, steps, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
