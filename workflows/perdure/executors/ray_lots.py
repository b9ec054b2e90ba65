"""Lots of calls that Ray has: what shares one, what is known of it, and what its end means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.calls import CallContext, CallId, Instance, Outcome, StepCall
from perdure.executors.endings import ended, lost, unbegun
from perdure.executors.ray_cluster import is_of_ray, last_words
from perdure.executors.worker_process import bare, needed_constants, needed_functions
from perdure.worker.lots import Begun
from perdure_storage.clock import SystemClock
from perdure_storage.records import Cause

_clock = SystemClock()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What calls must have in common to share a lot, and where that goes.

    Attributes:
        instance: of an actor, whose calls they are.
        bundle: digest of the recorded sources that they need; "" for none.
        joins_loop: they run on the event loop that all such calls share.
        is_shared: several may go in one lot.
        request: what each of them asks for.
    """

    run_id: str
    instance: Instance | None
    bundle: str
    joins_loop: bool
    is_shared: bool
    request: bytes


class Flight:
    """One call that Ray has.

    Attributes:
        ending: the cause with which it is being ended; None while it is not.
        grace_s: what it has for that.
        is_asked: it has been told.
        is_wished: it has been wished that it ends early.
        started_at: when it began, or was handed over.
    """

    __slots__ = ("call", "ending", "grace_s", "is_asked", "is_wished", "lot", "started_at")

    def __init__(self, call: StepCall, lot: SentLot) -> None:
        self.call = call
        self.lot = lot
        self.ending: Cause | None = None
        self.grace_s = 0.0
        self.is_asked = False
        self.is_wished = False
        self.started_at = _clock.now()

    def begin(self) -> None:
        """Note that it begins now."""
        self.started_at = _clock.now()

    def ended(self, cause: Cause) -> Outcome:
        """Return the outcome of one that was ended with a cause."""
        begun = self.lot.begun
        retryable = cause is not Cause.TIMEOUT or begun is None or begun.timeout_is_retryable
        outcome = ended(self.call, cause, retryable=retryable, worker=self.lot.worker)
        return msgspec.structs.replace(outcome, started_at=self.started_at)

    def lost(self, errors: Any) -> Outcome:
        """Return the outcome of one whose Ray task is over without it.

        Args:
            errors: the module ``ray.exceptions``.
        """
        if self.ending is not None:
            if self.lot.begun is None:
                return unbegun(self.call, self.ending)
            return self.ended(self.ending)
        if self.lot.is_killed:  # for the sake of a neighbour on the same loop
            return self.ended(Cause.ABANDONED)
        cause, message = self.lot.describe(errors)
        outcome = lost(self.call, cause, message, worker=self.lot.worker)
        return msgspec.structs.replace(outcome, started_at=self.started_at)


class SentLot:
    """One Ray task.

    Attributes:
        host: the Ray actor whose task it is; None if it is a task of its own.
        mailbox: over which it tells news.
        flights: the calls of it of which nothing has been heard, in order.
        begun: who runs it, once that has been heard.
        error: with what it ended, if it has not ended as it should.
        is_killed: its process is being ended.
        is_reaped: no other process of it is left, as far as that is known.
        is_heard: all that it said is heard.
    """

    __slots__ = (
        "begun",
        "error",
        "flights",
        "host",
        "is_heard",
        "is_killed",
        "is_reaped",
        "kind",
        "mailbox",
        "number",
        "ref",
    )

    def __init__(self, number: int, kind: Kind, ref: Any, host: Any, mailbox: Any) -> None:
        self.number = number
        self.kind = kind
        self.ref = ref
        self.host = host
        self.mailbox = mailbox
        self.flights: dict[CallId, Flight] = {}
        self.begun: Begun | None = None
        self.error: BaseException | None = None
        self.is_killed = False
        self.is_reaped = True
        self.is_heard = False

    @property
    def worker(self) -> str:
        """Return the name of who runs it, or "" if that has not been heard."""
        return self.begun.worker if self.begun is not None else ""

    def is_unclear(self) -> bool:
        """Say whether nobody knows which call was at fault, if it is lost.

        It has several, or one that has not told who runs it. One that could not tell that it begins
        has not begun.
        """
        return len(self.flights) > 1 or (self.kind.is_shared and self.begun is None)

    def describe(self, errors: Any) -> tuple[Cause, str]:
        """Say why it was lost, and on which node.

        Args:
            errors: the module ``ray.exceptions``.
        """
        where = f" on node {self.begun.node}" if self.begun is not None else ""
        assert self.error is not None
        if isinstance(self.error, errors.RayTaskError):
            if is_of_ray(self.error):  # with what it was talking to, as the mailbox
                return Cause.WORKER_LOST, f"its Ray task was lost{where}: {last_words(self.error)}"
            return Cause.SETUP_ERROR, f"it could not begin on Ray{where}: {last_words(self.error)}"
        said = " ".join(str(self.error).split())
        if isinstance(self.error, errors.OutOfMemoryError):
            return Cause.OUT_OF_MEMORY, (
                f"Ray has ended its worker{where}: the node was out of memory. Ask for what it "
                f"needs with memory=, so that fewer steps run at once. Ray says: {said}"
            )
        what = "node" if isinstance(self.error, errors.NodeDiedError) else "worker"
        return Cause.WORKER_LOST, f"its Ray {what} was lost{where}: {said}"


def part_for(calls: Sequence[StepCall], context: CallContext) -> CallContext:
    """Return the context with what these calls need of it."""
    functions = set[str]().union(*map(needed_functions, calls))
    constants = set[int]().union(*map(needed_constants, calls))
    return msgspec.structs.replace(
        bare(context),
        functions={name: context.functions[name] for name in functions},
        constants={index: context.constants[index] for index in constants},
    )
