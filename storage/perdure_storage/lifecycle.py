"""Statuses of runs and steps, and the only transitions that exist. Nothing else lives here.

Run                                         Step
---                                         ----
QUEUED -> RUNNING <-> WAITING               PENDING -> READY -> RUNNING -> SUCCEEDED | FAILED
live -> SUCCEEDED | FAILED | CANCELLED      RUNNING -> READY (retry, lost) | WAITING
live <-> PAUSED                             SUCCEEDED -> LOST (a new generation follows)
FAILED | CANCELLED -> QUEUED (resume)       terminal -> PENDING of a new generation
"""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands. ``INTERRUPTED`` is derived, not stored: RUNNING without a live owner."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    INTERRUPTED = "INTERRUPTED"


class StepStatus(StrEnum):
    """Where one generation of a step stands."""

    PENDING = "PENDING"
    READY = "READY"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


_R = RunStatus
_S = StepStatus

RUN_TERMINAL = frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED})
RUN_LIVE = frozenset({_R.QUEUED, _R.RUNNING, _R.WAITING, _R.PAUSED})
STEP_TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED, _S.LOST})

RUN_TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.PAUSED, _R.CANCELLED, _R.FAILED}),
    _R.RUNNING: frozenset(
        {_R.QUEUED, _R.WAITING, _R.PAUSED, _R.SUCCEEDED, _R.FAILED, _R.CANCELLED}
    ),
    _R.WAITING: frozenset({_R.RUNNING, _R.PAUSED, _R.CANCELLED, _R.FAILED}),
    _R.PAUSED: frozenset({_R.QUEUED, _R.RUNNING, _R.WAITING, _R.CANCELLED, _R.FAILED}),
    # SUCCEEDED opens again only when a value of the finished run was lost and is to be rebuilt.
    _R.SUCCEEDED: frozenset({_R.QUEUED}),
    _R.FAILED: frozenset({_R.QUEUED}),
    _R.CANCELLED: frozenset({_R.QUEUED}),
    _R.INTERRUPTED: frozenset(),
}

STEP_TRANSITIONS: dict[StepStatus, frozenset[StepStatus]] = {
    _S.PENDING: frozenset({_S.READY, _S.SKIPPED, _S.CANCELLED, _S.SUCCEEDED}),
    _S.READY: frozenset({_S.RUNNING, _S.PENDING, _S.SKIPPED, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset(
        {_S.SUCCEEDED, _S.FAILED, _S.READY, _S.PENDING, _S.WAITING, _S.CANCELLED}
    ),
    _S.WAITING: frozenset({_S.READY, _S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset({_S.LOST, _S.PENDING}),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.SKIPPED: frozenset({_S.PENDING}),
    _S.CANCELLED: frozenset({_S.PENDING}),
    _S.LOST: frozenset({_S.PENDING}),
}


def is_terminal(status: RunStatus | StepStatus) -> bool:
    """Say whether nothing more happens in this status without somebody asking."""
    return status in RUN_TERMINAL if isinstance(status, RunStatus) else status in STEP_TERMINAL


def may_become(old: RunStatus | StepStatus, new: RunStatus | StepStatus) -> bool:
    """Say whether ``old -> new`` is a transition of the tables."""
    if isinstance(old, RunStatus):
        return new in RUN_TRANSITIONS[old]
    return new in STEP_TRANSITIONS[old]
