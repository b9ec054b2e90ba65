"""Runs that are made by themselves, but for what each of them adds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from perdure_scheduler.moments import Placeholder
from perdure_storage.records import Digest, RunPolicy, StoredValue


class RunTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a schedule or a trigger, but for what a tick or an arrival adds.

    Attributes:
        workflow: its name.
        origin: entry point that makes the plan, where ``plan_digest`` names none.
        plan_digest: the plan of all runs; None: who claims a run builds it, of today's code.
        inputs: arguments by parameter name; of a run without a plan only those that are given.
        placeholders: arguments that each tick fills, by parameter name.
        deadline: how long a run may take from when it was made.
    """

    workflow: str
    origin: str | None
    plan_digest: Digest | None = None
    inputs: dict[str, StoredValue] = {}
    placeholders: dict[str, Placeholder] = {}
    policy: RunPolicy = RunPolicy()
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    queue: str | None = None
    priority: int = 0
    limit_key: str = ""
    deadline: timedelta | None = None

    @property
    def code(self) -> str:
        """Return which code runs, as far as that is known when the run is made."""
        return self.plan_digest or self.origin or ""
