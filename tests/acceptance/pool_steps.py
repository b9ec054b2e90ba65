"""A model in a pool, for tests that kill, count and crowd out its instances."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import perdure

PATIENCE_S = 30.0


def note(folder: str, text: str) -> None:
    """Append a line to what was done, also if this process dies right after."""
    with open(Path(folder) / "done", "a") as file:
        file.write(text + "\n")


def done(folder: Path, word: str) -> list[str]:
    """Return the lines of what was done that begin with a word."""
    path = folder / "done"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(word)]


def meet(folder: str, mine: str, other: str) -> None:
    """Say that one is here, and wait until the other one is, too."""
    (Path(folder) / mine).touch()
    until = time.monotonic() + PATIENCE_S
    while not (Path(folder) / other).exists():
        assert time.monotonic() < until, f"{other} has not begun while {mine} ran"
        threading.Event().wait(0.01)


@perdure.actor(state="rebuild", cpus=0)
class Model:
    """Is costly to make, and remembers nothing."""

    def __init__(self, folder: str) -> None:
        note(folder, f"made {os.getpid()}")
        self.folder = folder

    def double(self, n: int) -> int:
        note(self.folder, f"double {n}")
        return 2 * n

    def pair(self, n: int) -> int:
        """Answer once the neighbour, 0 of 1, 2 of 3, is being answered too."""
        meet(self.folder, f"pair-{n}", f"pair-{n ^ 1}")
        return os.getpid()

    def die_once(self, n: int) -> int:
        """Be killed at the first call of each odd number."""
        if n % 2 and f"dies {n}" not in done(Path(self.folder), "dies"):
            note(self.folder, f"dies {n}")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.double(n)

    def refuse(self, n: int) -> int:
        raise ValueError(f"no {n}")


@perdure.task(cpus=0)
def add(n: int) -> int:
    return n + 1


@perdure.task(cpus=0, gpus=1)
def fit(folder: str, after: list[int]) -> int:
    note(folder, "fit")
    return sum(after)


@perdure.actor(state="rebuild", cpus=0)
class SlowToCome(Model):
    """Has one instance at once; others only once ``release`` has run."""

    def __init__(self, folder: str) -> None:
        is_first = not done(Path(folder), "made")
        super().__init__(folder)
        if not is_first:
            meet(folder, "making", "released")


@perdure.task(cpus=0)
def release(folder: str, doubled: list[int]) -> list[int]:
    meet(folder, "released", "making")
    return doubled
