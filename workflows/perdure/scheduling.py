"""Schedules in a store: how a declared one gets there, and what is held of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perdure.compile import compile_dag, plan_record
from perdure.errors import DefinitionError
from perdure.resources import parse_duration
from perdure.runtime import Runtime
from perdure.schedules import Schedule
from perdure.submission import Wishes, refuse_unenforceable, store_inputs
from perdure.target import origin_of
from perdure_scheduler.changes import state_of
from perdure_scheduler.decide import standing
from perdure_scheduler.definition import Definition, RunTemplate
from perdure_scheduler.moments import Moment, Placeholder
from perdure_scheduler.registry import Registered, Registry
from perdure_scheduler.schedule import NominalTime
from perdure_storage.records import Digest, Place, PlanRecord, StoredValue
from perdure_storage.schedule_records import ScheduleRecord, TickQuery, TickRecord


@dataclass(frozen=True, slots=True)
class Stored:
    """A schedule on its way to the store.

    Attributes:
        definition: what its row says.
        plan: of its runs, where it is pinned.
        blobs: which its inputs refer to.
    """

    definition: Definition
    plan: PlanRecord | None
    blobs: tuple[Digest, ...]


def stored(runtime: Runtime, schedule: Schedule) -> Stored:
    """Return a schedule as the store keeps it; its inputs, and its graph if pinned, are put.

    Raises:
        DefinitionError: an option of its workflow is of no use here, or its code cannot be found
            again.
    """
    wishes = Wishes.from_options(
        {**schedule.workflow.run_options, "inputs": {}}, find_last=lambda workflow: None
    )
    _refuse_options_of_one_run(schedule, wishes)
    plan, inputs = _graph_and_inputs(runtime, schedule, wishes)
    template = RunTemplate(
        workflow=schedule.workflow.name,
        origin=_origin(schedule),
        plan_digest=plan.digest if plan is not None else None,
        inputs=inputs,
        placeholders={
            name: Placeholder(moment=value, form=schedule.form_of(name))
            for name, value in schedule.inputs.items()
            if isinstance(value, Moment)
        },
        policy=wishes.policy(),
        tags=dict(wishes.tags),
        metadata=dict(wishes.metadata),
        queue=wishes.queue,
        priority=wishes.priority,
        deadline=_deadline(schedule, wishes),
    )
    blobs = tuple(value.integrity for value in inputs.values() if value.place is Place.BLOB)
    return Stored(Definition(schedule=schedule.times, run=template), plan, blobs)


def _refuse_options_of_one_run(schedule: Schedule, wishes: Wishes) -> None:
    for option in ("run_id", "reuse"):
        if getattr(wishes, option) is not None:
            raise DefinitionError(
                f"schedule {schedule.name!r}: its workflow has the option {option}=, but each "
                "tick makes a run of its own: leave it out"
            )


def _graph_and_inputs(
    runtime: Runtime, schedule: Schedule, wishes: Wishes
) -> tuple[PlanRecord | None, dict[str, StoredValue]]:
    """Return the plan of a pinned schedule, and the inputs that are known now."""
    if schedule.code == "latest":
        return None, store_inputs(_without_moments(schedule.inputs), runtime.values)
    schema = schedule.workflow.schema
    values = schema.complete(schedule.inputs)
    static = {field.name for field in schema.fields if field.static}
    dag = schedule.workflow.dag(**{name: values[name] for name in static})
    plan = compile_dag(dag, runtime.values, origin=origin_of(schedule.workflow))
    refuse_unenforceable(plan, runtime.settings, wishes.executor)
    known = {name: v for name, v in _without_moments(values).items() if name not in static}
    inputs = store_inputs(known, runtime.values)
    return plan_record(plan, inputs), inputs


def _without_moments(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not isinstance(value, Moment)}


def _origin(schedule: Schedule) -> str | None:
    origin = origin_of(schedule.workflow)
    if origin is None and schedule.code == "latest":
        raise DefinitionError(
            f"schedule {schedule.name!r}: {schedule.workflow.name} is in no file that can be "
            "imported again, so there is no latest code of it: write it in a file, or say "
            "code='pinned'"
        )
    return origin


def _deadline(schedule: Schedule, wishes: Wishes) -> timedelta | None:
    deadline = wishes.deadline
    if isinstance(deadline, datetime):
        raise DefinitionError(
            f"schedule {schedule.name!r}: deadline= of its workflow is one instant for all runs: "
            "write a duration, such as '2h'"
        )
    if deadline is None:
        return None
    return timedelta(seconds=parse_duration(deadline, what="deadline"))


def register(runtime: Runtime, schedule: Schedule, *, module: str | None = None) -> Registered:
    """Make a schedule in the store, or let the one of its name be as this one."""
    ready = stored(runtime, schedule)
    return registry_of(runtime).register(
        ready.definition, module=module, plan=ready.plan, blobs=ready.blobs
    )


class ScheduleHandle:
    """A schedule in a store: how it stands, what became of its ticks, and verbs."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._schedules = runtime.store.schedules
        self.name = name

    def __repr__(self) -> str:
        return f"<schedule {self.name}: {self.standing}>"

    @property
    def record(self) -> ScheduleRecord:
        """Return its row. Raises ScheduleNotFound."""
        return self._schedules.get_schedule(self.name)

    @property
    def definition(self) -> Definition:
        """Return when it is due, and what runs then."""
        return Definition.from_json(self.record.definition)

    @property
    def standing(self) -> str:
        """Say what comes next, or why nothing does."""
        record = self.record
        schedule = Definition.from_json(record.definition).schedule
        return standing(schedule, state_of(record), self._runtime.clock.now())

    def next(self, count: int = 5) -> tuple[NominalTime, ...]:
        """Return the next times, as its zone shows them and in UTC."""
        record = self.record
        schedule = Definition.from_json(record.definition).schedule
        since = max(state_of(record).decided_through, self._runtime.clock.now())
        return schedule.upcoming(since, count)

    def ticks(self, limit: int = 100) -> list[TickRecord]:
        """Return what became of its times, newest first, each with the reason."""
        return self._schedules.list_ticks(TickQuery(schedule=self.name, limit=limit))

    def pause(self, reason: str = "by hand") -> None:
        """Let no tick fire until it is resumed; runs go on."""
        self._registry.pause(self.name, reason)

    def resume(self) -> None:
        """Let ticks fire again, from now on: what was due meanwhile is skipped."""
        self._registry.resume(self.name)

    def remove(self) -> bool:
        """Remove it with its ticks; its runs stay. Returns whether it was there."""
        return self._schedules.remove(self.name)

    @property
    def _registry(self) -> Registry:
        return registry_of(self._runtime)


def registry_of(runtime: Runtime) -> Registry:
    """Return the verbs that change schedules of a store."""
    return Registry(runtime.store.schedules, runtime.values, runtime.clock)


def schedules_in(module: Any) -> list[Schedule]:
    """Return the schedules that a module holds in its globals, by name.

    Raises:
        DefinitionError: two of them have one name.
    """
    found: dict[str, Schedule] = {}
    for value in vars(module).values():
        if isinstance(value, Schedule) and found.setdefault(value.name, value) is not value:
            raise DefinitionError(
                f"{module.__name__} declares two schedules that are called {value.name!r}"
            )
    return [found[name] for name in sorted(found)]


def register_all(runtime: Runtime, module: Any, name: str) -> dict[str, str]:
    """Register what a module declares and pause what it does not declare any more.

    Returns:
        What became of each schedule, by name.
    """
    declared = schedules_in(module)
    told = {each.name: str(register(runtime, each, module=name)) for each in declared}
    left = registry_of(runtime).pause_left(name, told.keys())
    return told | dict.fromkeys(left, "paused")
