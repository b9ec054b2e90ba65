"""Actors: handles are of the class's type, and methods take what they take, for type checkers."""

from typing import assert_type

import perdure
from perdure import method, workflow


class Stats(perdure.Actor, snapshot=100):
    def __init__(self, start: float = 0.0) -> None:
        self.total = start
        self.count = 0

    @method
    def add(self, x: float) -> int:
        self.total += x
        self.count += 1
        return self.count

    @method(readonly=True, retries=2)
    def mean(self) -> float:
        return self.total / self.count


@workflow
def means(xs: list[float]) -> float:
    stats = Stats.bind(1.0)
    assert_type(stats, Stats)
    assert_type(stats.add.bind(2.0), int)
    assert_type(stats.add.map(xs), list[int])
    assert_type(stats.add.options(retries=1).bind(3.0), int)
    assert_type(Stats.options(snapshot="end").bind(1.0).mean.bind(), float)
    return stats.mean.bind()
