"""A store, in memory if nothing else is said, with a clock by hand, and who works on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import Condition, Listen
from perdure_scheduler.declaration import declared
from perdure_scheduler.definition import Definition
from perdure_scheduler.dispatcher import Dispatcher
from perdure_scheduler.facts import path_of
from perdure_scheduler.hearing import Hearing
from perdure_scheduler.intake import Intake, Receipt
from perdure_scheduler.making import run_of
from perdure_scheduler.registry import Registry
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_registry import TriggerRegistry
from perdure_storage.clock import ManualClock
from perdure_storage.codecs import Codecs
from perdure_storage.contract_samples import an_owner, built, by
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.protocols import RunStore
from perdure_storage.records import MessageRecord, RunEnd, RunId, RunQuery
from perdure_storage.schedule_records import ScheduleRecord, TickQuery, TickRecord
from perdure_storage.trigger_records import ArrivalQuery, ArrivalRecord, TriggerRecord
from perdure_storage.values import Values

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NO_BLOBS: Any = None
"""All values here are small."""


class World:
    """One store, and who works on it."""

    def __init__(
        self,
        start: datetime = NOON,
        opened: Callable[[ManualClock], RunStore] = MemoryRunStore,
    ) -> None:
        self.clock = ManualClock(start)
        self.store = opened(self.clock)
        self.values = Values(Codecs(), NO_BLOBS)
        self.registry = Registry(self.store.schedules, self.values, self.clock)
        self.intake = Intake(self.store.triggers, self.values, self.clock)
        self.triggers = TriggerRegistry(self.store, self.values, self.clock)
        self.hearing = Hearing(self.store, self.values, self.clock)
        self.dispatcher = self.another_dispatcher()

    def another_dispatcher(self) -> Dispatcher:
        return Dispatcher(self.store, self.values, self.clock)

    def at(self, when: datetime) -> None:
        """Let it be that time, and dispatch until nothing is due."""
        self.clock.jump((when - self.clock.now()).total_seconds())
        while self.dispatcher.dispatch().landed:
            pass

    @property
    def runs(self) -> list[str]:
        """The ids of all runs, the oldest first."""
        return [run.id for run in self.store.list_runs(RunQuery(limit=100_000))][::-1]

    def schedule(self, name: str = "h") -> ScheduleRecord:
        return self.store.schedules.get_schedule(name)

    def ticks(self, name: str = "h") -> list[TickRecord]:
        return self.store.schedules.list_ticks(TickQuery(schedule=name, limit=100_000))[::-1]

    def told(self, name: str = "h") -> list[str]:
        """Return the ledger in short: time, decision and reason for programs."""
        return [
            f"{tick.at:%H:%M} {tick.decision}: {tick.why}"
            + (f" x{tick.count}" if tick.count > 1 else "")
            for tick in self.ticks(name)
        ]

    # --- triggers -----------------------------------------------------------------------------
    def bring(self, name: str, *keys: str, condition: str = "", **facts: Any) -> list[Receipt]:
        """Let something arrive for a trigger, with these facts."""
        arrivals = [Arrival(key=key, facts=facts) for key in keys]
        return self.intake.receive(name, arrivals, condition=condition)

    def emit(
        self, name: str, payload: Any = None, *, sender: RunId | None = None, **match: Any
    ) -> None:
        """Let an event be sent, by a step of the run ``sender`` or by anybody."""
        now, value = self.clock.now(), self.values.store(payload)
        self.store.send(MessageRecord(name=name, value=value, match=match, at=now, sender=sender))

    def trigger(self, name: str = "t") -> TriggerRecord:
        return self.store.triggers.get_trigger(name)

    def arrivals(self, name: str = "t") -> list[ArrivalRecord]:
        """Return what arrived for a trigger, the first first."""
        query = ArrivalQuery(trigger=name, oldest_first=True, limit=100_000)
        return self.store.triggers.list_arrivals(query)

    def became(self, name: str = "t") -> dict[str, str]:
        """Return what became of each arrival, by key."""
        return {each.key: each.decision for each in self.arrivals(name)}

    def inputs(self, run_id: str | None) -> dict[str, Any]:
        """Return the arguments of a run."""
        run = self.store.get_run(RunId(str(run_id)))
        return {name: self.values.load(value) for name, value in run.inputs.items()}

    # --- runs ---------------------------------------------------------------------------------
    @property
    def live(self) -> list[RunId]:
        query = RunQuery(status=tuple(RUN_LIVE), limit=1000)
        return [run.id for run in self.store.list_runs(query)]

    def bring_run(self, workflow: str, run_id: str, **tags: str) -> None:
        """Let somebody make a run."""
        run = template(workflow=workflow, tags=tags)
        self.store.create_run(run_of(run, RunId(run_id), self.clock.now(), {}), None)

    def open_again(self, run_id: str) -> None:
        """Let somebody resume a run that has ended."""
        self.store.reset_run(RunId(run_id))

    def delete(self, run_id: str) -> None:
        """Let a run be deleted, and its id be free again, as gc has it after a while."""
        self.store.delete_run(RunId(run_id))
        self.store.free_id(RunId(run_id))

    def end(self, run_id: str, status: RunStatus = RunStatus.SUCCEEDED) -> None:
        """Let a run end, as who drives it would."""
        run = self.store.claim_run(RunId(run_id), an_owner(), built=built())
        assert run is not None
        self.store.commit([by(run, end=RunEnd(status=status))])


def template(**more: Any) -> RunTemplate:
    return RunTemplate(**{"workflow": "iris", "origin": "flows:iris", **more})


def definition(name: str = "h", run: RunTemplate | None = None, **options: Any) -> Definition:
    """Return an hourly schedule, if nothing else is said."""
    options = {"cron": "0 * * * *", **options} if "interval" not in options else options
    return Definition(schedule=declared(name, **options), run=run or template())


def trigger(name: str = "t", on: Condition | None = None, **more: Any) -> Trigger:
    """Return a trigger of a source, if nothing else is said; facts as inputs are made paths."""
    more = {"on": on or Listen(source="mine:rows"), "run": template(), **more}
    if "inputs" in more:
        more["inputs"] = {name: path_of(fact) for name, fact in more["inputs"].items()}
    return Trigger(name=name, **more)
