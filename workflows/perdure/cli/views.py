"""Runs and steps as the reading verbs show them: plain data, the same for tables and ``--json``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Run, Step
    from perdure_storage.records import AttemptRecord, ErrorRecord


Preview = dict[str, Any]
"""What a value looked like when it was stored: ``type``, ``repr``, and what else makes sense."""


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it was recorded; nothing is unpickled to show it."""

    type: str
    message: str
    cause: str = ""
    step: str | None = None
    traceback: str = ""


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try of a step."""

    step: str
    generation: int
    attempt: int
    cause: str | None = None
    worker: str = ""
    started_at: datetime | None = None
    duration_s: float | None = None
    peak_memory_bytes: int | None = None
    error: ErrorView | None = None


class StepView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step; ``preview`` is what its value looked like when it was committed."""

    id: str
    status: str
    attempts: int = 0
    duration_s: float | None = None
    preview: Preview | None = None
    reason: str = ""
    error: ErrorView | None = None


class RunView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run; ``steps``, ``done`` and ``total`` come with ``show``, ``result`` with ``run``."""

    id: str
    workflow: str
    status: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    origin: str | None = None
    inputs: dict[str, Preview | None] = {}
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    parent: str | None = None
    forked_from: str | None = None
    done: int | None = None
    total: int | None = None
    error: ErrorView | None = None
    result: Any = None
    steps: list[StepView] = []


def view_run(run: Run, *, steps: bool = False) -> RunView:
    """Return a run as its store has it now, with its steps if they are wanted."""
    from perdure.runs import status_of

    record = run.record
    views = [view_step(step) for step in run.steps()] if steps else []
    return RunView(
        id=record.id,
        workflow=record.workflow,
        status=str(status_of(record)),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        origin=record.origin,
        inputs={name: _preview(value.preview) for name, value in record.inputs.items()},
        tags=record.tags,
        metadata=record.metadata,
        parent=record.parent,
        forked_from=record.forked_from,
        done=sum(step.status in _DONE for step in views) if steps else None,
        total=len(views) if steps else None,
        error=_error(record.error),
        steps=views,
    )


_DONE = ("SUCCEEDED", "SKIPPED")


def view_step(step: Step) -> StepView:
    """Return a step as it stood when it was asked for."""
    return StepView(
        id=step.id,
        status=str(step.status),
        attempts=len(step.attempts),
        duration_s=_seconds(step.duration),
        preview=step.preview,
        reason=step.row.reason if step.row is not None else "",
        error=_error(step.error),
    )


def view_attempt(attempt: AttemptRecord) -> AttemptView:
    """Return one try of a step."""
    took = None
    if attempt.started_at is not None and attempt.finished_at is not None:
        took = attempt.finished_at - attempt.started_at
    return AttemptView(
        step=attempt.step_id,
        generation=attempt.generation,
        attempt=attempt.attempt,
        cause=None if attempt.cause is None else attempt.cause.value,
        worker=attempt.worker,
        started_at=attempt.started_at,
        duration_s=_seconds(took),
        peak_memory_bytes=attempt.peak_memory_bytes,
        error=_error(attempt.error),
    )


def to_json(view: Any) -> str:
    """Return a view, or a list of views, as JSON that people can read too."""
    return msgspec.json.format(msgspec.json.encode(view), indent=2).decode()


def value_to_json(value: Any) -> Any:
    """Return what JSON can say of a result: itself where it is JSON, else its ``repr``."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return readable(repr(value))


def _error(error: ErrorRecord | None) -> ErrorView | None:
    if error is None:
        return None
    return ErrorView(
        type=error.type,
        message=error.message,
        cause=error.cause.value,
        step=error.step_id,
        traceback=error.traceback,
    )


def _preview(text: str) -> Preview | None:
    return msgspec.json.decode(text, type=Preview) if text else None


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
