from __future__ import annotations

import signal

import pytest

from perdure.calls import CallId, StepCall
from perdure.errors import StepTimeout
from perdure.executors.endings import describe_death, ended
from perdure_storage.codecs import Codecs
from perdure_storage.records import Cause

CALL = StepCall(id=CallId("run", "train", 1, 2), function="f", timeout_s=90)


@pytest.mark.parametrize(
    ("status", "out_of_memory", "cause", "text"),
    [
        (3, False, Cause.WORKER_LOST, "status 3: something in it called os._exit()"),
        (0, False, Cause.WORKER_LOST, "status 0"),
        (-signal.SIGSEGV, False, Cause.WORKER_LOST, "segmentation fault"),
        (-signal.SIGKILL, False, Cause.WORKER_LOST, "killed by SIGKILL"),
        (-signal.SIGKILL, True, Cause.OUT_OF_MEMORY, "out of memory"),
        (-signal.SIGSEGV, True, Cause.WORKER_LOST, "segmentation fault"),
        (None, False, Cause.WORKER_LOST, "keeper"),
    ],
)
def test_death_is_described_by_its_status(
    status: int | None, out_of_memory: bool, cause: Cause, text: str
) -> None:
    found, message = describe_death(status, out_of_memory=out_of_memory)

    assert found is cause
    assert text in message


def test_timeout_can_be_raised_again_with_its_limit() -> None:
    outcome = ended(CALL, Cause.TIMEOUT, retryable=False)

    assert outcome.error is not None
    assert outcome.error.pickled is not None
    error = Codecs().unpickle(outcome.error.pickled)
    assert isinstance(error, StepTimeout)
    assert (error.step_id, error.timeout_s) == ("train", 90)
    assert not outcome.retryable


@pytest.mark.parametrize("cause", [Cause.CANCELLED, Cause.ABANDONED, Cause.TIMEOUT])
def test_ended_call_has_the_cause_that_was_given(cause: Cause) -> None:
    outcome = ended(CALL, cause)

    assert outcome.cause is cause
    assert outcome.error is not None
    assert outcome.error.cause is cause
