"""Triggers as people change them: register, pause, resume.

Each verb reads, decides and writes under the guard of what it read, and begins again if somebody
else was first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

import msgspec

from perdure_scheduler import arriving, resuming
from perdure_scheduler.arriving import Outcome, TriggerState, Verdict
from perdure_scheduler.circles import refuse_circle
from perdure_scheduler.conditions import event_names, listens, watched
from perdure_scheduler.hearing import Hearing, every_trigger
from perdure_scheduler.registered import NOT_DECLARED, TRIES, Registered
from perdure_scheduler.resuming import Piece
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import came_back, change_of, state_of
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.protocols import RunStore
from perdure_storage.records import Digest, PlanRecord
from perdure_storage.trigger_records import (
    ArrivalQuery,
    ArrivalRecord,
    TriggerQuery,
    TriggerRecord,
)
from perdure_storage.values import Values

_AT_ONCE = 200
"""Arrivals that are decided in one transaction when a trigger is resumed."""


class TriggerRegistry:
    """The verbs.

    Args:
        store: runs, events and triggers.
        values: where inputs go that are facts.
        clock: wall time.
    """

    def __init__(self, store: RunStore, values: Values, clock: Clock) -> None:
        self._triggers = store.triggers
        self._values = values
        self._clock = clock
        self._hearing = Hearing(store, values, clock)

    def register(
        self,
        trigger: Trigger,
        *,
        module: str | None = None,
        plan: PlanRecord | None = None,
        blobs: tuple[Digest, ...] = (),
        along: Sequence[Trigger] = (),
    ) -> Registered:
        """Make a trigger, or let one of the name be as it is declared now.

        Registering again what is there changes nothing. A new one begins now: of what a changed one
        was to be told, what happened before now is decided by what it was.

        Args:
            trigger: what it is now.
            module: which declares it; None: a person.
            plan: of its runs, where it is pinned.
            blobs: which its inputs refer to.
            along: what is registered with it, in place of what has these names.

        Raises:
            TriggerError: it would start itself for ever; the message draws how.
        """
        for _ in range(TRIES):
            old = self._triggers.find_trigger(trigger.name)
            is_left = old is not None and _is_left(old)
            if old is not None and not is_left and _says(old, trigger, module):
                return Registered.UNCHANGED
            refuse_circle(trigger, self._others(trigger, along))
            if self._replace(old, _row_of(trigger, module, blobs), trigger, plan):
                if is_left:
                    self.resume(trigger.name)
                    return Registered.RESUMED
                return Registered.NEW if old is None else Registered.CHANGED
        raise _busy(trigger.name)

    def refuse_circles(self, triggers: Sequence[Trigger]) -> None:
        """Raise TriggerError if any of these would start itself for ever, once all are there."""
        for trigger in triggers:
            refuse_circle(trigger, self._others(trigger, triggers))

    def _replace(
        self,
        old: TriggerRecord | None,
        record: TriggerRecord,
        trigger: Trigger,
        plan: PlanRecord | None,
    ) -> bool:
        """Write a definition in the place of another one; return whether nobody was faster."""
        # What nobody listened for is gone: events of other names count from now on.
        heard = self._triggers.newest_event()
        now = self._clock.now()
        if old is None:
            outcome = arriving.outcome_of(trigger, TriggerState(made=now))
            first = msgspec.structs.replace(record, heard=heard)
            change = change_of(first, trigger, outcome, now, self._values)
            return self._triggers.register(change, plan) is not None
        if old.events != record.events:
            old = self._all_heard(old)
            heard = max(heard, old.heard)
        else:
            heard = old.heard
        state = state_of(old)
        rows = self._triggers.known(old.name, [each.key for each in state.waiting])
        held = {key: came_back(row) for key, row in rows.items()}
        before = Trigger.from_json(old.definition)
        outcome = arriving.registered_again(before, trigger, state, held)
        again = msgspec.structs.replace(
            record, heard=heard, version=old.version, created_at=old.created_at
        )
        change = change_of(again, trigger, outcome, now, self._values, rows)
        return self._triggers.register(change, plan) is not None

    def _all_heard(self, record: TriggerRecord) -> TriggerRecord:
        """Let a trigger hear what happened for it so far, and return it as it is then."""
        while self._hearing.hear(record).landed:
            record = self._triggers.get_trigger(record.name)
        return record

    def pause(self, name: str, reason: str) -> TriggerRecord:
        """Let a trigger make no runs; what arrives is decided when it is resumed."""
        for _ in range(TRIES):
            record, now = self._triggers.get_trigger(name), self._clock.now()
            state = state_of(record)
            if state.paused is not None:
                return record
            trigger = Trigger.from_json(record.definition)
            outcome = arriving.outcome_of(trigger, arriving.paused(state, now, reason))
            if (after := self._write(record, trigger, outcome, now)) is not None:
                return after
        raise _busy(name)

    def resume(self, name: str, *, skip: bool = False) -> TriggerRecord:
        """Let a paused trigger go on: what arrived meanwhile is decided now, in its order.

        It stays paused until all of that is decided, so that nothing newer comes first; if the
        process dies in between, resume it again.

        Args:
            name: of the trigger.
            skip: of what arrived meanwhile nothing makes a run, nor of files that landed. What a
                source of one's own has not given yet arrives as ever.
        """
        step = resuming.skipped if skip else resuming.resumed
        tries = 0
        while tries < TRIES:
            record, now = self._triggers.get_trigger(name), self._clock.now()
            state = state_of(record)
            if state.paused is None:
                return record
            rows = self._triggers.known(name, [each.key for each in state.waiting])
            held = {key: came_back(row) for key, row in rows.items()}
            deferred = self._deferred(name)
            piece = Piece(
                deferred=[came_back(row) for row in deferred],
                is_last=len(deferred) < _AT_ONCE,
                held=held,
            )
            trigger = Trigger.from_json(record.definition)
            outcome = step(trigger, state, piece, now)
            rows |= {row.key: row for row in deferred}
            tries = 0 if self._write(record, trigger, outcome, now, rows) is not None else tries + 1
        raise _busy(name)

    def _deferred(self, name: str) -> list[ArrivalRecord]:
        query = ArrivalQuery(
            trigger=name, decision=str(Verdict.DEFERRED), oldest_first=True, limit=_AT_ONCE
        )
        return self._triggers.list_arrivals(query)

    def pause_left(self, module: str, declared: Collection[str]) -> list[str]:
        """Pause what a module no longer declares; return the names."""
        left: list[str] = []
        for record in every_trigger(self._triggers, TriggerQuery(module=module)):
            if record.name not in declared and not record.paused:
                self.pause(record.name, NOT_DECLARED)
                left.append(record.name)
        return left

    def _others(self, trigger: Trigger, along: Sequence[Trigger]) -> Iterator[Trigger]:
        """Yield what waits for ends of runs besides a trigger, once what comes along is there."""
        new = {each.name: each for each in (*along, trigger)}
        yield from (each for each in new.values() if each.name != trigger.name)
        for record in every_trigger(self._triggers, TriggerQuery(watches_runs=True)):
            if record.name not in new:
                yield Trigger.from_json(record.definition)

    def _write(
        self,
        record: TriggerRecord,
        trigger: Trigger,
        outcome: Outcome,
        now: datetime,
        rows: dict[str, ArrivalRecord] | None = None,
    ) -> TriggerRecord | None:
        change = change_of(record, trigger, outcome, now, self._values, rows or {})
        report = self._triggers.accept([change])
        refusal = report.refused.get(record.name)
        if refusal is not None and refusal.kind == "rejected":
            raise StoreError(f"trigger {record.name!r} cannot be changed: {refusal.message}")
        return report.accepted.get(record.name)


def _is_left(record: TriggerRecord) -> bool:
    state = state_of(record)
    return state.paused is not None and state.paused.reason == NOT_DECLARED


def _says(record: TriggerRecord, trigger: Trigger, module: str | None) -> bool:
    return (record.digest, record.module) == (trigger.digest, module)


def _row_of(trigger: Trigger, module: str | None, blobs: tuple[Digest, ...]) -> TriggerRecord:
    return TriggerRecord(
        name=trigger.name,
        definition=trigger.to_json(),
        digest=trigger.digest,
        module=module,
        plan_digest=trigger.run.plan_digest,
        blobs=blobs,
        events=event_names(trigger.on),
        watches_runs=bool(watched(trigger.on)),
        listens=listens(trigger.on),
        state="",
    )


def _busy(name: str) -> StoreError:
    return StoreError(
        f"trigger {name!r} was changed by others {TRIES} times while it was to be changed: try "
        "again"
    )
