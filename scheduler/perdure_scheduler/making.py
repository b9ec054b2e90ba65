"""The making of run rows from templates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure_scheduler.template import RunTemplate
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunRecord, StoredValue
from perdure_storage.values import inputs_digest


def run_of(
    template: RunTemplate,
    run_id: RunId,
    now: datetime,
    inputs: Mapping[str, StoredValue],
    *,
    schedule: str | None = None,
    trigger: str | None = None,
    by_hand: bool = False,
    metadata: Mapping[str, Any] = {},
) -> RunRecord:
    """Return a run as it is made at ``now``.

    Args:
        template: what all such runs have.
        run_id: its id.
        now: the time.
        inputs: all of its arguments.
        schedule: whose tick makes it.
        trigger: whose arrival makes it.
        by_hand: whether somebody asked for it.
        metadata: what it has beside that of the template.
    """
    return RunRecord(
        id=run_id,
        workflow=template.workflow,
        status=RunStatus.QUEUED,
        plan_digest=template.plan_digest,
        origin=template.origin,
        inputs=dict(inputs),
        inputs_digest=inputs_digest(inputs),
        policy=template.policy,
        tags=template.tags,
        metadata={**template.metadata, **metadata},
        queue=template.queue,
        priority=template.priority,
        limit_key=template.limit_key,
        deadline=None if template.deadline is None else now + template.deadline,
        created_at=now,
        schedule=schedule,
        trigger=trigger,
        by_hand=by_hand,
    )
