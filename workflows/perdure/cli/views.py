"""Runs and steps as the reading verbs show them: plain data, the same for tables and ``--json``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it was recorded; nothing is unpickled to show it."""

    type: str
    message: str
    cause: str = ""
    step: str | None = None
    traceback: str = ""


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try of a step."""

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
    preview: Any = None
    reason: str = ""
    error: ErrorView | None = None


class RunView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run; ``steps`` is filled by ``show`` only."""

    id: str
    workflow: str
    status: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    origin: str | None = None
    inputs: dict[str, Any] = {}
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    parent: str | None = None
    forked_from: str | None = None
    done: int | None = None
    total: int | None = None
    error: ErrorView | None = None
    steps: list[StepView] = []
