"""How attempts end, in words."""

from __future__ import annotations

from datetime import timedelta

from perdure_storage.records import AttemptRecord, Cause

HOW_ENDED: dict[Cause, str] = {
    Cause.SUCCEEDED: "succeeded",
    Cause.USER_ERROR: "failed",
    Cause.TIMEOUT: "timed out",
    Cause.WORKER_LOST: "lost its worker",
    Cause.OUT_OF_MEMORY: "ran out of memory",
    Cause.SETUP_ERROR: "could not begin",
    Cause.INPUT_LOST: "found an input gone",
    Cause.INPUT_UNAVAILABLE: "could not reach an input",
    Cause.CANCELLED: "was cancelled",
    Cause.ABANDONED: "was cut off",
    Cause.ENGINE_ERROR: "failed in perdure itself",
}
"""What to say after "attempt 2 ..."."""


def how_long(attempt: AttemptRecord) -> timedelta | None:
    """Return how long a try ran, if that is known.

    Nobody saw the end of one that was cut off: its row ends when the run was taken on again.
    """
    started, finished = attempt.started_at, attempt.finished_at
    if started is None or finished is None or attempt.cause is Cause.ABANDONED:
        return None
    return max(timedelta(), finished - started)
