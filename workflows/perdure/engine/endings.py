"""A step that has ended: its row, and who may move on because of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perdure.engine.matching import match_name
from perdure.engine.state import RunState, StepState
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StepId, StepRecord


def row_of(
    run: RunState, step: StepState, status: StepStatus, now: datetime, **facts: Any
) -> StepRecord:
    """Return the row by which a step ends: which step it is, and ``facts`` about how it ended."""
    facts.setdefault("attempt", 0)
    facts.setdefault("code", step.code)
    return StepRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=step.generation,
        status=status,
        name=match_name(step.plan),
        own=step.plan.own,
        fingerprint=run.fingerprints[step.id],
        finished_at=now,
        reason=step.reason,
        **facts,
    )


def count_ended(run: RunState, step: StepState) -> list[StepState]:
    """Count a step that will not run any more; return the consumers that now miss nothing."""
    run.unfinished -= 1
    run.arrive(step)
    for dep in step.deps:
        run.steps[dep].open_consumers -= 1
    freed = []
    for consumer in step.consumers:
        if consumer.status is StepStatus.PENDING:
            consumer.missing -= 1
            if not consumer.missing:
                freed.append(consumer)
    return freed
