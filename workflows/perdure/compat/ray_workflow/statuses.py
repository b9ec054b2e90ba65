"""``WorkflowStatus``: how a run stands, in the words of ``ray.workflow``."""

from __future__ import annotations

from enum import StrEnum

from perdure.client import Perdure
from perdure.compat.ray_workflow import limits
from perdure.engine.ownership import is_driven
from perdure.hosts import serving_hosts
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunRecord


class WorkflowStatus(StrEnum):
    """Text too: ``get_status(x) == "RUNNING"``."""

    NONE = "NONE"
    RUNNING = "RUNNING"
    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    RESUMABLE = "RESUMABLE"
    CANCELED = "CANCELED"


ACTIVE = (WorkflowStatus.RUNNING, WorkflowStatus.PENDING)

_ENDED = {
    RunStatus.SUCCEEDED: WorkflowStatus.SUCCESSFUL,
    RunStatus.FAILED: WorkflowStatus.FAILED,
    RunStatus.CANCELLED: WorkflowStatus.CANCELED,
    RunStatus.PAUSED: WorkflowStatus.RESUMABLE,
}


def status_of(client: Perdure, record: RunRecord) -> WorkflowStatus:
    """Return the status of a run; RESUMABLE if it is not over and nobody will drive it."""
    if record.status in _ENDED:
        return _ENDED[record.status]
    if not _is_held(client, record):
        # It may have ended, or have been taken on, since the row was read.
        now = client.runtime.store.find_run(record.id)
        return WorkflowStatus.RESUMABLE if now in (record, None) else status_of(client, now)
    if record.status is not RunStatus.QUEUED:
        return WorkflowStatus.RUNNING
    begins = record.queue == limits.QUEUE and limits.has_place(client)
    return WorkflowStatus.RUNNING if begins else WorkflowStatus.PENDING


def _is_held(client: Perdure, record: RunRecord) -> bool:
    if client.drives(record.id) or is_driven(record):
        return True
    return record.owner is None and bool(serving_hosts(client.runtime.store))
