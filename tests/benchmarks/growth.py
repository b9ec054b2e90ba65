"""Workflows of graphs that grow: maps, maps in chunks, and a chain of tail calls."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from perdure import task, workflow

CHUNK = 100
DIES = "BENCHMARK_DIES"
BEGUN: list[float] = []


@task
def square(n: int) -> int:
    return n * n


@task
def count_down(left: int, so_far: int) -> Any:
    """Return the next link of a chain, until nothing is left."""
    return count_down.bind(left - 1, so_far + left) if left else so_far


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def last(value: int) -> int:
    """Note when it began; or die, in place of it."""
    BEGUN.append(time.perf_counter())
    if DIES in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@workflow
def mapped(size: int) -> int:
    return last.bind(total.bind(square.map(numbers.bind(size))))


@workflow
def chunked(size: int) -> int:
    return last.bind(total.bind(square.options(chunk=CHUNK).map(numbers.bind(size))))


@workflow
def chained(size: int) -> int:
    return last.bind(count_down.bind(size, 0))


@task
def numbers(size: int) -> list[int]:
    return list(range(size))


WORKFLOWS: dict[str, Any] = {"map": mapped, "chunks": chunked, "chain": chained}
