"""Workflows with branches and loops, imported by name in workers; steps note that they ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.growing_steps import note_run

import perdure
from perdure import task, workflow


@task
def value(x: Any, folder: str = "") -> Any:
    note_run(folder)
    return x


@task
def double(x: int, folder: str = "") -> int:
    note_run(folder)
    return 2 * x


@task
def both(*xs: Any, folder: str = "") -> list[Any]:
    note_run(folder)
    return list(xs)


@task
def grows(x: int) -> int:
    return double.bind(x)


@workflow
def pair(x: int, folder: str = "") -> dict[str, int]:
    extra = double.options(name="extra").bind(x, folder=folder)
    value.options(name="beside", after=extra).bind(1, folder=folder)
    return {"x": double.bind(x, folder=folder)}


@workflow
def simple(cond: bool, folder: str = "") -> Any:
    """The chosen branch, and what only the other one needs."""
    above = value.options(name="above").bind(3, folder=folder)
    yes = double.options(name="yes").bind(above, folder=folder)
    no = double.options(name="no").bind(
        value.options(name="only_no").bind(5, folder=folder), folder=folder
    )
    return perdure.when(cond, yes, no)


@workflow
def simple_as_a_branch(cond: bool, folder: str = "") -> Any:
    """The branch is a workflow with branches of its own."""
    return perdure.when(True, simple.bind(cond, folder), "no workflow")


@workflow
def pairs(cond: bool, folder: str = "") -> Any:
    """The branch is a list with the result of a workflow inside."""
    return perdure.when(cond, [pair.bind(1, folder)], [])


@workflow
def read_later(cond: bool, folder: str) -> Any:
    """The value of the branch is taken by a step that fails until a file is there."""
    large = repeat.options(name="large").bind("x", 40_000, folder=folder)
    small = value.options(name="small").bind("", folder=folder)
    return length_if_open.bind(perdure.when(cond, large, small), folder=folder)


@task
def repeat(text: str, times: int, folder: str = "") -> str:
    note_run(folder)
    return text * times


@task
def length_if_open(text: str, folder: str) -> int:
    if not (Path(folder) / "gate").exists():
        raise ValueError("not open yet")
    return len(text)


@workflow
def shared(cond: bool, folder: str = "") -> list[Any]:
    """A branch that somebody else needs too runs in any case; a step after a skipped one too."""
    a = value.options(name="a").bind("a", folder=folder)
    b = value.options(name="b").bind("b", folder=folder)
    c = value.options(name="c").bind("c", folder=folder)
    late = value.options(name="late", after=c).bind("late", folder=folder)
    return both.bind(perdure.when(cond, a, c), b, a, late, folder=folder)


@workflow
def asked_after(cond: bool, folder: str = "") -> Any:
    """The choice is after a step that only a branch takes the value of."""
    offer = value.options(name="offer").bind(3, folder=folder)
    asked = value.options(name="asked", after=offer).bind(cond, folder=folder)
    return perdure.when(asked, double.options(name="pay").bind(offer, folder=folder), "no")


@workflow
def asked_crosswise(first: bool, second: bool, folder: str = "") -> list[Any]:
    """Each of two choices is after a step of the other one's branch."""
    a = value.options(name="a").bind("a", folder=folder)
    b = value.options(name="b").bind("b", folder=folder)
    one = value.options(name="one", after=b).bind(first, folder=folder)
    two = value.options(name="two", after=a).bind(second, folder=folder)
    return [perdure.when(one, a, "no a"), perdure.when(two, b, "no b")]


@workflow
def nested(x: int, folder: str = "") -> Any:
    small = perdure.when(value.options(name="odd").bind(x, folder=folder), "odd", grows.bind(10))
    cases = {0: small, 1: double.map([1, 2, x], folder=folder), 2: pair.bind(x, folder)["x"]}
    return perdure.switch(x, cases, default=[value.bind("none", folder=folder)])


@task
def decides(x: int) -> Any:
    """Branch within a graph that a step gives."""
    return perdure.when(x > 1, double.bind(x), value.bind("small"))


@workflow
def within() -> list[Any]:
    return both.bind(decides.map([1, 2, 3]), decides.bind(0))


def is_large(x: int) -> bool:
    return x > 50


@workflow
def looped(start: int, most: int = 20) -> int:
    return perdure.loop(double, start, until=is_large, max_iterations=most)


@task
def plus_one(x: int) -> int:
    return x + 1


@workflow
def long_loop(rounds: perdure.Static[int]) -> int:
    return perdure.loop(plus_one, 0, until=lambda x: x >= rounds, max_iterations=rounds)


@task
def chain(x: int) -> Any:
    """Return a call that returns a branch with an order in it, in place of a value."""
    return linked.bind(x)


@task
def linked(x: int) -> Any:
    late = value.options(name="late", after=value.options(name="first").bind(x)).bind(x)
    return perdure.when(x, "linked", late)


@workflow
def chosen_by_a_chain(x: int) -> Any:
    return perdure.when(chain.bind(x), "yes", "no")
