"""``ScheduleStore`` on SQLite and PostgreSQL: schedules, ticks, and the making of their runs.

The version of a schedule's row is its guard and its lock: one guarded ``UPDATE`` claims the tick,
and whatever follows in the transaction is ours alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from perdure_storage import guards, schedule_guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, RowRefused, Transaction
from perdure_storage.errors import BlobsCondemned, PerdureError, ScheduleNotFound, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.records import Digest, PlanRecord, Refusal, RunId
from perdure_storage.rows import from_us, required_time, to_us
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
from perdure_storage.schedule_rows import STATE, Row, ScheduleRows, TickRows
from perdure_storage.signing import Signer
from perdure_storage.sql_commits import find_condemned
from perdure_storage.sql_creation import Creation
from perdure_storage.written_out import WRITTEN

log = logging.getLogger(__name__)

_replace = msgspec.structs.replace

_LAST = "\U0010ffff"
_EVER = -(2**62)
_COLUMNS = WRITTEN.columns["schedule"]


class _Stale(PerdureError):
    """Undoes a registration that was decided on another version. Internal."""


@dataclass(slots=True)
class _Landed:
    """What became of the changes of a transaction so far."""

    fired: dict[str, ScheduleRecord]
    refused: dict[str, Refusal]
    made: list[RunId]


class SqlScheduleStore:
    """The schedules of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time of changes.
        signer: signs and checks rows, or None.
        creation: makes runs.
        cancel: asks a run to end, in a transaction, if it is there and live.
        changed: is told that this process has written.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        signer: Signer | None,
        creation: Creation,
        cancel: Callable[[Transaction, RunId], None],
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._statements = database.book.schedules
        self._clock = clock
        self._rows = ScheduleRows(signer)
        self._ticks = TickRows(signer)
        self._creation = creation
        self._cancel = cancel
        self._changed = changed
        self._distrusted: set[str] = set()

    # --- changes -----------------------------------------------------------------------------
    def register(
        self, change: ScheduleChange, plan: PlanRecord | None = None
    ) -> ScheduleRecord | None:
        schedule_guards.require_consistent(change)
        schedule_guards.require_plan(change, plan)
        schedule_guards.require_storable(change)
        crash_point("schedule.before-register")
        try:
            registered = self._database.write(lambda t: self._register(t, change, plan))
        except _Stale:
            return None
        except RowRefused as error:
            name = change.schedule.name
            raise StoreError(f"schedule {name!r} cannot be stored: {error}") from error
        crash_point("schedule.after-register")
        self._changed()
        return registered

    def _register(
        self, transaction: Transaction, change: ScheduleChange, plan: PlanRecord | None
    ) -> ScheduleRecord:
        self._lock_cancelled(transaction, [change])
        name, key = change.schedule.name, change.schedule.concurrency
        versions = self._lock_keys(transaction, [change], entered=key)
        if not schedule_guards.is_key_as_read(change, versions):
            raise _Stale(name)
        for each in {key, schedule_guards.guarded_key(change)} - {None}:
            transaction.run(self._statements.advance_key, of_key=each)
        old = transaction.row(self._statements.lock_schedule, of_name=name)
        if (0 if old is None else old[0]) != change.schedule.version:
            raise _Stale(name)
        of_plan = () if plan is None else plan.blobs
        blobs = {*of_plan, *change.schedule.blobs, *schedule_guards.blobs_of_runs(change)}
        if taken := find_condemned(self._database, transaction, blobs):
            refusal = schedule_guards.condemned(change, taken)
            raise BlobsCondemned(refusal.message, digests=refusal.digests)
        if plan is not None:
            self._creation.put_plan(transaction, plan)
        new = self._next(change.schedule)
        self._put(transaction, new, is_new=old is None)
        self._write_decided(transaction, change)
        if old is not None and old[1] not in (None, new.plan_digest):
            self._creation.drop_unused(transaction, [Digest(old[1])])
        self._database.announce(transaction)
        return new

    def _put(self, transaction: Transaction, new: ScheduleRecord, *, is_new: bool) -> None:
        statements = self._statements
        row = dict(zip(_COLUMNS, self._rows.pack(new), strict=True))
        if is_new:
            if transaction.row(statements.insert_schedule, **row) is None:
                raise _Stale(new.name)  # somebody was faster, between the look and the insert
        else:
            given = {f"new_{name}": value for name, value in row.items()}
            transaction.run(statements.update_schedule, of_name=new.name, **given)
            transaction.run(statements.delete_schedule_blobs, of_name=new.name)
        self._creation.refer(transaction, "schedule", new.name, new.blobs)

    def _next(self, schedule: ScheduleRecord) -> ScheduleRecord:
        now = self._clock.now()
        created_at = now if schedule.version == 0 else schedule.created_at
        return _replace(
            schedule, version=schedule.version + 1, created_at=created_at, updated_at=now
        )

    def fire(self, batch: Sequence[ScheduleChange]) -> FireReport:
        schedule_guards.require_distinct(batch)
        for change in batch:
            schedule_guards.require_consistent(change)
            schedule_guards.require_key(change)
        storable, refused = [], {}
        # In one order for everybody: no two batches wait for each other.
        for change in sorted(batch, key=lambda change: change.schedule.name):
            try:
                schedule_guards.require_storable(change)
                storable.append(change)
            except StoreError as error:
                name = change.schedule.name
                refused[name] = schedule_guards.rejected(change, str(error))
        crash_point("fire.before")
        landed = self._fire_all(storable)
        crash_point("fire.after")
        self._changed()
        return FireReport(
            fired=landed.fired, refused={**landed.refused, **refused}, made=tuple(landed.made)
        )

    def _fire_all(self, batch: Sequence[ScheduleChange]) -> _Landed:
        """Fire a batch; if the database refuses a row of it, fire its halves."""
        if not batch:
            return _Landed({}, {}, [])
        try:
            return self._database.write(lambda t: self._fire(t, batch))
        except RowRefused as error:
            if len(batch) == 1:
                why = schedule_guards.rejected(batch[0], str(error))
                return _Landed({}, {batch[0].schedule.name: why}, [])
        middle = len(batch) // 2
        first, second = self._fire_all(batch[:middle]), self._fire_all(batch[middle:])
        return _Landed(
            first.fired | second.fired, first.refused | second.refused, first.made + second.made
        )

    def _fire(self, transaction: Transaction, batch: Sequence[ScheduleChange]) -> _Landed:
        landed = _Landed({}, {}, [])
        self._lock_cancelled(transaction, batch)
        versions = self._lock_keys(transaction, batch)
        named = {change.schedule.name: schedule_guards.blobs_of_runs(change) for change in batch}
        condemned = find_condemned(self._database, transaction, set().union(*named.values()))
        for change in batch:
            schedule = change.schedule
            if taken := condemned & named[schedule.name]:
                landed.refused[schedule.name] = schedule_guards.condemned(change, taken)
                continue
            if not schedule_guards.is_key_as_read(change, versions):
                landed.refused[schedule.name] = schedule_guards.overtaken(change)
                continue
            new = self._next(schedule)
            if not self._advance(transaction, new, read_version=schedule.version):
                landed.refused[schedule.name] = self._seen(transaction, change)
                continue
            if (key := schedule_guards.guarded_key(change)) is not None:
                versions[key] += 1
                transaction.run(self._statements.advance_key, of_key=key)
            landed.made += self._write_decided(transaction, change)
            landed.fired[schedule.name] = new
        self._database.announce(transaction)
        crash_point("fire.in-transaction")
        return landed

    def _advance(self, transaction: Transaction, new: ScheduleRecord, *, read_version: int) -> bool:
        row = dict(zip(_COLUMNS, self._rows.pack(new), strict=True))
        given = {f"new_{name}": row[name] for name in (*STATE, "updated_at_us")}
        statement = self._statements.advance_schedule
        given |= {"of_name": new.name, "read_version": read_version}
        return transaction.row(statement, **given) is not None

    def _seen(self, transaction: Transaction, change: ScheduleChange) -> Refusal:
        row = transaction.row(self._statements.lock_schedule, of_name=change.schedule.name)
        return schedule_guards.stale(change, None if row is None else row[0])

    def _write_decided(self, transaction: Transaction, change: ScheduleChange) -> list[RunId]:
        """Write ticks, runs and cancel requests of a change whose guard stands."""
        rows = [self._ticks.pack(tick) for tick in change.ticks]
        transaction.insert(self._statements.put_tick, rows)
        made = []
        for run in change.runs:
            fresh = _replace(guards.fresh(run), seq=1)
            if self._creation.create(transaction, fresh, None):
                made.append(run.id)
        for run_id in sorted(change.cancels):
            self._cancel(transaction, run_id)
        return made

    def _lock_cancelled(self, transaction: Transaction, batch: Sequence[ScheduleChange]) -> None:
        """Lock the runs that are to end before any schedule, by id: so everybody else does."""
        ids = sorted({run_id for change in batch for run_id in change.cancels})
        if ids:
            statements = self._database.statements
            transaction.rows(statements.lock_run_states, ids=statements.id_list(ids))

    def _lock_keys(
        self,
        transaction: Transaction,
        batch: Sequence[ScheduleChange],
        *,
        entered: str | None = None,
    ) -> dict[str, int]:
        """Lock the keys under which runs are made, in one order for everybody, before schedules.

        Args:
            transaction: locks them.
            batch: makes the runs.
            entered: a key that is to be there, and locked too.

        Returns:
            Their versions; of one that is not there 0.
        """
        if entered is not None:
            transaction.insert(self._statements.put_key, [(entered, 0)])
        keys = {entered, *map(schedule_guards.guarded_key, batch)} - {None}
        versions = {}
        for key in sorted(filter(None, keys)):
            row = transaction.row(self._statements.lock_key, of_key=key)
            versions[key] = 0 if row is None else row[0]
        return versions

    def remove(self, name: str) -> bool:
        crash_point("schedule.before-remove")
        removed = self._database.write(lambda t: self._remove(t, name))
        crash_point("schedule.after-remove")
        self._changed()
        return removed

    def _remove(self, transaction: Transaction, name: str) -> bool:
        old = transaction.row(self._statements.lock_schedule, of_name=name)
        if old is None:
            return False
        for statement in self._statements.delete_of_schedule:
            transaction.run(statement, of_name=name)
        if old[1] is not None:
            self._creation.drop_unused(transaction, [Digest(old[1])])
        self._database.announce(transaction)
        return True

    def forget_ticks(self, before: datetime, *, limit: int = 10_000) -> int:
        given = {"before_us": to_us(before), "limit": limit}
        crash_point("tick.before-forget")
        gone = self._database.write(lambda t: t.rows(self._statements.forget_ticks, **given))
        crash_point("tick.after-forget")
        return len(gone)

    def trim_ticks(self, name: str, keep_last: int, *, limit: int = 10_000) -> int:
        # Which is too old is read without a lock: walking over those that stay takes the longest.
        newest = {"of_name": name, "keep_last": keep_last}
        row = self._database.read(lambda t: t.row(self._statements.newest_to_trim, **newest))
        if row is None:
            return 0
        given = {"of_name": name, "last_us": row[0], "limit": limit}
        crash_point("tick.before-forget")
        gone = self._database.write(lambda t: t.rows(self._statements.trim_ticks, **given))
        crash_point("tick.after-forget")
        return len(gone)

    # --- questions ---------------------------------------------------------------------------
    def find_schedule(self, name: str) -> ScheduleRecord | None:
        row = self._database.read(lambda t: t.row(self._statements.find_schedule, of_name=name))
        return None if row is None else self._rows.unpack(row)

    def get_schedule(self, name: str) -> ScheduleRecord:
        found = self.find_schedule(name)
        if found is None:
            raise ScheduleNotFound(name, self._database.url)
        return found

    def list_schedules(self, query: ScheduleQuery) -> list[ScheduleRecord]:
        wanted: dict[str, object] = {
            "module": query.module,
            "concurrency": query.concurrency,
            "paused": query.paused,
            "ended": query.ended,
            "prefix": query.name_prefix or None,
            "after": query.after,
        }
        filters = frozenset(name for name, value in wanted.items() if value is not None)
        given = {
            "of_module": query.module,
            "of_key": query.concurrency,
            "is_paused": query.paused,
            "is_ended": query.ended,
            "prefix": query.name_prefix,
            "prefix_end": query.name_prefix + _LAST,
            "after": query.after,
            "limit": query.limit,
        }
        statement = self._statements.list_schedules(filters)
        rows = self._database.read(lambda t: t.rows(statement, **given))
        return [self._rows.unpack(row) for row in rows]

    def due(self, now: datetime, limit: int = 100) -> list[ScheduleRecord]:
        given = {"now_us": to_us(now), "limit": limit + len(self._distrusted)}
        rows = self._database.read(lambda t: t.rows(self._statements.due, **given))
        trusted = (self._trusted(row) for row in rows)
        return [schedule for schedule in trusted if schedule is not None][:limit]

    def _trusted(self, row: Row) -> ScheduleRecord | None:
        """Return the schedule of a row, or None: one that was tampered with stops no other."""
        try:
            return self._rows.unpack(row)
        except StoreError as error:
            if row[0] not in self._distrusted:
                self._distrusted.add(row[0])
                log.error("schedule %s stands still: %s", row[0], error)
            return None

    def next_due(self) -> datetime | None:
        row = self._database.read(lambda t: t.row(self._statements.next_due))
        return None if row is None else from_us(row[0])

    def runs_of(
        self, name: str, *, concurrency: str | None = None, since: datetime | None = None
    ) -> ScheduleRuns:
        since_us = _EVER if since is None else to_us(since)
        statements = self._statements

        def look(transaction: Transaction) -> ScheduleRuns:
            # The key first: a run that is made after it is read changes its version.
            key, first = self._look_at_key(transaction, name, concurrency)
            live = sorted(
                transaction.rows(statements.live_runs, of_name=name)
                if concurrency is None
                else transaction.rows(statements.live_runs_of_key, of_key=concurrency)
            )
            failed = transaction.row(statements.failed_runs, of_name=name, since_us=since_us)
            assert failed is not None
            return ScheduleRuns(
                live=tuple(RunId(row[1]) for row in live),
                of_others={RunId(row[1]): row[2] for row in live if row[2] != name},
                failed_in_a_row=failed[0],
                key=key,
                first=first,
            )

        return self._database.read(look)

    def _look_at_key(
        self, transaction: Transaction, name: str, key: str | None
    ) -> tuple[KeyVersion | None, InLine | None]:
        if key is None:
            return None, None
        row = transaction.row(self._statements.version_of_key, of_key=key)
        version = KeyVersion(key=key, version=0 if row is None else row[0])
        waits = transaction.row(self._statements.first_in_line, of_key=key, of_name=name)
        if waits is None:
            return version, None
        return version, InLine(since=required_time(waits[0]), schedule=waits[1])

    def newest_ticks(self, names: Collection[str]) -> dict[str, TickRecord]:
        ids = self._database.statements.id_list(list(names))
        rows = self._database.read(lambda t: t.rows(self._statements.newest_ticks, ids=ids))
        return {tick.schedule: tick for tick in map(self._ticks.unpack, rows)}

    def list_ticks(self, query: TickQuery) -> list[TickRecord]:
        wanted = {"since": query.since, "before": query.before}
        filters = frozenset(name for name, value in wanted.items() if value is not None)
        given = {f"{name}_us": to_us(value) for name, value in wanted.items()}
        statement = self._statements.list_ticks(filters)
        rows = self._database.read(
            lambda t: t.rows(statement, of_name=query.schedule, limit=query.limit, **given)
        )
        return [self._ticks.unpack(row) for row in rows]
