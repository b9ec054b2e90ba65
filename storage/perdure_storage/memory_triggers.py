"""A trigger store in this process's memory: a verified fake, beside the runs of ``memory.py``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from operator import gt, lt

import msgspec

from perdure_storage import trigger_guards
from perdure_storage.clock import Clock
from perdure_storage.errors import BlobsCondemned, StoreError, TriggerNotFound
from perdure_storage.memory_neighbours import Neighbours
from perdure_storage.records import Digest, MessageRecord, PlanRecord, Refusal, RunId, RunRecord
from perdure_storage.trigger_records import (
    AcceptReport,
    ArrivalQuery,
    ArrivalRecord,
    EndRecord,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)

_replace = msgspec.structs.replace


class MemoryTriggerStore:
    """``TriggerStore`` over dictionaries.

    Args:
        clock: wall time of changes.
        beside: the runs.
    """

    def __init__(self, clock: Clock, beside: Neighbours) -> None:
        self._clock = clock
        self._beside = beside
        self._lock = beside.lock
        self._triggers: dict[str, TriggerRecord] = {}
        self._arrivals: dict[str, dict[str, ArrivalRecord]] = {}
        self._newest: dict[str, int] = {}
        self._ends: dict[int, EndRecord] = {}
        self._newest_end = 0

    # --- changes -----------------------------------------------------------------------------
    def register(
        self, change: TriggerChange, plan: PlanRecord | None = None
    ) -> TriggerRecord | None:
        trigger_guards.require_consistent(change)
        trigger_guards.require_plan(change, plan)
        trigger_guards.require_storable(change)
        with self._lock:
            given = change.trigger
            old = self._triggers.get(given.name)
            if (0 if old is None else old.version) != given.version:
                return None
            if old is not None and self._left_behind(change, old) is not None:
                return None
            change = trigger_guards.without(change, self.known(given.name, _keys_of(change)))
            of_plan = () if plan is None else plan.blobs
            blobs = {*of_plan, *given.blobs, *trigger_guards.blobs_of_change(change)}
            if taken := blobs & set(self._beside.condemned()):
                refusal = trigger_guards.condemned(change, taken)
                raise BlobsCondemned(refusal.message, digests=refusal.digests)
            plans = {*self._beside.plans, *(() if plan is None else (plan.digest,))}
            if why := self._beside.missing_plan(change.runs, plans):
                raise StoreError(f"trigger {given.name!r} cannot be stored: {why}")
            if plan is not None:
                self._beside.plans.setdefault(plan.digest, plan)
            new = _replace(self._next(given), listener=None)
            self._triggers[given.name] = new
            self._write_decided(change)
            if old is not None and old.plan_digest not in (None, new.plan_digest):
                self._beside.drop_plan(old.plan_digest)
            self._beside.changed()
            return new

    def accept(self, batch: Sequence[TriggerChange], ends: Collection[int] = ()) -> AcceptReport:
        trigger_guards.require_distinct(batch)
        for change in batch:
            trigger_guards.require_consistent(change)
        report = AcceptReport(accepted={}, refused={}, known={})
        made: list[RunId] = []
        with self._lock:
            for change in sorted(batch, key=lambda change: change.trigger.name):
                made += self._accept(change, report)
            if trigger_guards.were_told(report.refused):
                for number in ends:
                    self._ends.pop(number, None)
            self._beside.changed()
        return _replace(report, made=tuple(made))

    def _accept(self, change: TriggerChange, report: AcceptReport) -> list[RunId]:
        name = change.trigger.name
        known = self.known(name, _keys_of(change))
        new = trigger_guards.without(change, known)
        refusal = self._refusal(change, new, known)
        if refusal is None or refusal.kind != "rejected":
            report.known.update({(name, key): arrival for key, arrival in known.items()})
        if refusal is not None:
            report.refused[name] = refusal
            return []
        after = trigger_guards.after(self._triggers[name], new, self._clock.now())
        report.accepted[name] = self._triggers[name] = after
        return self._write_decided(new)

    def _refusal(
        self, change: TriggerChange, new: TriggerChange, known: Collection[str]
    ) -> Refusal | None:
        """Return why a change, of which ``new`` would be written, may not land, if it may not."""
        try:
            trigger_guards.require_storable(change)
        except StoreError as error:
            return trigger_guards.rejected(change, str(error))
        stored = self._triggers.get(change.trigger.name)
        standing = None if stored is None else trigger_guards.Standing.of(stored)
        refusal = trigger_guards.stale(change, standing)
        refusal = refusal or trigger_guards.already_there(change, known)
        if refusal is None and stored is not None:
            refusal = self._left_behind(change, stored)
        if refusal is not None:
            return refusal
        if taken := trigger_guards.blobs_of_change(new) & set(self._beside.condemned()):
            return trigger_guards.condemned(change, taken)
        why = self._beside.missing_plan(new.runs, self._beside.plans)
        return trigger_guards.rejected(change, why) if why else None

    def _left_behind(self, change: TriggerChange, stored: TriggerRecord) -> Refusal | None:
        if not trigger_guards.lets_go_on(change, trigger_guards.Standing.of(stored)):
            return None
        kept = self._arrivals.get(stored.name, {}).values()
        deferred = [each.key for each in kept if each.decision == trigger_guards.DEFERRED]
        return trigger_guards.left_behind(change, deferred)

    def _next(self, trigger: TriggerRecord) -> TriggerRecord:
        now = self._clock.now()
        created_at = now if trigger.version == 0 else trigger.created_at
        return _replace(trigger, version=trigger.version + 1, created_at=created_at, updated_at=now)

    def _write_decided(self, change: TriggerChange) -> list[RunId]:
        name = change.trigger.name
        kept = self._arrivals.setdefault(name, {})
        for arrival in change.arrivals:
            self._newest[name] = self._newest.get(name, 0) + 1
            kept[arrival.key] = _replace(arrival, seq=self._newest[name])
        for arrival in change.revised:
            if arrival.key in kept:
                kept[arrival.key] = trigger_guards.revised(kept[arrival.key], arrival)
        return [run.id for run in change.runs if self._beside.create(run)]

    def remove(self, name: str) -> bool:
        with self._lock:
            old = self._triggers.pop(name, None)
            if old is None:
                return False
            self._arrivals.pop(name, None)
            self._newest.pop(name, None)
            if old.plan_digest is not None:
                self._beside.drop_plan(old.plan_digest)
            self._beside.changed()
            return True

    def forget_arrivals(
        self,
        name: str,
        before: datetime,
        *,
        keep: Callable[[str], bool] | None = None,
        limit: int = 10_000,
    ) -> int:
        with self._lock:
            kept = self._arrivals.get(name, {})
            old = [
                arrival.key
                for arrival in kept.values()
                if arrival.decided_at < before
                and arrival.decision not in trigger_guards.UNDECIDED
                and not (keep is not None and keep(arrival.key))
            ]
            for key in old[:limit]:
                del kept[key]
            return len(old[:limit])

    def take_sources(
        self, token: str, limit: int = 100, *, seen_dead: Collection[str] = ()
    ) -> list[TriggerRecord]:
        with self._lock:
            free = [each for each in self._by_name() if self._is_free(each, token, seen_dead)]
            for each in free[:limit]:
                self._triggers[each.name] = _replace(each, listener=token)
            return [each for each in self._by_name() if each.listener == token]

    def _is_free(self, trigger: TriggerRecord, token: str, seen_dead: Collection[str]) -> bool:
        listener = trigger.listener
        if not trigger.listens or trigger.paused or listener == token:
            return False
        return listener is None or listener in seen_dead or not self._beside.is_live(listener)

    def leave_sources(self, token: str) -> None:
        with self._lock:
            for each in self._by_name():
                if each.listener == token:
                    self._triggers[each.name] = _replace(each, listener=None)
            self._beside.changed()

    # --- questions ---------------------------------------------------------------------------
    def find_trigger(self, name: str) -> TriggerRecord | None:
        with self._lock:
            return self._triggers.get(name)

    def get_trigger(self, name: str) -> TriggerRecord:
        found = self.find_trigger(name)
        if found is None:
            raise TriggerNotFound(name, self._beside.url)
        return found

    def list_triggers(self, query: TriggerQuery) -> list[TriggerRecord]:
        found = [each for each in self._by_name() if _matches(query, each)]
        return found[: query.limit]

    def hearing(self) -> list[TriggerRecord]:
        return [each for each in self._by_name() if each.events]

    def watching(self) -> list[TriggerRecord]:
        return [each for each in self._by_name() if each.watches_runs]

    def due_triggers(self, now: datetime, limit: int = 100) -> list[TriggerRecord]:
        due = [(each.next_at, each) for each in self._by_name() if each.next_at is not None]
        found = [(at, each.name, each) for at, each in due if at <= now]
        return [each for _, _, each in sorted(found, key=lambda known: known[:2])][:limit]

    def next_due(self) -> datetime | None:
        return min((each.next_at for each in self._by_name() if each.next_at), default=None)

    def known(self, name: str, keys: Collection[str]) -> dict[str, ArrivalRecord]:
        with self._lock:
            kept = self._arrivals.get(name, {})
            return {key: kept[key] for key in keys if key in kept}

    def newest_arrivals(self, names: Collection[str]) -> dict[str, ArrivalRecord]:
        newest = {name: self.list_arrivals(ArrivalQuery(trigger=name, limit=1)) for name in names}
        return {name: found[0] for name, found in newest.items() if found}

    def list_arrivals(self, query: ArrivalQuery) -> list[ArrivalRecord]:
        with self._lock:
            found = list(self._arrivals.get(query.trigger, {}).values())
        if query.decision is not None:
            found = [each for each in found if each.decision == query.decision]
        if query.beyond is not None:
            is_beyond = gt if query.oldest_first else lt
            found = [each for each in found if is_beyond(each.seq, query.beyond)]
        found.sort(key=lambda each: each.seq, reverse=not query.oldest_first)
        return found[: query.limit]

    def events_after(
        self, number: int, names: Collection[str], limit: int = 100
    ) -> list[MessageRecord]:
        with self._lock:
            events = [each for each in self._beside.messages() if each.run_id is None]
        found = [each for each in events if each.id > number and each.name in names]
        return found[:limit]

    def newest_event(self) -> int:
        with self._lock:
            return max((each.id for each in self._beside.messages()), default=0)

    def ends(self, limit: int = 100) -> list[EndRecord]:
        with self._lock:
            return list(self._ends.values())[:limit]

    # --- for the runs beside -------------------------------------------------------------------
    def note_end(self, run: RunRecord) -> None:
        """Keep the end of a run, if a trigger wants to know of it."""
        if not any(each.watches_runs for each in self._triggers.values()):
            return
        assert run.finished_at is not None
        self._newest_end += 1
        self._ends[self._newest_end] = EndRecord(
            id=self._newest_end,
            run_id=run.id,
            seq=run.seq,
            status=run.status,
            workflow=run.workflow,
            tags=run.tags,
            trigger=run.trigger,
            schedule=run.schedule,
            at=run.finished_at,
            created_at=run.created_at,
        )

    def is_unheard(self, event: MessageRecord) -> bool:
        """Say whether a trigger wants to know of an event and has not been told of it."""
        return any(
            event.name in each.events and each.heard < event.id for each in self._triggers.values()
        )

    def holds_plan(self, digest: Digest) -> bool:
        """Say whether a trigger has a plan."""
        return any(each.plan_digest == digest for each in self._triggers.values())

    def held(self) -> set[Digest]:
        """Return the blobs that triggers, their plans and their arrivals refer to."""
        blobs = {blob for each in self._triggers.values() for blob in each.blobs}
        for each in self._triggers.values():
            if each.plan_digest is not None:
                blobs.update(self._beside.plans[each.plan_digest].blobs)
        for kept in self._arrivals.values():
            for arrival in kept.values():
                blobs.update(trigger_guards.blobs_of_arrival(arrival))
        return blobs

    def _by_name(self) -> list[TriggerRecord]:
        with self._lock:
            return [self._triggers[name] for name in sorted(self._triggers)]


def _keys_of(change: TriggerChange) -> list[str]:
    return [arrival.key for arrival in change.arrivals]


def _matches(query: TriggerQuery, trigger: TriggerRecord) -> bool:
    return (
        (query.module is None or trigger.module == query.module)
        and (query.paused is None or trigger.paused == query.paused)
        and (query.watches_runs is None or trigger.watches_runs == query.watches_runs)
        and (query.listens is None or trigger.listens == query.listens)
        and trigger.name.startswith(query.name_prefix)
        and (query.after is None or trigger.name > query.after)
    )
