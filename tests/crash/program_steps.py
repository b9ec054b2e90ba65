"""The steps of programs by chance: each notes in the ledger what it was given."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.ledger import executing
from tests.crash.steps import AT_ONCE, GATE, bytes_of

from perdure import Failure, Static, task, workflow
from perdure.worker.context import current

if TYPE_CHECKING:
    from tests.crash.programs import Env, Program

FAILED = "Failure"
_PRIME = 1_000_003
LASTING = {"lost_retries": -1}


# --- values -------------------------------------------------------------------------------------
def fold(value: Any) -> int:
    """Return a number for any value that a program has; equal ones for equal values only."""
    match value:
        case bool() | None:
            return 3 + bool(value)
        case int():
            return value
        case Failure():
            return fold(FAILED)
        case bytes() | bytearray():
            return zlib.crc32(value) % _PRIME
        case str():
            return zlib.crc32(value.encode()) % _PRIME
        case Mapping():
            return fold(list(value.values()))
    total = 17
    for item in value:
        total = (total * 31 + fold(item)) % _PRIME
    return total


def leaves(value: Any) -> int:
    """Return how many single values there are in it."""
    if isinstance(value, list | tuple):
        return sum(map(leaves, value))
    return sum(map(leaves, value.values())) if isinstance(value, Mapping) else 1


def note(name: str, value: Any) -> str:
    """Return what a step notes that was given this value."""
    return f"{name} {leaves(value)} {fold(value)}"


def is_even(value: Any) -> bool:
    return fold(value) % 2 == 0


def is_four(state: int) -> bool:
    return state >= 4


# --- the tasks ----------------------------------------------------------------------------------
@task(**LASTING)
def take(value: Any) -> Any:
    with executing(note("take", value)):
        return value


@task(**LASTING)
def several(values: list[Any]) -> list[Any]:
    with executing(note("several", values)):
        return values


@task(**LASTING)
def add(values: list[Any]) -> int:
    with executing(note("add", values)):
        return fold(values)


@task(**LASTING)
def through(value: Any) -> int:
    with executing(note("through", value)):
        return fold(value) + 1


@task(**LASTING)
def large(value: Any) -> bytes:
    with executing(note("large", value)):
        return bytes_of(str(fold(value)))


@task(checkpoint=False, **LASTING)
def unkept(value: Any) -> int:
    with executing(note("unkept", value)):
        return fold(value) + 1


@task(volatile=True, **LASTING)
def volatile(value: Any) -> int:
    with executing(note("volatile", value)):
        return fold(value) + 1


@task(retries=50, backoff=AT_ONCE, **LASTING)
def flaky(value: Any) -> int:
    with executing(note("flaky", value)):
        if current().attempt == 1:
            raise ConnectionError("try again")
        return fold(value) + 1


@task(catch=True, **LASTING)
def hopeless(value: Any) -> int:
    with executing(note("hopeless", value)):
        raise ValueError("never")


@task(**LASTING)
def gated(value: Any) -> int:
    with executing(note("gated", value)):
        gate = os.environ.get(GATE)
        if gate is not None and not Path(gate).exists():
            raise ValueError("not mended yet")
        return fold(value) + 1


@task(**LASTING)
async def later(value: Any) -> int:
    with executing(note("later", value)):
        return fold(value) + 1


@task(outputs=2, **LASTING)
def pair(value: Any) -> Any:
    with executing(note("pair", value)):
        return fold(value), fold(value) + 1


@task(**LASTING)
def box(value: Any) -> dict[str, list[int]]:
    with executing(note("box", value)):
        return {"inside": [0, fold(value) + 1]}


@task(**LASTING)
def modulo(value: Any, by: int) -> int:
    with executing(note("modulo", value)):
        return fold(value) % by


@task(**LASTING)
def give(program: Program, env: Env) -> Any:
    with executing(note("give", env)):
        return bind_step(program, env)


@task(**LASTING)
def descend(depth: int, program: Program, env: Env, beside: int) -> Any:
    with executing(note("descend", [depth, env, beside])):
        if depth == 0:
            return bind_step(program, env)
        return descend.bind(depth - 1, program, env, take.bind(depth))


@task(**LASTING)
def halve(depth: int, program: Program, env: Env) -> Any:
    with executing(note("halve", [depth, env])):
        if depth == 0:
            return bind_step(program, env)
        return add.bind([halve.bind(depth - 1, program, env) for _ in range(2)])


@workflow
def within(program: Static[Any], env: dict[str, Any]) -> Any:
    return add.bind([program.bind({name: env[name] for name in sorted(program.names())})])


@task(catch=True, **LASTING)
def guard(program: Program, env: Env) -> Any:
    with executing(note("guard", env)):
        return fail.bind([program.bind(env)])


@task(**LASTING)
def fail(values: list[Any]) -> Any:
    with executing(note("fail", values)):
        raise ValueError("never")


@task(**LASTING)
def listed(programs: list[Program]) -> list[Program]:
    with executing(note("listed", len(programs))):
        return programs


def label(value: Any) -> str:
    return f"n{value.number if hasattr(value, 'number') else fold(value) % 3}"


@task(**LASTING)
def item(program: Program, env: Env) -> Any:
    with executing(note("item", [program.number, env])):
        return bind_step(program, env)


@task(**LASTING)
def enough(values: list[Any], most: int) -> int:
    with executing(note("enough", most)):
        assert len(values) == most or any(map(is_even, values)), "it stopped for nothing"
        return most


def bind_step(program: Program, env: Env) -> Any:
    """Return a node for any program: what a wait, an order or a returned graph are made of."""
    bound = program.bind(env)
    return bound if program.is_step else several.bind([bound])


@task(**LASTING)
def given_back(state: int) -> Any:
    with executing(note("given_back", state)):
        return through.bind(state)


@workflow
def rounds(state: int) -> int:
    return through.bind(state)


@task(**LASTING)
def raced(done: list[Any], pending: list[Any], values: list[Any], least: int, of: int) -> int:
    with executing(note("raced", of)):
        assert len(done) >= least, "the wait ended before there were enough"
        assert len(values) == len(done), "a value of what is done is missing"
        assert len(done) + len(pending) == of, "what was waited for is missing"
        return of


BY_KIND: dict[str, Any] = {
    "through": through, "large": large, "unkept": unkept, "volatile": volatile, "flaky": flaky,
    "hopeless": hopeless, "gated": gated, "later": later,
}  # fmt: skip
KINDS = tuple(BY_KIND)
MAPPED = ("through", "large", "flaky", "hopeless", "unkept", "gated", "later")
