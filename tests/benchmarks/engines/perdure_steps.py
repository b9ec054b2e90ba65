"""The steps and workflows of perdure's workloads: in a module, as a project has them."""

from __future__ import annotations

import common
import numpy

from perdure import Static, task, workflow


@task
def add_one(n: int) -> int:
    return n + 1


@task
def nothing(n: int) -> int:
    return n


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def make(mebibytes: int, ledger: str) -> numpy.ndarray:
    array = numpy.arange(mebibytes * 131_072, dtype=numpy.float64)
    common.append(ledger, 0)
    return array


@task
def read(array: numpy.ndarray, ledger: str) -> tuple[float, float]:
    """Return the last item, and the memory that is this process's own, in MB."""
    common.append(ledger, 1)
    return float(array[-1]), common.own_mb()


@task
def note(n: int, ledger: str) -> int:
    common.append(ledger, n)
    return n + 1


@task
def busy(n: int) -> int:
    return common.burn()


@workflow
def chain(steps: Static[int]) -> int:
    value = 0
    for _ in range(steps):
        value = add_one.bind(value)
    return value


@workflow
def fan_out(steps: Static[int]) -> int:
    return total.bind([nothing.bind(n) for n in range(steps)])


@workflow
def five(start: int) -> int:
    value = start
    for _ in range(5):
        value = add_one.bind(value)
    return value


@workflow
def large(mebibytes: int, ledger: str) -> tuple[float, float]:
    return read.bind(make.bind(mebibytes, ledger), ledger)


@task
def make_new(mebibytes: int, ledger: str, first: int) -> numpy.ndarray:
    """Make an array that nobody has made before, if its first item is new."""
    array = numpy.arange(first, first + mebibytes * 131_072, dtype=numpy.float64)
    common.append(ledger, 0)
    return array


@workflow
def handed(
    mebibytes: int, ledger: str, first: int, one: Static[str], other: Static[str]
) -> tuple[float, float]:
    """From a step on one node of Ray to a step on another; nodes are told by a label."""
    made = make_new.options(resources={f"place={one}": 1}).bind(mebibytes, ledger, first)
    return read.options(resources={f"place={other}": 1}).bind(made, ledger)


@workflow
def noted(steps: Static[int], ledger: str) -> int:
    value = 0
    for _ in range(steps):
        value = note.bind(value, ledger)
    return value


@workflow
def spread(steps: Static[int]) -> int:
    return total.bind([busy.bind(n) for n in range(steps)])
