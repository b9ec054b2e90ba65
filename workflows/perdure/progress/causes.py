"""How attempts end, and what steps wait for, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from perdure import words
from perdure.engine.branching import CHOSE
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Progress,
    SaveRecord,
    StepRecord,
    WaitRecord,
)

if TYPE_CHECKING:
    from perdure.runs import Step

_NAMED = 5
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


def how_ended(attempt: AttemptRecord) -> str:
    """Return what to say after "attempt 2 ..." of a try that is over."""
    if attempt.cause is Cause.ABANDONED and attempt.started_at is None:
        return "was given back before it began"
    return HOW_ENDED[attempt.cause] if attempt.cause is not None else "ended"


def how_long(attempt: AttemptRecord) -> timedelta | None:
    """Return how long a try ran, if that is known.

    Nobody saw the end of one that was cut off: its row ends when the run was taken on again.
    """
    started, finished = attempt.started_at, attempt.finished_at
    if started is None or finished is None or attempt.cause is Cause.ABANDONED:
        return None
    return max(timedelta(), finished - started)


def how_far(progress: Progress) -> str:
    """Return how far a step says that it is: "3 of 10, loss 0.2"."""
    of = "" if progress.total is None else f" of {_number(progress.total)}"
    whose = f"{progress.item}: " if progress.item else ""
    message = f", {progress.message}" if progress.message else ""
    return words.printable(words.one_line(f"{whose}{_number(progress.done)}{of}{message}", 200))


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def of_saves(saves: Sequence[SaveRecord]) -> str:
    """Return what a step has saved, newest first, for who looks at one without a value."""
    if not saves:
        return ""
    newest = saves[-1]
    of = f" of {newest.item}" if newest.item else ""
    more = f", and {len(saves) - 1} before" if len(saves) > 1 else ""
    return words.printable(f"saved at {newest.at}{of}, {newest.saved_at:%H:%M:%S} UTC{more}")


def is_choice(row: StepRecord) -> bool:
    """Say whether a step has the value of a branch: nothing of it ran, and nothing was reused."""
    return not row.attempt and row.reason.startswith(CHOSE)


def standing_of(step: Step) -> str:
    """Return where a step stands as people say it.

    Its status, but that nobody cancelled what was left when its run ended, that what was taken
    over did not run, and that a failure that was caught is a value.
    """
    if step.is_left:
        return "not finished" if step.attempts else "not begun"
    row = step.row
    if row is None or row.status not in ("SUCCEEDED", "FAILED"):
        return str(step.status)
    if row.caught:
        return "caught"
    return "reused" if not row.attempt and not is_choice(row) else str(row.status)


def of_wait(
    wait: WaitRecord, send: Callable[[str], str] | None = None, *, now: datetime | None = None
) -> str:
    """Return what a step waits for, in a line.

    Args:
        wait: the time or message.
        send: returns the command that sends the signal of a name, but for its value.
        now: the time, where it is of interest whether that of the wait is over.
    """
    until = f" until {wait.deadline:%Y-%m-%d %H:%M:%S} UTC" if wait.deadline is not None else ""
    if now is not None and wait.deadline is not None and wait.deadline <= now:
        until += ", which is over: the wait ends when the run is driven on"
        send = None  # it would come too late
    if wait.kind == "sleep":
        return f"its time{until}"
    if wait.kind == "steps":
        names = [name for name, _ in wait.match["steps"]]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{wait.match['wanted']} of {', '.join(names[:_NAMED])}{more}{until}"
    match = f" {wait.match}" if wait.match else ""
    how = f": `{send(wait.name)}`" if send and wait.kind == "signal" else ""
    return words.printable(f"{wait.kind} {wait.name!r}{match}{until}{how}")
