"""Actors that tests run in processes of their own; what they do is counted in a file."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import perdure
from perdure import actor, method, task, workflow


def note(folder: str, text: str) -> None:
    """Append a line to what was done, also if this process dies right after."""
    with open(Path(folder) / "done", "a") as file:
        file.write(text + "\n")


def done(folder: Path) -> list[str]:
    """Return what was done."""
    path = folder / "done"
    return path.read_text().split() if path.exists() else []


class Stats(perdure.Actor):
    """A running mean."""

    def __init__(self, start: float = 0.0) -> None:
        self.count = 0
        self.total = start

    @method
    def add(self, x: float) -> float:
        self.count += 1
        self.total += x
        return self.total

    @method(readonly=True)
    def mean(self) -> float:
        return self.total / self.count

    @method(readonly=True)
    def spoil(self) -> float:
        self.total = -1.0
        return self.total

    @method
    def refuse(self, x: float) -> float:
        self.total = -x
        raise ValueError(f"no {x}")


@actor
class Journal:
    """Remembers what it was told, and tells in a file that it was."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def write(self, line: str) -> list[str]:
        note(self.folder, line)
        self.lines.append(line)
        return list(self.lines)

    def die_once(self, line: str) -> list[str]:
        """Change the state and die, the first time."""
        self.lines.append(f"spoilt by {line}")
        if f"dies:{line}" not in done(Path(self.folder)):
            note(self.folder, f"dies:{line}")
            os.kill(os.getpid(), signal.SIGKILL)
        self.lines.pop()
        return self.write(line)

    def hang(self, line: str) -> list[str]:
        self.lines.append(f"spoilt by {line}")
        threading.Event().wait(600)
        return self.lines

    def fail_once(self, line: str) -> list[str]:
        self.lines.append(f"spoilt by {line}")
        if f"fails:{line}" not in done(Path(self.folder)):
            note(self.folder, f"fails:{line}")
            raise RuntimeError("the first time")
        self.lines.pop()
        return self.write(line)

    @method(readonly=True)
    def read(self) -> list[str]:
        return list(self.lines)


@task
def double(x: float) -> float:
    return 2 * x


@task
def add_all(stats: Any, xs: list[float]) -> Any:
    """Give the calls, in order, in place of a value."""
    calls = [stats.add.bind(x) for x in xs]
    return total.bind(calls)


@task
def total(xs: list[float]) -> float:
    return sum(xs)


@task
def call_at_once(stats: Any) -> Any:
    return stats.add(1)


@workflow
def running(start: float = 1.0) -> Any:
    stats = Stats.bind(start)
    first = stats.add.bind(2.0)
    second = stats.add.bind(double.bind(first))
    mapped = stats.add.map([1.0, 2.0, 3.0])
    given = add_all.bind(stats, [10.0, 20.0])
    last = stats.add.bind(100.0)
    return [first, second, mapped, given, last, stats.mean.bind()]


RUNNING = [3.0, 9.0, [10.0, 12.0, 15.0], 25.0 + 45.0, 145.0, 145.0 / 8]
