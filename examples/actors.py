"""Running statistics of a stream of numbers, in an actor whose process is killed on the way.

    python examples/actors.py
    perdure run examples/actors.py

``Stats`` keeps count, mean and variance by Welford's method; each call changes all three. While it
adds the 30th number its process kills itself with SIGKILL. Another process takes the state from the
last snapshot, makes the few calls since then again, and goes on: the result is that of a plain
object to which each number was added once.
"""

from __future__ import annotations

import os
import signal
from math import isclose
from pathlib import Path

import perdure
from perdure import current, method, workflow

COUNT = 60
DIES_AT = 30


class Stats(perdure.Actor, snapshot=8):
    """Count, mean and variance of numbers. Source: Welford, Technometrics 4 (1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    @method
    def add(self, x: float, deadly: bool = False) -> int:
        """Add a number; return how many there are."""
        self.count += 1
        before = x - self.mean
        self.mean += before / self.count
        self.squares += before * (x - self.mean)
        if deadly and current().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)  # half-way: the state is changed, nothing is kept
        return self.count

    @method(readonly=True)
    def summary(self) -> dict[str, float]:
        """Return what is known so far."""
        return {
            "count": self.count,
            "mean": self.mean,
            "variance": self.squares / (self.count - 1),
        }


def number(n: int) -> float:
    """Return the n-th number of the stream."""
    return (n * 7919 % 1009) / 10


@workflow
def statistics(count: perdure.Static[int] = COUNT) -> dict[str, float]:
    """Add the numbers one by one; return what is known of them."""
    stats = Stats.bind()
    for n in range(count):
        stats.add.bind(number(n), deadly=n == DIES_AT)
    return stats.summary.bind()


def expected(count: int = COUNT) -> dict[str, float]:
    """Return what a plain object comes to."""
    stats = Stats()
    for n in range(count):
        stats.add(number(n))
    return stats.summary()


if __name__ == "__main__":
    with perdure.open(str(Path(".perdure", "perdure.db")), executor="processes") as client:
        found = client.run(statistics)
    wanted = expected()
    assert all(isclose(found[name], wanted[name]) for name in wanted), (found, wanted)
    print(f"killed while it added number {DIES_AT}, and still")
    print(f"count {found['count']}, mean {found['mean']:.3f}, variance {found['variance']:.3f}")
