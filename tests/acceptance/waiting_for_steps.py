"""Workflows that wait for the first of some steps, imported by name in workers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.acceptance.growing_steps import note_run

import perdure
from perdure import Failure, StepRef, task, workflow


@task
def quick(x: int, folder: str = "") -> int:
    note_run(folder)
    return x


@task
def stuck(x: int, folder: str = "") -> int:
    """Run until it is killed, or ``open`` is in the folder."""
    note_run(folder)
    pause = threading.Event()
    while not (Path(folder) / "open").exists():
        pause.wait(0.01)
    return x


@task
def either(x: int, folder: str = "") -> int:
    """Be quick for even numbers only."""
    return stuck.function(x, folder) if x % 2 else quick.function(x, folder)


@task
def fails(folder: str = "") -> int:
    note_run(folder)
    raise ValueError("on purpose")


@task
def named(done: list[StepRef], pending: list[StepRef], *values: Any) -> Any:
    return [list(map(str, done)), list(map(str, pending)), *values]


@task
def told(value: Any) -> Any:
    return [v.type if isinstance(v, Failure) else v for v in value]


@workflow
def first(folder: str, cancel: perdure.Static[bool] = True, timeout: Any = None) -> Any:
    above = quick.options(name="above").bind(2, folder)
    a = quick.options(name="a", after=above).bind(1, folder)
    b = stuck.options(name="b").bind(above, folder)
    done, pending = perdure.wait([b, a], timeout=timeout, cancel_rest=cancel)
    return named.bind(done, pending, perdure.get(done))


@workflow
def needed(folder: str) -> Any:
    """A loser that somebody else needs goes on."""
    a = quick.options(name="a").bind(1, folder)
    b = stuck.options(name="b").bind(2, folder)
    done, pending = perdure.wait([a, b], cancel_rest=True)
    opened = opens.options(after=done).bind(folder)
    return named.options(after=opened).bind(done, pending, b)


@task
def opens(folder: str) -> None:
    (Path(folder) / "open").touch()


@workflow
def items(folder: str, xs: list[int], most: int = 1) -> Any:
    """The first items of a map; the others are not needed, nor is the map."""
    done, pending = perdure.wait(either.map(xs, folder=folder), most, cancel_rest=True)
    return named.bind(done, pending, perdure.get(done))


@workflow
def caught(folder: str) -> Any:
    a = fails.options(catch=True).bind(folder)
    b = stuck.options(name="b").bind(2, folder)
    done, _ = perdure.wait([a, b], cancel_rest=True)
    return told.bind(perdure.get(done))


@workflow
def late(folder: str, timeout: float = 0.05) -> Any:
    """Nothing ends in time, and everything waits."""
    signal = perdure.wait_signal("never", default=None, timeout="3d")
    done, pending = perdure.wait([signal], timeout=timeout, cancel_rest=True)
    return named.bind(done, pending)


@task
def waits_within(xs: list[int]) -> Any:
    """Wait for steps of a graph that it gives, and then for what is left."""
    a, b = (quick.options(name=f"q{x}").bind(x) for x in xs)
    done, pending = perdure.wait([a, b], num_returns=2)
    return both.bind(perdure.get(done), perdure.get(pending))


@task
def both(*xs: Any) -> list[Any]:
    return list(xs)


@task
def again(refs: list[StepRef]) -> Any:
    """Wait for references that were handed on."""
    done, _ = perdure.wait([refs[-1]])
    return perdure.get(done)


@workflow
def nested() -> Any:
    a, b = quick.options(name="a").bind(1), quick.options(name="b").bind(2)
    done, _ = perdure.wait([a, b], num_returns=2)
    third, _ = perdure.wait(done)
    return both.bind(waits_within.bind([3, 4]), again.bind(done), perdure.get(third))


@task
def falsy() -> bool:
    return False


@workflow
def unchosen(folder: str) -> Any:
    only = quick.options(name="only").bind(5, folder)
    value = perdure.when(falsy.bind(), only, 0)
    done, pending = perdure.wait([only, value], num_returns=2, cancel_rest=True)
    return named.bind(done, pending)


@workflow
def result(folder: str) -> Any:
    """The loser is part of the result."""
    a, b = quick.options(name="a").bind(1), quick.options(name="b").bind(2)
    done, _ = perdure.wait([a, b], cancel_rest=True)
    return [perdure.get(done), b]


@workflow
def chain(folder: str) -> Any:
    """What only the loser needs is not needed either."""
    above = stuck.options(name="above").bind(2, folder)
    b = quick.options(name="b").bind(above, folder)
    done, _ = perdure.wait([quick.bind(1), b], cancel_rest=True)
    return perdure.get(done)


@task
def hears(x: int) -> Any:
    """Be quick for 0 only; the others wait for a signal."""
    return perdure.wait_signal(f"item-{x}", int) if x else x


@task
def last_of(refs: list[StepRef], folder: str) -> Any:
    """Fail unless ``open`` is in the folder."""
    if not (Path(folder) / "open").exists():
        raise ValueError("not yet")
    return perdure.get(refs[-1])


@workflow
def one_item(folder: str) -> Any:
    """Only one of the items is asked for, by a graph."""
    done, _ = perdure.wait(quick.map([1, 2], folder=folder), 2)
    return last_of.bind(done, folder)


@task
def races_within() -> Any:
    """Wait for the first of some steps of a graph that it gives."""
    done, _ = perdure.wait([hears.options(name="a").bind(1), hears.options(name="b").bind(2)])
    return perdure.get(done)


@workflow
def loser_that_races() -> Any:
    go = perdure.wait_signal("go", int)
    done, pending = perdure.wait([races_within.bind(), go], cancel_rest=True)
    return named.bind(done, pending)
