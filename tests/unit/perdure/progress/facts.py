"""Facts of a run, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from tests.unit.perdure.engine.bench import plan_of

from perdure.plan import Plan
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    RunCommit,
    RunEnd,
    RunId,
    StepId,
    StepRecord,
    WaitRecord,
)

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
RUN = RunId("r")
NO_ROWS = ErrorRecord(type="builtins.ValueError", message="no rows")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def wide_plan(count: int) -> Plan:
    """``count`` calls of one task, named f, f#2, ..."""
    plan = plan_of({f"f#{number}": [] for number in range(count)})
    steps = tuple(msgspec.structs.replace(step, name="f") for step in plan.steps)
    return msgspec.structs.replace(plan, steps=steps)


def started(step: str, when: float = 0.0, attempt: int = 1) -> AttemptRecord:
    return tried(step, None, attempt=attempt, started_at=at(when), finished_at=None)


def tried(step: str, cause: Cause | None, *, attempt: int = 1, **more: Any) -> AttemptRecord:
    fields = {
        "run_id": RUN,
        "step_id": StepId(step),
        "generation": 1,
        "attempt": attempt,
        "cause": cause,
        "started_at": START,
        "finished_at": at(1),
        **more,
    }
    return AttemptRecord(**fields)


def done(step: str, when: float = 1.0, **more: Any) -> StepRecord:
    fields = {
        "run_id": RUN,
        "step_id": StepId(step),
        "generation": 1,
        "status": StepStatus.SUCCEEDED,
        "name": step.partition("#")[0],
        "started_at": START,
        "finished_at": at(when),
        **more,
    }
    return StepRecord(**fields)


def failed(step: str, **more: Any) -> StepRecord:
    return done(step, **{"status": StepStatus.FAILED, "error": NO_ROWS, **more})


def waits(step: str, kind: str = "signal", **more: Any) -> WaitRecord:
    fields = {"run_id": RUN, "step_id": StepId(step), "generation": 1, "kind": kind, **more}
    return WaitRecord(**fields)


def commit(*rows: StepRecord | AttemptRecord | WaitRecord, **more: Any) -> RunCommit:
    return RunCommit(
        run_id=RUN,
        owner="me",
        epoch=1,
        steps=tuple(row for row in rows if isinstance(row, StepRecord)),
        attempts=tuple(row for row in rows if isinstance(row, AttemptRecord)),
        waits=tuple(row for row in rows if isinstance(row, WaitRecord)),
        **more,
    )


def end(status: RunStatus) -> RunCommit:
    return commit(end=RunEnd(status=status))
