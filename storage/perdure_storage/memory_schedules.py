"""A schedule store in this process's memory: a verified fake, beside the runs of ``memory.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import msgspec

from perdure_storage import schedule_guards
from perdure_storage.clock import Clock
from perdure_storage.errors import BlobsCondemned, ScheduleNotFound, StoreError
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.memory_neighbours import Neighbours
from perdure_storage.records import Digest, PlanRecord, Refusal, RunId, RunRecord
from perdure_storage.schedule_records import (
    FireReport,
    InLine,
    KeyVersion,
    ScheduleChange,
    ScheduleQuery,
    ScheduleRecord,
    ScheduleRuns,
    TickQuery,
    TickRecord,
)

_replace = msgspec.structs.replace


class MemoryScheduleStore:
    """``ScheduleStore`` over dictionaries.

    Args:
        clock: wall time of changes.
        beside: the runs.
    """

    def __init__(self, clock: Clock, beside: Neighbours) -> None:
        self._clock = clock
        self._beside = beside
        self._lock = beside.lock
        self._schedules: dict[str, ScheduleRecord] = {}
        self._ticks: dict[tuple[str, datetime], TickRecord] = {}
        self._keys: Counter[str] = Counter()

    # --- changes -----------------------------------------------------------------------------
    def register(
        self, change: ScheduleChange, plan: PlanRecord | None = None
    ) -> ScheduleRecord | None:
        schedule_guards.require_consistent(change)
        schedule_guards.require_plan(change, plan)
        schedule_guards.require_storable(change)
        with self._lock:
            given = change.schedule
            old = self._schedules.get(given.name)
            if (0 if old is None else old.version) != given.version:
                return None
            if not schedule_guards.is_key_as_read(change, self._keys):
                return None
            of_plan = () if plan is None else plan.blobs
            blobs = {*of_plan, *given.blobs, *schedule_guards.blobs_of_runs(change)}
            if taken := blobs & set(self._beside.condemned()):
                refusal = schedule_guards.condemned(change, taken)
                raise BlobsCondemned(refusal.message, digests=refusal.digests)
            plans = {*self._beside.plans, *(() if plan is None else (plan.digest,))}
            if why := self._beside.missing_plan(change.runs, plans):
                raise StoreError(f"schedule {given.name!r} cannot be stored: {why}")
            if plan is not None:
                self._beside.plans.setdefault(plan.digest, plan)
            new = self._next(given)
            self._schedules[given.name] = new
            keys = {given.concurrency, schedule_guards.guarded_key(change)}
            self._keys.update(filter(None, keys))
            self._write_decided(change)
            if old is not None and old.plan_digest not in (None, new.plan_digest):
                self._beside.drop_plan(old.plan_digest)
            self._beside.changed()
            return new

    def fire(self, batch: Sequence[ScheduleChange]) -> FireReport:
        schedule_guards.require_distinct(batch)
        for change in batch:
            schedule_guards.require_consistent(change)
            schedule_guards.require_key(change)
        fired: dict[str, ScheduleRecord] = {}
        refused: dict[str, Refusal] = {}
        made: list[RunId] = []
        with self._lock:
            for change in sorted(batch, key=lambda change: change.schedule.name):
                name = change.schedule.name
                refusal = self._refusal(change)
                if refusal is not None:
                    refused[name] = refusal
                    continue
                self._schedules[name] = fired[name] = self._advanced(change.schedule)
                self._keys.update(filter(None, [schedule_guards.guarded_key(change)]))
                made += self._write_decided(change)
            self._beside.changed()
        return FireReport(fired=fired, refused=refused, made=tuple(made))

    def _refusal(self, change: ScheduleChange) -> Refusal | None:
        try:
            schedule_guards.require_storable(change)
        except StoreError as error:
            return schedule_guards.rejected(change, str(error))
        if taken := schedule_guards.blobs_of_runs(change) & set(self._beside.condemned()):
            return schedule_guards.condemned(change, taken)
        if not schedule_guards.is_key_as_read(change, self._keys):
            return schedule_guards.overtaken(change)
        stored = self._schedules.get(change.schedule.name)
        if stored is None or stored.version != change.schedule.version:
            return schedule_guards.stale(change, None if stored is None else stored.version)
        why = self._beside.missing_plan(change.runs, self._beside.plans)
        return schedule_guards.rejected(change, why) if why else None

    def _next(self, schedule: ScheduleRecord) -> ScheduleRecord:
        now = self._clock.now()
        created_at = now if schedule.version == 0 else schedule.created_at
        return _replace(
            schedule, version=schedule.version + 1, created_at=created_at, updated_at=now
        )

    def _advanced(self, schedule: ScheduleRecord) -> ScheduleRecord:
        """Return the stored row with the new state: a tick changes nothing of the definition."""
        new = self._next(schedule)
        return _replace(
            self._schedules[schedule.name],
            state=new.state,
            next_at=new.next_at,
            wakes_below=new.wakes_below,
            waits_since=new.waits_since,
            paused=new.paused,
            ended=new.ended,
            version=new.version,
            updated_at=new.updated_at,
        )

    def _write_decided(self, change: ScheduleChange) -> list[RunId]:
        for tick in change.ticks:
            key = (tick.schedule, tick.at)
            there = self._ticks.get(key)
            if there is None or there.run_id is None or tick.run_id not in (None, there.run_id):
                self._ticks[key] = tick
        made = [run.id for run in change.runs if self._beside.create(run)]
        for run_id in sorted(change.cancels):
            self._beside.cancel(run_id)
        return made

    def remove(self, name: str) -> bool:
        with self._lock:
            old = self._schedules.pop(name, None)
            if old is None:
                return False
            self._ticks = {key: tick for key, tick in self._ticks.items() if key[0] != name}
            if old.plan_digest is not None:
                self._beside.drop_plan(old.plan_digest)
            self._beside.changed()
            return True

    def forget_ticks(self, before: datetime, *, limit: int = 10_000) -> int:
        with self._lock:
            old = [key for key, tick in self._ticks.items() if (tick.last or tick.at) < before]
            gone = sorted(old)[:limit]
            for key in gone:
                del self._ticks[key]
            return len(gone)

    def trim_ticks(self, name: str, keep_last: int, *, limit: int = 10_000) -> int:
        with self._lock:
            mine = sorted(key for key in self._ticks if key[0] == name)
            gone = mine[: max(0, len(mine) - keep_last)][:limit]
            for key in gone:
                del self._ticks[key]
            return len(gone)

    # --- questions ---------------------------------------------------------------------------
    def find_schedule(self, name: str) -> ScheduleRecord | None:
        with self._lock:
            return self._schedules.get(name)

    def get_schedule(self, name: str) -> ScheduleRecord:
        found = self.find_schedule(name)
        if found is None:
            raise ScheduleNotFound(name, self._beside.url)
        return found

    def list_schedules(self, query: ScheduleQuery) -> list[ScheduleRecord]:
        found = [each for each in self._by_name() if _matches(query, each)]
        return found[: query.limit]

    def due(self, now: datetime, limit: int = 100) -> list[ScheduleRecord]:
        with self._lock:
            found = [each for each in self._by_name() if self._is_due(each, now)]
        found.sort(key=lambda each: (each.next_at is None, each.next_at or now))
        return found[:limit]

    def _is_due(self, schedule: ScheduleRecord, now: datetime) -> bool:
        if schedule.next_at is not None and schedule.next_at <= now:
            return True
        if schedule.wakes_below is None:
            return False
        other, since = (
            self._first_in_line(schedule.name, schedule.concurrency),
            schedule.waits_since,
        )
        is_behind = (
            other is not None
            and since is not None
            and (other.since, other.schedule) < (since, schedule.name)
        )
        live = self._live(schedule.name, schedule.concurrency)
        return not is_behind and len(live) < schedule.wakes_below

    def next_due(self) -> datetime | None:
        return min((each.next_at for each in self._by_name() if each.next_at), default=None)

    def runs_of(
        self, name: str, *, concurrency: str | None = None, since: datetime | None = None
    ) -> ScheduleRuns:
        with self._lock:
            live = self._live(name, concurrency)
            ended = [run for run in self._counted({name}) if run.finished_at]
            first = self._first_in_line(name, concurrency)
            key = (
                None
                if concurrency is None
                else KeyVersion(key=concurrency, version=self._keys[concurrency])
            )
        limits = [run.finished_at for run in ended if run.status is RunStatus.SUCCEEDED]
        limit = max((at for at in [*limits, since] if at is not None), default=None)
        failed = [run.finished_at for run in ended if run.status is RunStatus.FAILED]
        count = sum(limit is None or at > limit for at in failed if at is not None)
        return ScheduleRuns(
            live=tuple(run.id for run in live),
            of_others={run.id: run.schedule for run in live if run.schedule not in (None, name)},
            failed_in_a_row=count,
            key=key,
            first=first,
        )

    def _live(self, name: str, concurrency: str | None) -> list[RunRecord]:
        """Return the live runs that count for a schedule, the oldest first."""
        names = {name} if concurrency is None else {each.name for each in self._having(concurrency)}
        live = [run for run in self._counted(names) if run.status in RUN_LIVE]
        return sorted(live, key=lambda run: (run.created_at, run.id))

    def _counted(self, schedules: Collection[str]) -> Iterable[RunRecord]:
        """Yield the runs that policies of schedules count."""
        return (run for run in self._beside.runs() if run.schedule in schedules and not run.by_hand)

    def _first_in_line(self, name: str, concurrency: str | None) -> InLine | None:
        """Return who else has waited longest under a key."""
        waiting = [
            (each.waits_since, each.name)
            for each in self._having(concurrency)
            if each.waits_since is not None and each.name != name
        ]
        if not waiting:
            return None
        since, schedule = min(waiting)
        return InLine(since=since, schedule=schedule)

    def _having(self, concurrency: str | None) -> list[ScheduleRecord]:
        if concurrency is None:
            return []
        return [each for each in self._schedules.values() if each.concurrency == concurrency]

    def newest_ticks(self, names: Collection[str]) -> dict[str, TickRecord]:
        newest = {name: self.list_ticks(TickQuery(schedule=name, limit=1)) for name in names}
        return {name: found[0] for name, found in newest.items() if found}

    def list_ticks(self, query: TickQuery) -> list[TickRecord]:
        with self._lock:
            ticks = [tick for tick in self._ticks.values() if tick.schedule == query.schedule]
        found = [
            tick
            for tick in ticks
            if (query.since is None or tick.at >= query.since)
            and (query.before is None or tick.at < query.before)
        ]
        return sorted(found, key=lambda tick: tick.at, reverse=True)[: query.limit]

    # --- for the runs beside -------------------------------------------------------------------
    def holds_plan(self, digest: Digest) -> bool:
        """Say whether a schedule has a plan."""
        return any(each.plan_digest == digest for each in self._schedules.values())

    def held(self) -> set[Digest]:
        """Return the blobs that schedules and their plans refer to."""
        blobs = {blob for each in self._schedules.values() for blob in each.blobs}
        for each in self._schedules.values():
            if each.plan_digest is not None:
                blobs.update(self._beside.plans[each.plan_digest].blobs)
        return blobs

    def _by_name(self) -> list[ScheduleRecord]:
        with self._lock:
            return [self._schedules[name] for name in sorted(self._schedules)]


def _matches(query: ScheduleQuery, schedule: ScheduleRecord) -> bool:
    return (
        (query.module is None or schedule.module == query.module)
        and (query.concurrency is None or schedule.concurrency == query.concurrency)
        and (query.paused is None or schedule.paused == query.paused)
        and (query.ended is None or schedule.ended == query.ended)
        and schedule.name.startswith(query.name_prefix)
        and (query.after is None or schedule.name > query.after)
    )
