"""Makes the runs that are due. Any number of dispatchers may work on one store at once.

It reads which schedules are due, decides (``decide``: pure), and writes ticks, runs and the new
state in one transaction, guarded by what it read; and it brings to triggers what happened in the
store (``hearing``). It keeps nothing that could be lost, imports nothing of the user's, and runs
nothing: its only output is rows.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime

import msgspec

from perdure_scheduler.arriving import Verdict
from perdure_scheduler.changes import change_of, runs_for, state_of
from perdure_scheduler.decide import decide
from perdure_scheduler.definition import Definition
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.hearing import Hearing
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreUnavailable, ValueUnavailable
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunId
from perdure_storage.schedule_records import ScheduleChange, ScheduleRecord
from perdure_storage.values import Values

log = logging.getLogger(__name__)

BATCH = 100
"""Schedules decided in one transaction: nobody waits long for its lock."""
LOOK_EVERY_S = 1.0
"""How soon a change is seen of which nobody tells (``wake``)."""
OVERDUE_AGAIN_S = 0.2
"""When what is due and could not be written is tried again."""
AGAIN_S = 1.0


class Dispatched(msgspec.Struct, frozen=True, kw_only=True):
    """What one look came to.

    Attributes:
        made: the runs that did not exist before.
        ticks: how many rows tell of ticks.
        arrivals: how many rows tell of what arrived for triggers.
        landed: how many schedules and triggers went on.
        left: those that others changed meanwhile, or that could not be written.
    """

    made: tuple[RunId, ...] = ()
    ticks: int = 0
    arrivals: int = 0
    landed: int = 0
    left: int = 0


class Dispatcher:
    """Decides what is due and has it written.

    Args:
        store: runs, schedules and triggers.
        values: where inputs go that only a tick knows.
        clock: wall time.
    """

    def __init__(self, store: RunStore, values: Values, clock: Clock) -> None:
        self._store = store
        self._schedules = store.schedules
        self._values = values
        self._clock = clock
        self._hearing = Hearing(store, values, clock)
        self._definitions: dict[str, Definition] = {}
        self._unreadable: dict[str, int] = {}
        self._woken = threading.Event()

    def dispatch(self) -> Dispatched:
        """Decide what is due now, a batch of each kind; returns what came of it."""
        ticked, heard = self._tick(), self._hearing.look()
        new = [each for each in heard.receipts if each.is_new]
        fired = [each.run_id for each in new if each.decision == Verdict.FIRED and each.run_id]
        return Dispatched(
            made=(*ticked.made, *fired),
            ticks=ticked.ticks,
            arrivals=len(new),
            landed=ticked.landed + heard.landed,
            left=ticked.left + heard.left + heard.stuck,
        )

    def _tick(self) -> Dispatched:
        """Decide up to ``BATCH`` schedules that are due now."""
        now = self._clock.now()
        changes = self._decided(self._schedules.due(now, BATCH), now)
        if not changes:
            return Dispatched()
        report = self._schedules.fire(changes)
        for name, refusal in report.refused.items():
            # Another dispatcher was first, or the next look finds it again.
            level = logging.DEBUG if refusal.kind == "stale" else logging.WARNING
            log.log(level, "schedule %s was not taken on: %s", name, refusal.message)
        for run_id in report.made:
            log.info("run %s was made by its schedule", run_id, extra={"run_id": run_id})
        ticks = sum(len(each.ticks) for each in changes if each.schedule.name in report.fired)
        return Dispatched(
            made=report.made, ticks=ticks, landed=len(report.fired), left=len(report.refused)
        )

    def _decided(self, due: list[ScheduleRecord], now: datetime) -> list[ScheduleChange]:
        """Return what is to be written about schedules, the longest due first.

        Of a concurrency key one schedule fires at a time: what it fires counts for the next ones,
        which are due still when it has landed.
        """
        changes: list[ScheduleChange] = []
        fired: set[str] = set()
        for record in due:
            if record.concurrency is not None and record.concurrency in fired:
                continue
            change = self._change(record, now)
            if change is None:
                continue
            changes.append(change)
            if record.concurrency is not None and change.runs:
                fired.add(record.concurrency)
        return changes

    def _change(self, record: ScheduleRecord, now: datetime) -> ScheduleChange | None:
        """Return what is to be written about a schedule; None if there is nothing to be said."""
        try:
            definition, state = self._definition(record), state_of(record)
        except ScheduleError as error:
            if self._unreadable.get(record.name) != record.version:
                self._unreadable[record.name] = record.version
                log.error("schedule %s stands still: %s", record.name, error)
            return None
        runs = self._schedules.runs_of(
            record.name, concurrency=record.concurrency, since=state.resumed_at
        )
        outcome = decide(definition.schedule, state, now, runs_for(runs))
        change = change_of(record, definition, outcome, now, self._values, key=runs.key)
        return None if change.schedule == record and not change.ticks else change

    def _definition(self, record: ScheduleRecord) -> Definition:
        found = self._definitions.get(record.digest)
        if found is None:
            found = self._definitions[record.digest] = Definition.from_json(record.definition)
        return found

    def _next_due(self) -> datetime | None:
        known = (self._schedules.next_due(), self._store.triggers.next_due())
        return min((at for at in known if at is not None), default=None)

    def serve(self, stop: threading.Event) -> None:
        """Dispatch until ``stop`` is set and ``wake`` has it seen. Waits for a store that is away.

        While nothing changes and nothing is due a look is one question, whether anything changed.
        """
        seen: object = None
        due_at: datetime | None = None
        while not stop.is_set():
            try:
                changes = self._store.changes()
                if changes != seen or (due_at is not None and due_at <= self._clock.now()):
                    while not stop.is_set() and self.dispatch().landed:
                        pass
                    seen, due_at = changes, self._next_due()
                wait_s = self._until(due_at)
            except (StoreUnavailable, ValueUnavailable) as error:
                log.error("the store is away, trying again: %s", error)
                wait_s = AGAIN_S
            self._woken.wait(wait_s)
            self._woken.clear()

    def wake(self) -> None:
        """Look now, from any thread: something has changed."""
        self._woken.set()

    def _until(self, due_at: datetime | None) -> float:
        if due_at is None:
            return LOOK_EVERY_S
        left_s = (due_at - self._clock.now()).total_seconds()
        return min(left_s, LOOK_EVERY_S) if left_s > 0 else OVERDUE_AGAIN_S
