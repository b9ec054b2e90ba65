"""Schedules as people change them: register, pause, resume, remove.

Each verb reads, decides and writes under the guard of what it read, and begins again if somebody
else was first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import msgspec

from perdure_scheduler import decide as deciding
from perdure_scheduler.changes import change_of, runs_for, state_of
from perdure_scheduler.decide import Outcome, Runs, ScheduleState
from perdure_scheduler.definition import Definition
from perdure_scheduler.registered import NOT_DECLARED, TRIES, Registered
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.records import Digest, PlanRecord
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.schedule_records import (
    ScheduleQuery,
    ScheduleRecord,
    ScheduleRuns,
    TickRecord,
)
from perdure_storage.values import Values

_PAGE = 500
Step = Callable[[Definition, ScheduleState, datetime, Runs], Outcome]
Rewrite = Callable[[Definition], tuple[TickRecord, ...]]


class Registry:
    """The verbs.

    Args:
        schedules: the store.
        values: where inputs go that only a tick knows.
        clock: wall time.
    """

    def __init__(self, schedules: ScheduleStore, values: Values, clock: Clock) -> None:
        self._schedules = schedules
        self._values = values
        self._clock = clock

    def register(
        self,
        definition: Definition,
        *,
        module: str | None = None,
        plan: PlanRecord | None = None,
        blobs: tuple[Digest, ...] = (),
    ) -> Registered:
        """Make a schedule, or let one of the name be as it is declared now.

        Registering again what is there changes nothing: no time moves, none comes twice. Of a
        changed one what was due by now is decided by what it was.

        Args:
            definition: what it is now.
            module: which declares it; None: a person.
            plan: of its runs, where it is pinned.
            blobs: which its inputs refer to.
        """
        for _ in range(TRIES):
            old = self._schedules.find_schedule(definition.schedule.name)
            now = self._clock.now()
            runs = ScheduleRuns() if old is None else self._runs_of(old)
            what, outcome = self._registration(old, definition, module, now, runs_for(runs))
            if outcome is None:
                return what
            record = ScheduleRecord(
                name=definition.schedule.name,
                definition=definition.to_json(),
                digest=definition.digest,
                module=module,
                plan_digest=definition.run.plan_digest,
                blobs=blobs,
                concurrency=definition.schedule.concurrency,
                state="",
                version=old.version if old is not None else 0,
                created_at=old.created_at if old is not None else None,
            )
            by = definition
            if old is not None and what is Registered.CHANGED:
                by = Definition.from_json(old.definition)  # it decided them: the runs are its own
            change = change_of(record, by, outcome, now, self._values, key=runs.key)
            if self._schedules.register(change, plan) is not None:
                return what
        raise _busy(definition.schedule.name)

    def _registration(
        self,
        old: ScheduleRecord | None,
        new: Definition,
        module: str | None,
        now: datetime,
        runs: Runs,
    ) -> tuple[Registered, Outcome | None]:
        if old is None:
            state = deciding.registered(new.schedule, now)
            return Registered.NEW, deciding.outcome_of(new.schedule, state)
        state = state_of(old)
        is_left = state.paused is not None and state.paused.reason == NOT_DECLARED
        if old.digest == new.digest and old.module == module and not is_left:
            return Registered.UNCHANGED, None
        before = Definition.from_json(old.definition)
        outcome = deciding.register_again(before.schedule, new.schedule, state, now, runs)
        if not is_left:
            return Registered.CHANGED, outcome
        resumed = deciding.resume(new.schedule, outcome.state, now, runs)
        told = (*outcome.decisions, *resumed.decisions)
        return Registered.RESUMED, msgspec.structs.replace(resumed, decisions=told)

    def pause(self, name: str, reason: str) -> ScheduleRecord:
        """Let no tick of a schedule fire from now on; its runs go on. What is paused stays so."""

        def step(
            definition: Definition, state: ScheduleState, now: datetime, runs: Runs
        ) -> Outcome:
            settled = deciding.decide(definition.schedule, state, now, runs)
            paused = deciding.pause(settled.state, now, reason)
            after = deciding.outcome_of(definition.schedule, paused)
            told = settled.decisions
            if settled.state.paused is None:
                told += deciding.put_off(definition.schedule, paused, now, runs)
            return msgspec.structs.replace(after, decisions=told)

        return self.change(name, step)

    def resume(self, name: str) -> ScheduleRecord:
        """Let a paused schedule go on from now; what was due meanwhile was skipped."""
        return self.change(
            name,
            lambda definition, state, now, runs: deciding.resume(
                definition.schedule, state, now, runs
            ),
        )

    def pause_left(self, module: str, declared: Collection[str]) -> list[str]:
        """Pause what a module no longer declares; return the names."""
        left: list[str] = []
        for record in self.all(ScheduleQuery(module=module)):
            if record.name not in declared and not record.paused:
                self.change(record.name, _leave)
                left.append(record.name)
        return left

    def all(self, query: ScheduleQuery) -> list[ScheduleRecord]:
        """Return all schedules of a query, page by page."""
        found: list[ScheduleRecord] = []
        while True:
            after = found[-1].name if found else query.after
            asked = msgspec.structs.replace(query, limit=_PAGE, after=after)
            page = self._schedules.list_schedules(asked)
            found += page
            if len(page) < _PAGE:
                return found

    def change(self, name: str, step: Step, rewrite: Rewrite | None = None) -> ScheduleRecord:
        """Change a schedule by what ``step`` decides, and return it as it is then.

        Args:
            name: of the schedule.
            step: decides, on what was read; called again where others were first.
            rewrite: gives older rows of the ledger as they are from now on.
        """
        for _ in range(TRIES):
            record, now = self._schedules.get_schedule(name), self._clock.now()
            definition, state = Definition.from_json(record.definition), state_of(record)
            runs = self._runs_of(record)
            outcome = step(definition, state, now, runs_for(runs))
            if outcome.state == state and not outcome.decisions:
                return record
            rewritten = rewrite(definition) if rewrite is not None else ()
            change = change_of(
                record, definition, outcome, now, self._values, key=runs.key, rewritten=rewritten
            )
            fired = self._schedules.fire([change]).fired
            if name in fired:
                return fired[name]
        raise _busy(name)

    def _runs_of(self, record: ScheduleRecord) -> ScheduleRuns:
        since = state_of(record).resumed_at
        return self._schedules.runs_of(record.name, concurrency=record.concurrency, since=since)


def _busy(name: str) -> StoreError:
    return StoreError(
        f"schedule {name!r} was changed by others {TRIES} times while it was to be changed: try "
        "again"
    )


def _leave(definition: Definition, state: ScheduleState, now: datetime, runs: Runs) -> Outcome:
    """Pause what its module does not declare any more; also what is due by now does not fire.

    Nobody knows since when it is not declared: while nobody served, it may have been taken out.
    """
    schedule, paused = definition.schedule, deciding.pause(state, now, NOT_DECLARED)
    told = () if state.paused is not None else deciding.put_off(schedule, paused, now, runs)
    settled = deciding.decide(schedule, paused, now, runs)
    return msgspec.structs.replace(settled, decisions=(*told, *settled.decisions))
