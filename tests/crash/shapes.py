"""Graphs of the sizes that are promised: a long chain, a wide fan-out, a random one."""

from __future__ import annotations

from typing import Any

from tests.crash.ledger import executing
from tests.crash.steps import plain_random_graph, text_of

from perdure import Static, task, workflow


@task
def link(number: int, before: int) -> int:
    return (before * 31 + number) % 1_000_003


@task
def leaf(number: int) -> int:
    return number * number % 1_009


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def halt(text: Any) -> str:
    """Note how far it has come: kills are aimed by it."""
    with executing():
        return text_of(text)


@workflow
def chain(length: Static[int]) -> str:
    value = 1
    for number in range(length):
        value = link.bind(number, value)
    return halt.bind(value)


@workflow
def fan_out(width: Static[int]) -> str:
    return halt.bind(total.bind([leaf.bind(number) for number in range(width)]))


@workflow
def tangle(seed: Static[int], size: Static[int]) -> str:
    return halt.bind(plain_random_graph.bind(seed, size))


SHAPES: dict[str, tuple[Any, dict[str, int]]] = {
    "chain": (chain, {"length": 1_000}),
    "fan-out": (fan_out, {"width": 5_000}),
    "tangle": (tangle, {"seed": 7, "size": 300}),
}
