"""Outcomes that executors make themselves, for attempts that can no longer speak."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from perdure.calls import CallId, Outcome, StepCall
from perdure.errors import PerdureError, RunCancelled, StepTimeout, WorkerLost
from perdure.words import size
from perdure.worker.failures import error_record
from perdure.worker.steps import worker_name
from perdure_storage.codecs import Codecs
from perdure_storage.records import Cause

_codecs = Codecs()

_SIGNALS = {
    signal.SIGSEGV: "segmentation fault: native code that it called has crashed",
    signal.SIGABRT: "aborted (SIGABRT): native code that it called has given up",
    signal.SIGBUS: "bus error (SIGBUS): a mapped file became shorter, or /dev/shm is full",
    signal.SIGFPE: "arithmetic error in native code (SIGFPE)",
    signal.SIGILL: "illegal instruction (SIGILL): a library is built for another processor",
    signal.SIGKILL: "killed by SIGKILL, by somebody or by a limit on memory that does not tell; if "
    "it is memory, ask for it with memory=, so that fewer steps run at once",
}
"""What a signal says of its cause, as far as it says anything."""


def ended(call: StepCall, cause: Cause, *, retryable: bool = True, worker: str = "") -> Outcome:
    """Return the outcome of an attempt that was ended from outside.

    Args:
        call: the attempt.
        cause: TIMEOUT, CANCELLED, ABANDONED or whatever else ``kill`` was told.
        retryable: for a time-out, what ``retry_on`` says of it.
        worker: who ran it.
    """
    make = _ERRORS.get(cause, _lost)
    return _outcome(call.id, cause, make(call), retryable=retryable, worker=worker)


def unbegun(call: StepCall, cause: Cause) -> Outcome:
    """Return the outcome of an attempt that was ended while it waited for its turn."""
    if cause is Cause.ABANDONED:
        return Outcome(id=call.id, cause=cause)  # nobody ran it, and nothing went wrong
    if cause is not Cause.CANCELLED:
        return ended(call, cause)
    message = f"{call.id.step_id} was cancelled before it began"
    error = RunCancelled(message, run_id=call.id.run_id)
    return _outcome(call.id, cause, error, retryable=True, worker="")


def lost(call: StepCall, cause: Cause, message: str, *, worker: str = "") -> Outcome:
    """Return the outcome of an attempt whose process died."""
    error = WorkerLost(f"{call.id.step_id}: {message}", step_id=call.id.step_id)
    return _outcome(call.id, cause, error, retryable=True, worker=worker)


def too_large(call: StepCall, held_bytes: int, *, worker: str) -> Outcome:
    """Return the outcome of an attempt that was ended because it took more than its ``memory``."""
    asked = size(call.memory_bytes or 0)
    message = (
        f"it held {size(held_bytes)} of memory, with the processes below it, and had asked for "
        f"memory={asked}: it was ended before it took what others have asked for"
    )
    return lost(call, Cause.OUT_OF_MEMORY, message, worker=worker)


def describe_death(status: int | None, *, out_of_memory: bool) -> tuple[Cause, str]:
    """Say why a worker died.

    Args:
        status: its exit status, negative for a signal, None if nobody saw it.
        out_of_memory: the kernel's counters say that it killed a process for memory meanwhile.
    """
    if status is None:
        return Cause.WORKER_LOST, "its worker process vanished together with its keeper"
    if status >= 0:
        return Cause.WORKER_LOST, _exited(status)
    if status == -signal.SIGKILL and out_of_memory:
        return Cause.OUT_OF_MEMORY, (
            "its worker process was killed by the kernel: out of memory. Ask for what it needs "
            "with memory=, so that fewer steps run at once"
        )
    name = _SIGNALS.get(signal.Signals(-status)) or f"killed by {signal.Signals(-status).name}"
    return Cause.WORKER_LOST, f"its worker process died: {name}"


def _exited(status: int) -> str:
    return (
        f"its worker process exited with status {status}: something in it called os._exit(), or "
        "native code ended it"
    )


def _timeout(call: StepCall) -> PerdureError:
    return StepTimeout(
        f"{call.id.step_id}: it ran longer than its timeout of {call.timeout_s:g} s and was ended",
        step_id=call.id.step_id,
        timeout_s=call.timeout_s,
    )


def _cancelled(call: StepCall) -> PerdureError:
    return RunCancelled(f"{call.id.step_id} was cancelled", run_id=call.id.run_id)


def _lost(call: StepCall) -> PerdureError:
    return WorkerLost(f"{call.id.step_id} was ended from outside", step_id=call.id.step_id)


def _terminated(call: StepCall) -> PerdureError:
    return WorkerLost(
        f"{call.id.step_id}: its worker process got a SIGTERM that perdure did not send",
        step_id=call.id.step_id,
    )


_ERRORS: dict[Cause, Callable[[StepCall], PerdureError]] = {
    Cause.WORKER_LOST: _terminated,
    Cause.TIMEOUT: _timeout,
    Cause.CANCELLED: _cancelled,
}


def _outcome(
    at: CallId, cause: Cause, error: PerdureError, *, retryable: bool, worker: str
) -> Outcome:
    return Outcome(
        id=at,
        cause=cause,
        error=error_record(error, cause=cause, step_id=at.step_id, pickle=_codecs.pickle),
        retryable=retryable,
        worker=worker or worker_name(os.getpid()),
    )
