"""Workflows that wait, imported by name in workers."""

from __future__ import annotations

from typing import Any

import perdure
from perdure import Failure, task, workflow


@task
def told(*values: Any) -> str:
    """Return what came, as text."""
    return " ".join(v.type if isinstance(v, Failure) else str(v) for v in values)


@workflow
def approval(timeout: float = 60.0) -> str:
    return told.bind(perdure.wait_signal("approve", bool, timeout, default=False))


@workflow
def queue() -> str:
    """Three waits for one name, one after the other."""
    first = perdure.wait_signal("order", int)
    second = perdure.wait_signal("order", int, after=first)
    third = perdure.wait_signal("order", int, after=second)
    return told.bind(first, second, third)


@workflow
def chain() -> str:
    """Three steps, one after the other."""
    return told.bind(told.bind(told.bind("busy")))


@workflow
def impatient() -> str:
    return told.bind(perdure.wait_signal("never", timeout=0.05, catch=True))


@workflow
def failing() -> str:
    return told.bind(perdure.wait_signal("never", timeout=0.05))


@workflow
def naps(seconds: float, and_then: float = 0.0) -> str:
    nap = perdure.sleep(seconds)
    return told.options(after=perdure.sleep(and_then, after=nap)).bind("awake")


@workflow
def landing(file: perdure.Static[str] = "a") -> str:
    return told.bind(perdure.wait_event("landed", match={"file": file}))


@task
def ask(question: str) -> Any:
    """Wait in place of a value."""
    return perdure.wait_signal(question)


@workflow
def asking() -> str:
    """Waits as children of a map, and in a returned graph."""
    return told.bind(ask.map(["one", "two"]), ask.bind("three"))


@workflow
def orders(more: perdure.Static[int] = 5) -> str:
    """Two waits for one name, one after the other, and a chain that goes on between them."""
    first = perdure.wait_signal("order", int)
    second = perdure.wait_signal("order", int, after=first)
    link = told.options(after=first).bind(0)
    for number in range(more):
        link = told.options(after=link).bind(number)
    return told.options(after=link).bind(first, second)


@task
def hear(rounds: int, heard: list[Any]) -> Any:
    """Hear one word after the other, each in a round of its own."""
    if len(heard) == rounds:
        return heard
    return hear.bind(rounds, with_last.bind(heard, perdure.wait_signal("word")))


@task
def with_last(heard: list[Any], word: Any) -> list[Any]:
    return [*heard, word]
