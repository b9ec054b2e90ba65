"""Programs by chance of tasks and actors, and what plain Python says that they come to.

Each actor remembers every call that has changed it, in order: were one made twice, left out, or
made on another state, its memory would show it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.crash.here import HESITATED
from tests.crash.steps import GATE

import perdure
from perdure import Failure, actor, method, task, workflow

ACTORS = 2
FAILED = "Failure"
PADDING = 40_000
"""Some states are too large for their rows, and so are blobs."""


def has_hesitated(number: int) -> bool:
    """Say whether some process has hesitated at a number; it has now."""
    try:
        Path(os.environ[GATE]).with_name(f"{HESITATED}{number}").touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


class Refused(Exception):
    """What a call raises that is to fail."""


@actor
class Memory:
    """Remembers what it was told."""

    def __init__(self, padding: int) -> None:
        self.padding = "x" * padding
        self.told: list[int] = []

    def tell(self, number: Any) -> int:
        self.told.append(weigh(number))
        return sum(self.told)

    def refuse(self, number: int) -> int:
        self.told.append(-number)
        raise Refused(str(number))

    def hesitate(self, number: int) -> int:
        self.told.append(-number)
        if not has_hesitated(number):
            raise Refused(str(number))
        self.told.pop()
        return self.tell(number)

    @method(readonly=True)
    def recall(self) -> list[int]:
        told = list(self.told)
        self.told.append(-1)  # on a copy
        return told


@actor(state="rebuild", gpus=1, cpus=0)
class Scale:
    """Is made again wherever it is needed."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def scaled(self, value: Any) -> int:
        return self.factor * weigh(value)


FACTOR = 3


def weigh(value: Any) -> int:
    """Return a number for any value that a program has."""
    if isinstance(value, Failure) or value == FAILED:
        return 5
    if isinstance(value, list):
        return sum(map(weigh, value)) % 1009 + len(value)
    return int(value) % 1009


@task
def weighed(value: Any) -> int:
    return weigh(value)


@task
def is_odd(value: Any) -> bool:
    return weigh(value) % 2 == 1


@task
def play(actors: list[Any], scale: Any, program: list[Any]) -> Any:
    """Give the graph of a program in place of a value."""
    return weighed.bind(traced(actors, scale, program))


@task
def repeat(memory: Any, times: int, told: int = 0) -> Any:
    """Give one call and what is to come after it, again and again: a chain of graphs."""
    return repeat.bind(memory, times - 1, memory.tell.bind(times)) if times else told


def traced(actors: Sequence[Any], scale: Any, program: Sequence[Any]) -> list[Any]:
    """Bind the calls of a program; return their nodes."""
    nodes: list[Any] = [1]
    for kind, which, number in program:
        # A graph below that was given one actor has no other.
        memory, before = actors[which % len(actors)], nodes[number % len(nodes)]
        match kind:
            case "tell":
                nodes.append(memory.tell.bind(number))
            case "pass":
                nodes.append(memory.tell.bind(before))
            case "refuse":
                nodes.append(memory.refuse.options(catch=True).bind(number))
            case "hesitate":
                again = perdure.Backoff(0)
                nodes.append(memory.hesitate.options(retries=1, backoff=again).bind(number))
            case "recall":
                nodes.append(memory.recall.bind())
            case "map":
                nodes.append(memory.tell.map(list(range(number % 4))))
            case "readers":
                nodes.append(weighed.map(memory.tell.map(list(range(number % 3)))))
            case "repeat":
                nodes.append(repeat.bind(memory, number % 4))
            case "task":
                nodes.append(weighed.bind(before))
            case "scale":
                nodes.append(scale.scaled.bind(before))
            case "stages":
                first = weighed.map(list(range(number % 5)))
                nodes.append(weighed.map(scale.scaled.map(first)))
            case "branch":
                chosen = memory.tell.bind(number)
                nodes.append(perdure.when(is_odd.bind(before), chosen, weighed.bind(0)))
            case list():
                nodes.append(play.bind([memory] if which else list(actors), scale, kind))
    return nodes


@workflow
def playing(program: perdure.Static[list[Any]], snapshots: perdure.Static[list[Any]]) -> Any:
    actors = [  # one of them and both instances of the pool want the one GPU
        Memory.options(snapshot=snapshot, gpus=n % 2).bind(n * PADDING)  # type: ignore[attr-defined]
        for n, snapshot in enumerate(snapshots)
    ]
    scale = Scale.options(pool=2).bind(FACTOR)  # type: ignore[attr-defined]
    return [traced(actors, scale, program), [each.recall.bind() for each in actors]]


# --- what plain Python says ---------------------------------------------------------------------
def foretold(program: Sequence[Any]) -> Any:
    """Return what a program comes to."""
    told: list[list[int]] = [[] for _ in range(ACTORS)]
    values = _foretold(program, told)
    return [values, told]


def _foretold(program: Sequence[Any], told: list[list[int]]) -> list[Any]:
    values: list[Any] = [1]

    def tell(which: int, value: Any) -> int:
        told[which].append(weigh(value))
        return sum(told[which])

    for kind, place, number in program:
        which = place % len(told)
        before = values[number % len(values)]
        match kind:
            case "tell" | "hesitate":
                values.append(tell(which, number))
            case "pass":
                values.append(tell(which, before))
            case "refuse":
                values.append(FAILED)
            case "recall":
                values.append(list(told[which]))
            case "map":
                values.append([tell(which, item) for item in range(number % 4)])
            case "readers":
                values.append([weigh(tell(which, item)) for item in range(number % 3)])
            case "repeat":
                tells = [tell(which, times) for times in range(number % 4, 0, -1)]
                values.append(tells[-1] if tells else 0)
            case "task":
                values.append(weigh(before))
            case "scale":
                values.append(FACTOR * weigh(before))
            case "stages":
                values.append([weigh(FACTOR * weigh(item)) for item in range(number % 5)])
            case "branch":
                values.append(tell(which, number) if weigh(before) % 2 == 1 else 0)
            case list():
                inner = [told[which]] if place else told
                values.append(weigh(_foretold(kind, inner)))
    return values


def plain(value: Any) -> Any:
    """Return a result with what tells failures apart left out."""
    if isinstance(value, Failure):
        return FAILED
    return list(map(plain, value)) if isinstance(value, list) else value


_numbers = st.integers(0, 60)
_which = st.integers(0, ACTORS - 1)
_calls = ["tell", "pass", "refuse", "hesitate", "recall", "map", "readers", "repeat"]
_kinds = st.sampled_from([*_calls, "task", "branch", "scale", "stages"])


def _ops(depth: int) -> st.SearchStrategy[list[Any]]:
    kinds: Any = _kinds if depth == 0 else st.one_of(_kinds, _kinds, _kinds, _ops(depth - 1))
    return st.lists(st.tuples(kinds, _which, _numbers).map(list), min_size=1, max_size=6)


programs = _ops(2)
snapshots = st.lists(st.sampled_from(["every", 2, 3, "end"]), min_size=ACTORS, max_size=ACTORS)
