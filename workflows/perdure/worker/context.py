"""``current()``: what a step may know about itself while it runs."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

import msgspec

from perdure.chunks import item_id, item_index
from perdure.errors import DefinitionError
from perdure.worker.failures import StepStopped
from perdure.worker.saving import Saved, Saves


class StopSignal:
    """A flag from the executor to one running attempt; set once, by a signal handler or a loop.

    Attributes:
        asked: the attempt has been asked to end.
        wished: it may hand over, as its run is paused or cancelled; nobody ends it.
        watched: the step has looked, so it is trusted to end by itself within its grace; one
            that has not is interrupted.
    """

    __slots__ = ("asked", "watched", "wished")

    def __init__(self) -> None:
        self.asked = False
        self.wished = False
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
    signal: StopSignal
    output: Writer
    saves: Saves
    item: str = ""

    def save(self, value: Any, *, at: int, keep_last: int = 1) -> None:
        """Keep a value for the next attempt of this step; returns when it is durable.

        The next attempt is the one after a retry, a loss of the worker, a resume. Bytes that are
        stored already are not written again, nor are unchanged files of a folder.

        Args:
            value: anything that a step can return, or the ``Path`` of a folder: then what is in
                it is kept, which nobody may change meanwhile.
            at: how far the step is, as it counts itself.
            keep_last: how many saves of this step stand, this one included; older ones go.

        Raises:
            NotSerializable: the value has no encoding, or something in the folder cannot be kept.
            RunConflict: this attempt is not the current one any more: another one runs, or the
                run is over.
            StoreUnavailable: the store does not answer; let it through, it spends no retry.
        """
        self.saves.save(value, at, keep_last, self.item)

    def load(
        self, *, at: int | None = None, into: str | os.PathLike[str] | None = None
    ) -> Saved | None:
        """Return what this step has saved last: ``Saved`` with ``at`` and ``value``, or None.

        None if nothing was saved since the step's code and inputs are what they are now, or if
        all of it is lost. A save that is damaged is told of in the log, and the one before taken.

        Args:
            at: only what was saved at this place.
            into: of a folder: where to put the copy, which is not there yet or empty; by default
                in a temporary folder that goes when the attempt ends.

        Raises:
            ValueUnavailable: storage does not answer; let it through, it spends no retry.
        """
        return self.saves.load(at, None if into is None else os.fspath(into), self.item)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the step is, for people to see while it runs. Costs next to nothing.

        Args:
            done: how much is done, as the step counts.
            total: how much there is; None if that is not known.
            message: a few words, a loss say.

        Raises:
            DefinitionError: the message is no text.
        """
        if not isinstance(message, str):
            raise DefinitionError(
                f"progress() takes a few words as its message, not {message!r:.100}: "
                'write message=f"loss {loss:.3f}"'
            )
        words = message.encode(errors="replace").decode()
        try:
            numbers = float(done), None if total is None else float(total)
        except OverflowError:
            raise DefinitionError("progress() takes numbers that a float can hold") from None
        self.saves.tell(*numbers, words, self.item)

    def should_stop(self) -> bool:
        """Say whether the step is asked to end: its run is cancelled or paused, its time is over.

        A step that looks here has its grace (5 s) after a cancel or a time-out to save what it
        wants to keep; one that never looks is interrupted at once by an exception, so that its
        ``finally`` blocks run, and an ``async def`` is always cancelled. A pause waits for the
        step, however long that takes. Call ``stop`` then: what you return is the step's value.
        """
        self.signal.watched = True
        if not self.signal.wished:
            self.signal.wished = self.saves.is_asked()
        return self.signal.asked or self.signal.wished

    def stop(self) -> NoReturn:
        """End this attempt here, if it is asked to end: the next one goes on from the last save.

        Spends no retry.

        Raises:
            DefinitionError: nobody has asked.
        """
        if not self.should_stop():
            raise DefinitionError("stop() was called though nobody asked: should_stop() is False")
        raise StepStopped("the step has stopped, as it was asked to")


running: ContextVar[Context | None] = ContextVar("perdure_step", default=None)
"""Set by executors, around the user's function only."""


def _of_item(context: Context | None) -> Context | None:
    """Return the context of one item, where the step takes several: as in a step of its own."""
    index = item_index.get()
    if context is None or index is None:
        return context
    step_id = item_id(context.step_id, index)
    key = f"{context.run_id}/{step_id}/{context.generation}"
    return msgspec.structs.replace(context, step_id=step_id, idempotency_key=key, item=step_id)


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
