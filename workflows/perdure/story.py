"""Why a step ran, was taken over, is retried or waits, and how its attempts went: from its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure import words
from perdure.plan import GIVEN
from perdure.progress.causes import HOW_ENDED, how_long, is_choice
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import AttemptRecord, ErrorRecord, StepRecord

_TOLD = 20
_UNMET = 5


def of_ended(row: StepRecord, attempts: Sequence[AttemptRecord]) -> str:
    """Return the story of a step that has a row: why it ran or did not, and each try."""
    reason = row.reason or "it had not run before"
    if row.status is StepStatus.SKIPPED:
        return f"{row.step_id} was skipped: {reason}"
    if row.status is StepStatus.CANCELLED:
        return _with_tries(f"{row.step_id} was cancelled: {reason}", attempts, least=1)
    if is_choice(row):
        return f"{row.step_id} {reason}"
    if row.attempt == 0:
        did = "did not run: " if row.own.startswith(GIVEN) else "was taken over: "
        if reason.startswith("taken over from "):
            did = "was "
        return _with_tries(f"{row.step_id} {did}{reason}", attempts, least=1)
    first = f"{row.step_id} ran ({_count(attempts, row)}): {reason}"
    if row.error is not None and len(attempts) < 2:
        caught = " and that was caught" if row.caught else ""
        first += f"; it failed{caught}: {_error(row.error)}"
    return _with_tries(first, attempts)


def of_unended(
    step_id: str,
    status: StepStatus,
    attempts: Sequence[AttemptRecord],
    *,
    unmet: Callable[[], Sequence[str]],
    run_status: str,
) -> str:
    """Return the story of a step that has no row yet, or never got one.

    Args:
        step_id: the step.
        status: where it stands.
        attempts: its tries so far.
        unmet: finds the steps that it takes values of and that have not ended.
        run_status: where its run stands.
    """
    if status is StepStatus.RUNNING:
        return _with_tries(f"{step_id} runs (attempt {attempts[-1].attempt})", attempts)
    if status is StepStatus.READY:
        return _with_tries(f"{step_id} waits for another attempt{_when(attempts)}", attempts, 1)
    if status is StepStatus.CANCELLED:
        did = "was not finished" if attempts else "did not run"
        return _with_tries(f"{step_id} {did}: the run ended as {run_status} first", attempts, 1)
    missing = unmet()
    if status is StepStatus.PENDING and missing:
        more = f" and {len(missing) - _UNMET} more" if len(missing) > _UNMET else ""
        return f"{step_id} waits for {', '.join(missing[:_UNMET])}{more}"
    if status is StepStatus.PENDING:
        return f"{step_id} has not begun: its run is {run_status}"
    return f"{step_id} is {status}"


def of_attempt(attempt: AttemptRecord) -> str:
    """Return how one try went, in a line."""
    again = f"generation {attempt.generation}, " if attempt.generation > 1 else ""
    name = f"{again}attempt {attempt.attempt}"
    if attempt.cause is None:
        return f"{name} runs"
    ran = how_long(attempt)
    took = f" after {words.duration(ran.total_seconds())}" if ran is not None else ""
    what = f": {_error(attempt.error)}" if attempt.error is not None else ""
    return f"{name} {HOW_ENDED[attempt.cause]}{took}{what}"


def _count(attempts: Sequence[AttemptRecord], row: StepRecord) -> str:
    own = [attempt for attempt in attempts if attempt.generation == row.generation]
    return f"{len(own)} attempts" if len(own) > 1 else f"attempt {row.attempt}"


def _with_tries(first: str, attempts: Sequence[AttemptRecord], least: int = 2) -> str:
    if len(attempts) < least:
        return first
    left_out = len(attempts) - _TOLD
    lines = [f"  {of_attempt(attempt)}" for attempt in attempts[-_TOLD:]]
    if left_out > 0:
        lines.insert(0, f"  ({words.count_of(left_out, 'attempt')} before these)")
    return "\n".join([first, *lines])


def _when(attempts: Sequence[AttemptRecord]) -> str:
    when = attempts[-1].not_before if attempts else None
    return f", not before {when:%H:%M:%S} UTC" if when is not None else ""


def _error(error: ErrorRecord) -> str:
    said = words.failure(error.type, error.message, error.step_id)
    return words.printable(words.one_line(said, 500))
