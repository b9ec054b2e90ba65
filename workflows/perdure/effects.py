"""Calls that change an actor and that a running step has bound: lost, if no graph takes them.

They take effect when the step returns them. One that is bound and left out would be a write that is
lost without a word, so each is noted here until it has become part of a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from perdure.errors import DefinitionError

_SHOWN = 3

_bound: ContextVar[dict[object, str] | None] = ContextVar("perdure_effects", default=None)
"""By call, its name, in the order of binding; None where no step runs, and nothing is noted."""


def begin() -> None:
    """Note from here on, in this context, for one attempt of a step."""
    _bound.set({})


@contextmanager
def apart() -> Iterator[None]:
    """Note what is bound in the block; forget it if the block raises, as its calls are not made."""
    around = _bound.get()
    mine: dict[object, str] | None = None if around is None else {}
    token = _bound.set(mine)
    try:
        yield
        if around is not None and mine is not None:
            around.update(mine)
    finally:
        _bound.reset(token)


@contextmanager
def unnoted() -> Iterator[None]:
    """Note nothing of the block's that is bound around it: it is an execution by itself."""
    token = _bound.set(None)
    try:
        yield
    finally:
        _bound.reset(token)


def is_noting() -> bool:
    """Say whether a step runs here."""
    return _bound.get() is not None


def note(call: object, name: str) -> None:
    """Note a call that changes an actor."""
    bound = _bound.get()
    if bound is not None:
        bound[call] = name


def take(calls: Iterable[object]) -> None:
    """Note of calls that they have become part of a graph."""
    if bound := _bound.get():
        for call in calls:
            bound.pop(call, None)


def refuse_lost() -> None:
    """Refuse what the step returned if calls that it bound are no part of it.

    Raises:
        DefinitionError: there are some; it names them and says what to write.
    """
    bound = _bound.get()
    if not bound:
        return
    names = list(bound.values())
    bound.clear()
    told = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    one = len(names) == 1
    raise DefinitionError(
        f"{told} {'was' if one else 'were'} bound and {'is' if one else 'are'} no part of what the "
        "step returned: calls of an actor take effect when the step returns them, so "
        f"{'it' if one else 'they'} would be lost. Return the last node, bound with what else is "
        "to be done before it: `return last.options(after=[first]).bind(...)`; or do not bind it"
    )
