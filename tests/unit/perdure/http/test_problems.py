"""How errors look over HTTP: the status fits the cause, the words are those of the command line."""

from __future__ import annotations

import pytest

from perdure.errors import DefinitionError, NotSerializable, RunConflict, RunNotFound
from perdure.http.problems import problem_of
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.intake import TriggerBusy, TriggerChanged
from perdure_storage.errors import (
    InternalError,
    StoreError,
    StoreUnavailable,
    TriggerNotFound,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RunNotFound("x", "sqlite:///s"), 404),
        (TriggerNotFound("x", "sqlite:///s"), 404),
        (RunConflict("other inputs"), 409),
        (DefinitionError("cycle"), 422),
        (NotSerializable("a lock"), 422),
        (TriggerError("no fact"), 422),
        (StoreUnavailable("locked"), 503),
        (TriggerBusy("others were first"), 503),
        (TriggerChanged("another one now"), 503),
        (StoreError("no store"), 500),
        (InternalError("oops"), 500),
        (ZeroDivisionError("oops"), 500),
    ],
)
def test_status_fits_the_cause(error: Exception, status: int) -> None:
    problem = problem_of(error)

    assert problem.status == status
    assert problem.type == type(error).__name__
    assert str(error) in problem.detail


def test_next_command_leads_to_the_store_that_was_meant() -> None:
    problem = problem_of(RunNotFound("x", "sqlite:///s"), store="/there/s.db")

    assert problem.next == "perdure ls --store /there/s.db"
