"""``current()``: what a step may know about itself while it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

import msgspec

from perdure.chunks import item_id, item_index
from perdure.errors import DefinitionError


class StopSignal:
    """A flag from the executor to one running attempt; set once, by a signal handler or a loop.

    Attributes:
        asked: the attempt has been asked to end.
        watched: the step has looked, so it is trusted to end by itself within its grace; one
            that has not is interrupted.
    """

    __slots__ = ("asked", "watched")

    def __init__(self) -> None:
        self.asked = False
        self.watched = False


class Writer(Protocol):
    """Takes what an attempt prints."""

    def write(self, text: str) -> None:
        """Add ``text`` to the attempt's log."""
        ...


class Context(msgspec.Struct, frozen=True):
    """The attempt that is running here.

    Attributes:
        run_id: the run, as in ``perdure ls``.
        step_id: the step, as in ``perdure show``.
        generation: which life of the step's result this is, from 1.
        attempt: which try of that generation, from 1.
        idempotency_key: the same for every attempt of this generation; hand it to outside
            services so that a repeated effect is theirs to recognise.
    """

    run_id: str
    step_id: str
    generation: int
    attempt: int
    idempotency_key: str
    stop: StopSignal
    output: Writer

    @property
    def should_stop(self) -> bool:
        """Say whether the step has been asked to end, by a cancel, a time-out or a shutdown.

        A step that looks here has its grace (5 s) to save what it wants to keep and return. One
        that never looks is interrupted at once by an exception, so that its ``finally`` blocks
        run; an ``async def`` is always cancelled.
        """
        self.stop.watched = True
        return self.stop.asked


running: ContextVar[Context | None] = ContextVar("perdure_step", default=None)
"""Set by executors, around the user's function only."""


def _of_item(context: Context | None) -> Context | None:
    """Return the context of one item, where the step takes several: as in a step of its own."""
    index = item_index.get()
    if context is None or index is None:
        return context
    step_id = item_id(context.step_id, index)
    key = f"{context.run_id}/{step_id}/{context.generation}"
    return msgspec.structs.replace(context, step_id=step_id, idempotency_key=key)


def current() -> Context:
    """Return the context of the step that runs here; also inside ``async def`` tasks.

    Raises:
        DefinitionError: outside a running step, and in threads that the step started itself
            (hand them the context, or ``contextvars.copy_context().run``).
    """
    context = _of_item(running.get())
    if context is None:
        raise DefinitionError(
            "current() was called where no step is running: call it inside a task's function, "
            "and in threads that the task starts through contextvars.copy_context().run(...)"
        )
    return context
