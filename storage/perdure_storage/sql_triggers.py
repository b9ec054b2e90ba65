"""``TriggerStore`` on SQLite and PostgreSQL: triggers, what arrives for them, and their runs.

Whoever changes a trigger, or brings arrivals for it, holds its row: so arrivals are numbered in
the order of their commits, and whether a key is there is asked and used in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from perdure_storage import guards, trigger_guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, RowRefused, Transaction
from perdure_storage.errors import BlobsCondemned, PerdureError, StoreError, TriggerNotFound
from perdure_storage.faults import crash_point
from perdure_storage.records import Digest, MessageRecord, PlanRecord, Refusal, RunId
from perdure_storage.rows import MessageRows, from_us, to_us
from perdure_storage.signing import Signer
from perdure_storage.sql_commits import find_condemned
from perdure_storage.sql_creation import Creation
from perdure_storage.statement import Statement
from perdure_storage.trigger_records import (
    AcceptReport,
    ArrivalQuery,
    ArrivalRecord,
    EndRecord,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)
from perdure_storage.trigger_rows import (
    DECISION,
    NEWEST,
    STATE,
    ArrivalRows,
    Row,
    TriggerRows,
    holder_of,
    unpack_end,
)
from perdure_storage.written_out import WRITTEN

log = logging.getLogger(__name__)

_replace = msgspec.structs.replace

_LAST = "\U0010ffff"
_COLUMNS = WRITTEN.columns["trigger"]
_PLAN_DIGEST = _COLUMNS.index("plan_digest")
_OF_ARRIVAL = WRITTEN.columns["arrival"]
_PAGE = 10_000


class _Stale(PerdureError):
    """Undoes a registration that was decided on another version. Internal."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is stored of a change, read under the lock of its trigger.

    Attributes:
        newest: number of the newest arrival that there ever was.
        known: those of its arrivals that are there, by key.
        revised: those about which something else is decided, as they are from now on.
        deferred: keys of those that nobody may leave behind, if the change lets the trigger go on.
    """

    stored: TriggerRecord
    newest: int
    known: dict[str, ArrivalRecord]
    revised: tuple[ArrivalRecord, ...]
    deferred: tuple[str, ...]


@dataclass(slots=True)
class _Landed:
    """What became of the changes of a transaction so far."""

    accepted: dict[str, TriggerRecord] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    known: dict[tuple[str, str], ArrivalRecord] = field(default_factory=dict)
    made: list[RunId] = field(default_factory=list)

    def add(self, other: _Landed) -> None:
        """Take what became of other changes in."""
        self.accepted |= other.accepted
        self.refused |= other.refused
        self.known |= other.known
        self.made += other.made


class SqlTriggerStore:
    """The triggers of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time of changes.
        signer: signs and checks rows, or None.
        creation: makes runs.
        changed: is told that this process has written.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        signer: Signer | None,
        creation: Creation,
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._statements = database.book.triggers
        self._clock = clock
        self._rows = TriggerRows(signer)
        self._arrivals = ArrivalRows(signer)
        self._messages = MessageRows(signer)
        self._creation = creation
        self._changed = changed
        self._distrusted: set[str] = set()

    # --- registering -------------------------------------------------------------------------
    def register(
        self, change: TriggerChange, plan: PlanRecord | None = None
    ) -> TriggerRecord | None:
        trigger_guards.require_consistent(change)
        trigger_guards.require_plan(change, plan)
        trigger_guards.require_storable(change)
        crash_point("trigger.before-register")
        try:
            registered = self._database.write(lambda t: self._register(t, change, plan))
        except _Stale:
            return None
        except RowRefused as error:
            name = change.trigger.name
            raise StoreError(f"trigger {name!r} cannot be stored: {error}") from error
        crash_point("trigger.after-register")
        self._changed()
        return registered

    def _register(
        self, transaction: Transaction, change: TriggerChange, plan: PlanRecord | None
    ) -> TriggerRecord:
        given = change.trigger
        found = self._find(transaction, change)
        old = None if found is None else found.stored
        if (0 if old is None else old.version) != given.version:
            raise _Stale(given.name)
        if found is not None:
            if trigger_guards.left_behind(change, found.deferred) is not None:
                raise _Stale(given.name)
            change = _to_write(change, found)
        of_plan = () if plan is None else plan.blobs
        blobs = {*of_plan, *given.blobs, *trigger_guards.blobs_of_change(change)}
        if taken := find_condemned(self._database, transaction, blobs):
            refusal = trigger_guards.condemned(change, taken)
            raise BlobsCondemned(refusal.message, digests=refusal.digests)
        if plan is not None:
            self._creation.put_plan(transaction, plan)
        new = _replace(self._next(given), listener=None)
        newest = 0 if found is None else found.newest
        self._put(transaction, new, newest + len(change.arrivals), is_new=old is None)
        self._write_decided(transaction, change, newest)
        if old is not None and old.plan_digest not in (None, new.plan_digest):
            self._creation.drop_unused(transaction, [Digest(old.plan_digest)])
        if new.watches_runs and not (old is not None and old.watches_runs):
            self._watch_ends(transaction)
        self._database.announce(transaction)
        return new

    def _find(self, transaction: Transaction, change: TriggerChange) -> _Found | None:
        rows = self._lock(transaction, [change.trigger.name])
        return self._found(transaction, change, rows.get(change.trigger.name))

    def _put(
        self, transaction: Transaction, new: TriggerRecord, newest: int, *, is_new: bool
    ) -> None:
        statements = self._statements
        row = dict(zip(_COLUMNS, self._rows.pack(new, newest), strict=True))
        if is_new:
            if transaction.row(statements.insert_trigger, **row) is None:
                raise _Stale(new.name)  # somebody was faster, between the look and the insert
        else:
            given = {f"new_{name}": value for name, value in row.items()}
            transaction.run(statements.update_trigger, of_name=new.name, **given)
            transaction.run(statements.delete_trigger_blobs, of_name=new.name)
        self._creation.refer(transaction, "trigger", new.name, new.blobs)

    def _watch_ends(self, transaction: Transaction) -> None:
        """Miss no end of a run from now on. The last lock of all: who ends runs has others."""
        if self._statements.watch_ends is not None:
            transaction.run(self._statements.watch_ends)

    def _next(self, trigger: TriggerRecord) -> TriggerRecord:
        now = self._clock.now()
        created_at = now if trigger.version == 0 else trigger.created_at
        return _replace(trigger, version=trigger.version + 1, created_at=created_at, updated_at=now)

    def remove(self, name: str) -> bool:
        crash_point("trigger.before-remove")
        removed = self._database.write(lambda t: self._remove(t, name))
        crash_point("trigger.after-remove")
        self._changed()
        return removed

    def _remove(self, transaction: Transaction, name: str) -> bool:
        row = self._lock(transaction, [name]).get(name)
        if row is None:
            return False
        for statement in self._statements.delete_of_trigger:
            transaction.run(statement, of_name=name)
        if row[_PLAN_DIGEST] is not None:
            self._creation.drop_unused(transaction, [Digest(row[_PLAN_DIGEST])])
        self._database.announce(transaction)
        return True

    # --- accepting ---------------------------------------------------------------------------
    def accept(self, batch: Sequence[TriggerChange], ends: Collection[int] = ()) -> AcceptReport:
        trigger_guards.require_distinct(batch)
        for change in batch:
            trigger_guards.require_consistent(change)
        landed, storable = _Landed(), []
        # In one order for everybody: no two batches wait for each other.
        for change in sorted(batch, key=lambda change: change.trigger.name):
            try:
                trigger_guards.require_storable(change)
                storable.append(change)
            except StoreError as error:
                name = change.trigger.name
                landed.refused[name] = trigger_guards.rejected(change, str(error))
        told = () if landed.refused else tuple(map(str, ends))
        crash_point("accept.before")
        landed.add(self._accept_all(storable, told))
        crash_point("accept.after")
        self._changed()
        return AcceptReport(
            accepted=landed.accepted,
            refused=landed.refused,
            known=landed.known,
            made=tuple(landed.made),
        )

    def _accept_all(self, batch: Sequence[TriggerChange], ends: Sequence[str]) -> _Landed:
        """Accept a batch; if the database refuses a row of it, accept its halves."""
        if not batch and not ends:
            return _Landed()
        try:
            return self._database.write(lambda t: self._accept(t, batch, ends))
        except RowRefused as error:
            if len(batch) == 1:
                why = trigger_guards.rejected(batch[0], str(error))
                return _Landed(refused={batch[0].trigger.name: why})
        middle = len(batch) // 2
        landed = self._accept_all(batch[:middle], ())
        landed.add(self._accept_all(batch[middle:], ()))
        if trigger_guards.were_told(landed.refused):
            self._accept_all((), ends)
        return landed

    def _accept(
        self, transaction: Transaction, batch: Sequence[TriggerChange], ends: Sequence[str]
    ) -> _Landed:
        landed = _Landed()
        rows = self._lock(transaction, [change.trigger.name for change in batch])
        blobs = {blob for change in batch for blob in trigger_guards.blobs_of_change(change)}
        condemned = find_condemned(self._database, transaction, blobs)
        for change in batch:
            self._land(transaction, change, rows.get(change.trigger.name), condemned, landed)
        if ends and trigger_guards.were_told(landed.refused):
            listed = self._database.statements.id_list(ends)
            transaction.run(self._statements.delete_ends, ids=listed)
        self._database.announce(transaction)
        crash_point("accept.in-transaction")
        return landed

    def _land(
        self,
        transaction: Transaction,
        change: TriggerChange,
        row: Row | None,
        condemned: Collection[Digest],
        landed: _Landed,
    ) -> None:
        name = change.trigger.name
        try:
            found = self._found(transaction, change, row)
        except StoreError as error:  # its signature does not fit: that stops no other trigger
            landed.refused[name] = trigger_guards.rejected(change, str(error))
            return
        new = change if found is None else _to_write(change, found)
        if found is not None:
            landed.known |= {(name, key): arrival for key, arrival in found.known.items()}
        refusal = _refusal(change, new, found, condemned)
        if refusal is not None or found is None:
            assert refusal is not None
            landed.refused[name] = refusal
            return
        landed.accepted[name] = self._move(transaction, new, found)
        landed.made += self._write_decided(transaction, new, found.newest)

    def _lock(self, transaction: Transaction, names: Sequence[str]) -> dict[str, Row]:
        listed = self._database.statements.id_list(names)
        return {row[0]: row for row in transaction.rows(self._statements.lock_triggers, ids=listed)}

    def _found(
        self, transaction: Transaction, change: TriggerChange, row: Row | None
    ) -> _Found | None:
        """Read what is stored of a change. Raises StoreError if a signature does not fit."""
        if row is None:
            return None
        name = change.trigger.name
        known = self._known(transaction, name, (arrival.key for arrival in change.arrivals))
        revised = {arrival.key: arrival for arrival in change.revised}
        before = self._known(transaction, name, revised)
        stored = self._rows.unpack(row)
        return _Found(
            stored=stored,
            newest=row[NEWEST],
            known=known,
            revised=tuple(trigger_guards.revised(old, revised[k]) for k, old in before.items()),
            deferred=self._deferred(transaction, change, stored),
        )

    def _deferred(
        self, transaction: Transaction, change: TriggerChange, stored: TriggerRecord
    ) -> tuple[str, ...]:
        if not trigger_guards.lets_go_on(change, trigger_guards.Standing.of(stored)):
            return ()
        # One more than are revised is one that is left behind.
        given = {"of_name": stored.name, "limit": len(change.revised) + 1}
        rows = transaction.rows(self._statements.deferred, **given)
        return tuple(row[0] for row in rows)

    def _known(
        self, transaction: Transaction, name: str, keys: Iterable[str]
    ) -> dict[str, ArrivalRecord]:
        asked = list(keys)
        if not asked:
            return {}
        listed = self._database.statements.id_list(asked)
        rows = transaction.rows(self._statements.known, of_name=name, ids=listed)
        return {row[1]: self._arrivals.unpack(row) for row in rows}

    def _move(
        self, transaction: Transaction, change: TriggerChange, found: _Found
    ) -> TriggerRecord:
        """Write the new state of a trigger, if it has one, and count its arrivals."""
        name, newest = change.trigger.name, found.newest + len(change.arrivals)
        new = trigger_guards.after(found.stored, change, self._clock.now())
        if new == found.stored:
            if change.arrivals:
                transaction.run(self._statements.count_arrivals, of_name=name, new_newest=newest)
            return new
        row = dict(zip(_COLUMNS, self._rows.pack(new, newest), strict=True))
        names = (*STATE, "newest", "listener", "updated_at_us")
        given = {f"new_{column}": row[column] for column in names}
        transaction.run(self._statements.move_trigger, of_name=name, **given)
        return new

    def _write_decided(
        self, transaction: Transaction, change: TriggerChange, newest: int
    ) -> list[RunId]:
        """Write arrivals and runs of a change whose guard stands; all of it is to be written."""
        numbered = [_replace(a, seq=n) for n, a in enumerate(change.arrivals, newest + 1)]
        rows = [self._arrivals.pack(arrival) for arrival in numbered]
        transaction.insert(self._statements.insert_arrival, rows)
        for arrival in numbered:
            blobs = trigger_guards.blobs_of_arrival(arrival)
            self._creation.refer(transaction, "arrival", holder_of(arrival), blobs)
        for arrival in change.revised:
            row = dict(zip(_OF_ARRIVAL, self._arrivals.pack(arrival), strict=True))
            given = {f"new_{column}": row[column] for column in DECISION}
            key = {"of_name": arrival.trigger, "of_key": arrival.key}
            transaction.run(self._statements.revise_arrival, **key, **given)
        fresh = (_replace(guards.fresh(run), seq=1) for run in change.runs)
        return [run.id for run in fresh if self._creation.create(transaction, run, None)]

    def forget_arrivals(
        self,
        name: str,
        before: datetime,
        *,
        keep: Callable[[str], bool] | None = None,
        limit: int = _PAGE,
    ) -> int:
        crash_point("arrival.before-forget")
        keys = self._old(name, before, keep, limit)
        gone = self._database.write(lambda t: self._forget(t, name, before, keys)) if keys else 0
        crash_point("arrival.after-forget")
        return gone

    def _old(
        self, name: str, before: datetime, keep: Callable[[str], bool] | None, limit: int
    ) -> list[str]:
        """Return the keys of the oldest arrivals that may go."""
        given = {"of_name": name, "before_us": to_us(before), "limit": _PAGE}
        statement = self._statements.old_arrivals
        found: list[str] = []
        beyond = 0
        while page := self._database.read(lambda t: t.rows(statement, beyond=beyond, **given)):  # noqa: B023
            found += [key for key, _ in page if keep is None or not keep(key)]
            if len(found) >= limit or len(page) < _PAGE:
                break
            beyond = page[-1][1]
        return found[:limit]

    def _forget(
        self, transaction: Transaction, name: str, before: datetime, keys: Sequence[str]
    ) -> int:
        statements, id_list = self._statements, self._database.statements.id_list
        given = {"of_name": name, "before_us": to_us(before), "ids": id_list(keys)}
        gone = transaction.rows(statements.forget_arrivals, **given)
        holders = [f"{name} {row[0]}" for row in gone]
        transaction.run(statements.delete_payloads, ids=id_list(holders))
        return len(gone)

    # --- who listens -------------------------------------------------------------------------
    def take_sources(
        self, token: str, limit: int = 100, *, seen_dead: Collection[str] = ()
    ) -> list[TriggerRecord]:
        statements = self._statements
        who = {"token": token, "dead": self._database.statements.id_list(sorted(seen_dead))}
        free = self._database.read(lambda t: t.rows(statements.free_sources, limit=limit, **who))
        if free:
            names = [row[0] for row in free]
            crash_point("listen.before-take")
            self._database.write(lambda t: self._take(t, names, who))
            crash_point("listen.after-take")
        rows = self._database.read(lambda t: t.rows(statements.sources_of, token=token))
        return [trigger for trigger in map(self._trusted, rows) if trigger is not None]

    def _take(
        self, transaction: Transaction, names: Sequence[str], who: Mapping[str, object]
    ) -> None:
        statements, id_list = self._statements, self._database.statements.id_list
        locked = [row[0] for row in transaction.rows(statements.lock_free, ids=id_list(names))]
        free = transaction.rows(statements.free_among, ids=id_list(locked), **who)
        taken = id_list([row[0] for row in free])
        transaction.run(statements.set_listener, ids=taken, new_listener=who["token"])

    def leave_sources(self, token: str) -> None:
        crash_point("listen.before-leave")
        self._database.write(lambda t: self._leave(t, token))
        crash_point("listen.after-leave")
        self._changed()

    def _leave(self, transaction: Transaction, token: str) -> None:
        mine = [row[0] for row in transaction.rows(self._statements.lock_sources_of, token=token)]
        listed = self._database.statements.id_list(mine)
        transaction.run(self._statements.set_listener, ids=listed, new_listener=None)
        self._database.announce(transaction)

    # --- questions ---------------------------------------------------------------------------
    def find_trigger(self, name: str) -> TriggerRecord | None:
        row = self._database.read(lambda t: t.row(self._statements.find_trigger, of_name=name))
        return None if row is None else self._rows.unpack(row)

    def get_trigger(self, name: str) -> TriggerRecord:
        found = self.find_trigger(name)
        if found is None:
            raise TriggerNotFound(name, self._database.url)
        return found

    def list_triggers(self, query: TriggerQuery) -> list[TriggerRecord]:
        wanted: dict[str, object] = {
            "module": query.module,
            "paused": query.paused,
            "watches_runs": query.watches_runs,
            "listens": query.listens,
            "prefix": query.name_prefix or None,
            "after": query.after,
        }
        filters = frozenset(name for name, value in wanted.items() if value is not None)
        given = {
            "of_module": query.module,
            "is_paused": query.paused,
            "is_watches_runs": query.watches_runs,
            "is_listens": query.listens,
            "prefix": query.name_prefix,
            "prefix_end": query.name_prefix + _LAST,
            "after": query.after,
            "limit": query.limit,
        }
        statement = self._statements.list_triggers(filters)
        rows = self._database.read(lambda t: t.rows(statement, **given))
        return [self._rows.unpack(row) for row in rows]

    def hearing(self) -> list[TriggerRecord]:
        return self._all_trusted(self._statements.hearing)

    def watching(self) -> list[TriggerRecord]:
        return self._all_trusted(self._statements.watching)

    def _all_trusted(self, statement: Statement) -> list[TriggerRecord]:
        rows = self._database.read(lambda t: t.rows(statement))
        return [trigger for trigger in map(self._trusted, rows) if trigger is not None]

    def due_triggers(self, now: datetime, limit: int = 100) -> list[TriggerRecord]:
        given = {"now_us": to_us(now), "limit": limit + len(self._distrusted)}
        rows = self._database.read(lambda t: t.rows(self._statements.due, **given))
        return [trigger for trigger in map(self._trusted, rows) if trigger is not None][:limit]

    def _trusted(self, row: Row) -> TriggerRecord | None:
        """Return the trigger of a row, or None: one that was tampered with stops no other."""
        try:
            return self._rows.unpack(row)
        except StoreError as error:
            if row[0] not in self._distrusted:
                self._distrusted.add(row[0])
                log.error("trigger %s stands still: %s", row[0], error)
            return None

    def next_due(self) -> datetime | None:
        row = self._database.read(lambda t: t.row(self._statements.next_due))
        return None if row is None else from_us(row[0])

    def known(self, name: str, keys: Collection[str]) -> dict[str, ArrivalRecord]:
        return self._database.read(lambda t: self._known(t, name, keys))

    def newest_arrivals(self, names: Collection[str]) -> dict[str, ArrivalRecord]:
        ids = self._database.statements.id_list(list(names))
        rows = self._database.read(lambda t: t.rows(self._statements.newest_arrivals, ids=ids))
        return {arrival.trigger: arrival for arrival in map(self._arrivals.unpack, rows)}

    def list_arrivals(self, query: ArrivalQuery) -> list[ArrivalRecord]:
        wanted = {
            "decision": query.decision is not None,
            "beyond": query.beyond is not None,
            "oldest first": query.oldest_first,
        }
        filters = frozenset(name for name, is_wanted in wanted.items() if is_wanted)
        given = {
            "of_name": query.trigger,
            "of_decision": query.decision,
            "beyond": query.beyond,
            "limit": query.limit,
        }
        statement = self._statements.list_arrivals(filters)
        rows = self._database.read(lambda t: t.rows(statement, **given))
        return [self._arrivals.unpack(row) for row in rows]

    def events_after(
        self, number: int, names: Collection[str], limit: int = 100
    ) -> list[MessageRecord]:
        statement = self._statements.events_after
        given = {"beyond": number, "limit": limit}
        rows = self._database.read(
            lambda t: [row for name in names for row in t.rows(statement, of_event=name, **given)]
        )
        rows.sort(key=lambda row: row[0])
        return [self._messages.unpack(row) for row in rows[:limit]]

    def newest_event(self) -> int:
        row = self._database.read(lambda t: t.row(self._statements.newest_event))
        return 0 if row is None or row[0] is None else int(row[0])

    def ends(self, limit: int = 100) -> list[EndRecord]:
        rows = self._database.read(lambda t: t.rows(self._statements.ends, limit=limit))
        return [unpack_end(row) for row in rows]


def _to_write(change: TriggerChange, found: _Found) -> TriggerChange:
    """Return the part of a change that is to be written, with earlier arrivals as whole rows."""
    return _replace(trigger_guards.without(change, found.known), revised=found.revised)


def _refusal(
    change: TriggerChange, new: TriggerChange, found: _Found | None, condemned: Collection[Digest]
) -> Refusal | None:
    """Return why a change, of which ``new`` would be written, may not land, if it may not."""
    if found is None:
        return trigger_guards.stale(change, None)
    refusal = trigger_guards.stale(change, trigger_guards.Standing.of(found.stored))
    refusal = refusal or trigger_guards.already_there(change, found.known)
    refusal = refusal or trigger_guards.left_behind(change, found.deferred)
    if refusal is None and (taken := trigger_guards.blobs_of_change(new) & set(condemned)):
        return trigger_guards.condemned(change, taken)
    return refusal
