"""What a schedule's row says: when it is due, and what runs then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.moments import Placeholder
from perdure_scheduler.schedule import Schedule
from perdure_storage.hashing import integrity_digest
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Digest, RunId, RunPolicy, RunRecord, StoredValue
from perdure_storage.values import Values, inputs_digest


class RunTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """The run of a tick, but for what the tick adds.

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
    deadline: timedelta | None = None

    @property
    def code(self) -> str:
        """Return which code runs, as far as that is known when a tick fires."""
        return self.plan_digest or self.origin or ""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule with what it runs."""

    schedule: Schedule
    run: RunTemplate

    def to_json(self) -> str:
        """Return it as JSON, equal for equal definitions."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @staticmethod
    def from_json(text: str) -> Definition:
        """Return what ``to_json`` wrote.

        Raises:
            ScheduleError: it is none, or one of a newer perdure.
        """
        try:
            return msgspec.json.decode(text, type=Definition)
        except msgspec.MsgspecError as error:
            raise ScheduleError(
                f"a stored schedule cannot be read ({error}): was it written by a newer perdure?"
            ) from None

    @property
    def digest(self) -> str:
        """Return a digest by which another definition is told apart."""
        return integrity_digest([self.to_json().encode()])

    def run_of(
        self, run_id: str, at: datetime, now: datetime, values: Values, *, by_hand: bool = False
    ) -> RunRecord:
        """Return a run of a nominal time, as it is made at ``now``."""
        template, nominal = self.run, self.schedule.nominal(at)
        inputs = dict(template.inputs)
        for name, placeholder in template.placeholders.items():
            inputs[name] = values.store(placeholder.value(nominal), name=name)
        return RunRecord(
            id=RunId(run_id),
            workflow=template.workflow,
            status=RunStatus.QUEUED,
            plan_digest=template.plan_digest,
            origin=template.origin,
            inputs=inputs,
            inputs_digest=inputs_digest(inputs),
            policy=template.policy,
            tags=template.tags,
            metadata=template.metadata,
            queue=template.queue,
            priority=template.priority,
            deadline=None if template.deadline is None else now + template.deadline,
            created_at=now,
            schedule=self.schedule.name,
            by_hand=by_hand,
        )
