from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import story
from perdure.progress.causes import of_wait
from perdure_storage.contract_samples import a_wait
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import AttemptRecord, Cause, ErrorRecord, RunId, StepId, StepRecord

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
NO_ROWS = ErrorRecord(type="builtins.ValueError", message="no rows")


def attempt(number: int, cause: Cause | None, **more: Any) -> AttemptRecord:
    fields = {
        "run_id": RunId("r"),
        "step_id": StepId("fit"),
        "generation": 1,
        "attempt": number,
        "cause": cause,
        "started_at": START,
        "finished_at": START + timedelta(seconds=2),
        **more,
    }
    return AttemptRecord(**fields)


def row(**more: Any) -> StepRecord:
    fields = {
        "run_id": RunId("r"),
        "step_id": StepId("fit"),
        "generation": 1,
        "status": StepStatus.SUCCEEDED,
        **more,
    }
    return StepRecord(**fields)


def unended(status: StepStatus, *tries: AttemptRecord, unmet: tuple[str, ...] = ()) -> str:
    return story.of_unended(
        "fit",
        status,
        tries,
        unmet=lambda: unmet,
        left=lambda: "the run ended as FAILED first",
        run_status="FAILED",
    )


def test_step_that_succeeded_at_once_is_told_in_a_line() -> None:
    told = story.of_ended(row(), [attempt(1, Cause.SUCCEEDED)])

    assert told == "fit ran (attempt 1): it had not run before"


def test_step_that_was_retried_tells_each_attempt_and_its_cause() -> None:
    tries = [
        attempt(1, Cause.USER_ERROR, error=NO_ROWS),
        attempt(2, Cause.WORKER_LOST),
        attempt(3, Cause.SUCCEEDED),
    ]

    assert story.of_ended(row(attempt=3), tries).splitlines() == [
        "fit ran (3 attempts): it had not run before",
        "  attempt 1 failed after 2.0 s: ValueError: no rows",
        "  attempt 2 lost its worker after 2.0 s",
        "  attempt 3 succeeded after 2.0 s",
    ]


def test_rebuilt_step_tells_the_attempts_of_both_generations() -> None:
    tries = [attempt(1, Cause.SUCCEEDED), attempt(1, Cause.SUCCEEDED, generation=2)]

    told = story.of_ended(row(generation=2, reason="rebuilt: its value is gone"), tries)

    assert told.splitlines() == [
        "fit ran (attempt 1): rebuilt: its value is gone",
        "  attempt 1 succeeded after 2.0 s",
        "  generation 2, attempt 1 succeeded after 2.0 s",
    ]


def test_failed_step_tells_its_error() -> None:
    failed = row(status=StepStatus.FAILED, error=NO_ROWS)

    assert story.of_ended(failed, [attempt(1, Cause.USER_ERROR, error=NO_ROWS)]) == (
        "fit ran (attempt 1): it had not run before; it failed: ValueError: no rows"
    )


def test_step_that_was_taken_over_tells_from_where() -> None:
    assert story.of_ended(row(attempt=0, reason="taken over from one"), []) == (
        "fit was taken over from one"
    )


def test_running_step_tells_the_attempts_before_this_one() -> None:
    tries = [attempt(1, Cause.TIMEOUT), attempt(2, None)]

    assert unended(StepStatus.RUNNING, *tries).splitlines() == [
        "fit runs (attempt 2)",
        "  attempt 1 timed out after 2.0 s",
        "  attempt 2 runs",
    ]


def test_step_that_waits_for_its_next_attempt_tells_when_that_may_start() -> None:
    told = unended(StepStatus.READY, attempt(1, Cause.USER_ERROR, not_before=START))

    assert told.splitlines()[0] == "fit waits for another attempt, not before 12:00:00 UTC"
    assert "attempt 1 failed" in told


@pytest.mark.parametrize(
    ("tries", "said"),
    [((), "fit did not run"), ((attempt(1, Cause.ABANDONED),), "fit was not finished")],
)
def test_step_of_a_run_that_ended_first_tells_whether_it_had_begun(
    tries: tuple[AttemptRecord, ...], said: str
) -> None:
    told = unended(StepStatus.CANCELLED, *tries)

    assert told.startswith(f"{said}: the run ended as FAILED first")


def test_pending_step_names_what_it_waits_for() -> None:
    assert unended(StepStatus.PENDING, unmet=("a", "b")) == "fit waits for a, b"
    assert unended(StepStatus.PENDING, unmet=tuple("abcdefg")).endswith("a, b, c, d, e and 2 more")


def test_story_of_very_many_attempts_is_cut_and_says_so() -> None:
    tries = [attempt(number, Cause.WORKER_LOST) for number in range(1, 51)]

    lines = story.of_ended(row(attempt=51), [*tries, attempt(51, Cause.SUCCEEDED)]).splitlines()

    assert lines[0].startswith("fit ran (51 attempts)")
    assert lines[1] == "  (31 attempts before these)"
    assert lines[-1] == "  attempt 51 succeeded after 2.0 s"
    assert len(lines) == 22


def test_message_of_several_lines_takes_one() -> None:
    error = ErrorRecord(type="m.E", message="first\nsecond\x1b[31m")

    told = story.of_attempt(attempt(1, Cause.USER_ERROR, error=error))

    assert told.endswith("failed after 2.0 s: m.E: first second")


def test_attempt_that_was_cut_off_is_told_without_a_time_that_nobody_knows() -> None:
    assert story.of_attempt(attempt(1, Cause.ABANDONED)) == "attempt 1 was cut off"


@pytest.mark.parametrize(("seconds", "is_over"), [(-1, False), (0, True)])
def test_wait_whose_time_is_over_says_so_and_names_no_command(seconds: int, is_over: bool) -> None:
    wait = a_wait("r", "fit", deadline=START)

    said = of_wait(wait, lambda name: f"perdure signal r {name}", now=START + timedelta(0, seconds))

    assert ("which is over" in said) is is_over
    assert ("perdure signal" in said) is not is_over
