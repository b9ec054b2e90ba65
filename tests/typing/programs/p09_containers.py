"""Nodes inside lists, tuples, dicts, sets and dataclasses."""

from dataclasses import dataclass, field
from typing import NamedTuple

from perdure import task, workflow


class Pair(NamedTuple):
    left: int
    right: int


@dataclass(frozen=True)
class Config:
    size: int
    parts: list[int] = field(default_factory=list[int])


@task
def one() -> int:
    return 1


@task
def use(pair: Pair, config: Config, table: dict[str, tuple[int, ...]], seen: frozenset[int]) -> int:
    return pair.left + config.size + sum(table["a"]) + len(seen)


@workflow
def flow() -> list[dict[str, int]]:
    n = one.bind()
    made = use.bind(Pair(n, 2), Config(n, parts=[n, 3]), {"a": (n, n)}, frozenset({n}))
    return [{"made": made, "n": n}]
