"""Every pair of statuses: what may follow what, and that nothing else may."""

from __future__ import annotations

import itertools

import pytest

from perdure_storage.lifecycle import (
    RUN_LIVE,
    RUN_TERMINAL,
    RUN_TRANSITIONS,
    STEP_TERMINAL,
    STEP_TRANSITIONS,
    is_terminal,
    may_become,
)
from perdure_storage.lifecycle import RunStatus as R
from perdure_storage.lifecycle import StepStatus as S

RUN_PAIRS = {
    (R.QUEUED, R.RUNNING),
    (R.QUEUED, R.PAUSED),
    (R.QUEUED, R.CANCELLED),
    (R.QUEUED, R.FAILED),
    (R.RUNNING, R.QUEUED),
    (R.RUNNING, R.WAITING),
    (R.RUNNING, R.PAUSED),
    (R.RUNNING, R.SUCCEEDED),
    (R.RUNNING, R.FAILED),
    (R.RUNNING, R.CANCELLED),
    (R.WAITING, R.RUNNING),
    (R.WAITING, R.PAUSED),
    (R.WAITING, R.CANCELLED),
    (R.WAITING, R.FAILED),
    (R.PAUSED, R.QUEUED),
    (R.PAUSED, R.RUNNING),
    (R.PAUSED, R.WAITING),
    (R.PAUSED, R.CANCELLED),
    (R.PAUSED, R.FAILED),
    (R.SUCCEEDED, R.QUEUED),
    (R.FAILED, R.QUEUED),
    (R.CANCELLED, R.QUEUED),
}

STEP_PAIRS = {
    (S.PENDING, S.READY),
    (S.PENDING, S.SKIPPED),
    (S.PENDING, S.CANCELLED),
    (S.PENDING, S.SUCCEEDED),
    (S.READY, S.RUNNING),
    (S.READY, S.PENDING),
    (S.READY, S.SKIPPED),
    (S.READY, S.CANCELLED),
    (S.READY, S.FAILED),
    (S.RUNNING, S.SUCCEEDED),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.READY),
    (S.RUNNING, S.PENDING),
    (S.RUNNING, S.WAITING),
    (S.RUNNING, S.CANCELLED),
    (S.WAITING, S.READY),
    (S.WAITING, S.SUCCEEDED),
    (S.WAITING, S.FAILED),
    (S.WAITING, S.SKIPPED),
    (S.WAITING, S.CANCELLED),
    (S.SUCCEEDED, S.LOST),
    (S.SUCCEEDED, S.PENDING),
    (S.FAILED, S.PENDING),
    (S.SKIPPED, S.PENDING),
    (S.CANCELLED, S.PENDING),
    (S.LOST, S.PENDING),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(R, R)))
def test_a_run_becomes_what_the_table_says_and_nothing_else(old: R, new: R) -> None:
    assert may_become(old, new) == ((old, new) in RUN_PAIRS)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(S, S)))
def test_a_step_becomes_what_the_table_says_and_nothing_else(old: S, new: S) -> None:
    assert may_become(old, new) == ((old, new) in STEP_PAIRS)


def test_every_status_has_its_row_in_the_tables() -> None:
    assert set(RUN_TRANSITIONS) == set(R)
    assert set(STEP_TRANSITIONS) == set(S)


@pytest.mark.parametrize("status", list(R))
def test_a_run_is_live_or_over_or_interrupted(status: R) -> None:
    kinds = (status in RUN_LIVE, status in RUN_TERMINAL, status is R.INTERRUPTED)

    assert sum(kinds) == 1
    assert is_terminal(status) == (status in RUN_TERMINAL)


@pytest.mark.parametrize("status", sorted(RUN_TERMINAL))
def test_what_is_over_opens_again_only_by_being_queued(status: R) -> None:
    assert RUN_TRANSITIONS[status] == {R.QUEUED}


@pytest.mark.parametrize("status", sorted(RUN_LIVE))
def test_every_live_run_can_be_cancelled_and_can_fail(status: R) -> None:
    assert {R.CANCELLED, R.FAILED} <= RUN_TRANSITIONS[status]


def test_interrupted_is_never_stored() -> None:
    assert not RUN_TRANSITIONS[R.INTERRUPTED]
    assert all(R.INTERRUPTED not in targets for targets in RUN_TRANSITIONS.values())


@pytest.mark.parametrize("status", sorted(STEP_TERMINAL))
def test_a_step_that_ended_has_a_new_generation_or_is_lost(status: S) -> None:
    assert is_terminal(status)
    assert STEP_TRANSITIONS[status] <= {S.PENDING, S.LOST}
