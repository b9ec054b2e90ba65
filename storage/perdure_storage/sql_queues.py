"""``QueueStore`` in a SQL database, and what claims ask about queues within their transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure_storage import guards
from perdure_storage.admission import Line, Room, admitted, needs_slot, next_in_line, next_woken
from perdure_storage.clock import Clock
from perdure_storage.database import Database, Row, Transaction
from perdure_storage.durations import LONGEST
from perdure_storage.faults import crash_point
from perdure_storage.queue_records import KeyStanding, QueueRecord, QueueStanding
from perdure_storage.records import RunRecord
from perdure_storage.rows import RunRows, from_us, pack_offer, required_time, to_us

_replace = msgspec.structs.replace

HOLDERS = 20
"""How many of those who have a slot are named."""


class SqlQueueStore:
    """The queues of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time of changes, starts and delays.
        changed: is told that this process has written.
    """

    def __init__(self, database: Database, clock: Clock, changed: Callable[[], None]) -> None:
        self._database = database
        self._statements = database.book.queues
        self._clock = clock
        self._runs = RunRows(None)  # what is listed is not signed
        self._changed = changed

    # --- changes -----------------------------------------------------------------------------
    def put_queue(self, queue: QueueRecord) -> QueueRecord | None:
        guards.require_storable_queue(queue)
        now = self._clock.now()
        made_at = now if queue.version == 0 else queue.created_at
        new = _replace(queue, version=queue.version + 1, created_at=made_at, updated_at=now)
        crash_point("queue.before-put")
        is_written = self._database.write(lambda t: self._put(t, new))
        crash_point("queue.after-put")
        self._changed()
        return new if is_written else None

    def _put(self, transaction: Transaction, new: QueueRecord) -> bool:
        statements, row = self._statements, _pack(new)
        if new.version == 1:
            is_written = transaction.row(statements.insert_queue, **row) is not None
        else:
            given = {f"new_{name}": value for name, value in row.items()}
            given |= {"of_queue": new.name, "of_version": new.version - 1}
            is_written = transaction.row(statements.replace_queue, **given) is not None
        self._database.announce(transaction)
        return is_written

    def remove_queue(self, name: str) -> bool:
        crash_point("queue.before-remove")
        gone = self._database.write(lambda t: self._remove(t, name))
        crash_point("queue.after-remove")
        self._changed()
        return gone

    def _remove(self, transaction: Transaction, name: str) -> bool:
        gone = transaction.row(self._statements.delete_queue, of_queue=name) is not None
        self._database.announce(transaction)
        return gone

    # --- questions ---------------------------------------------------------------------------
    def find_queue(self, name: str) -> QueueRecord | None:
        row = self._database.read(lambda t: t.row(self._statements.find_queue, of_queue=name))
        return None if row is None else _unpack(row)

    def list_queues(self) -> list[QueueRecord]:
        return self._database.read(self.within)

    def standing(self, name: str) -> QueueStanding:
        return self._database.read(lambda t: self._standing(t, name))

    def _standing(self, transaction: Transaction, name: str) -> QueueStanding:
        statements, now = self._statements, self._clock.now()
        row = transaction.row(statements.find_queue, of_queue=name)
        listed = self._database.statements.id_list([name])
        running = {key: n for _, key, n in transaction.rows(statements.count_running, ids=listed)}
        counted = transaction.rows(statements.count_waiting, of_queue=name, now_us=to_us(now))
        waiting = {key: count - later for key, count, later, _ in counted}
        keys = sorted({*running, *(key for key, count in waiting.items() if count)})
        holders = transaction.rows(statements.list_holders, of_queue=name, limit=HOLDERS)
        starts, opens_at = (0, None)
        if row is not None:
            starts, opens_at = self._starts(transaction, _unpack(row), now)
        return QueueStanding(
            name=name,
            running=sum(running.values()),
            waiting=sum(waiting.values()),
            delayed=sum(later for _, _, later, _ in counted),
            oldest=from_us(min((at for *_, at in counted if at is not None), default=None)),
            starts=starts,
            opens_at=opens_at,
            keys=tuple(
                KeyStanding(key=key, running=running.get(key, 0), waiting=waiting.get(key, 0))
                for key in keys
            ),
            holders=tuple(each[0] for each in holders),
        )

    def _starts(
        self, transaction: Transaction, queue: QueueRecord, now: datetime
    ) -> tuple[int, datetime | None]:
        """Return how many runs have begun in the window, and when it lets the next one begin."""
        if queue.rate is None or queue.window is None:
            return 0, None
        given: dict[str, Any] = {"of_queue": queue.name, "since_us": to_us(now - queue.window)}
        starts = self._count(transaction, given)
        if starts < queue.rate:
            return starts, None
        last = transaction.row(self._statements.find_start, **given, after=queue.rate - 1)
        return starts, None if last is None else required_time(last[0]) + queue.window

    def _count(self, transaction: Transaction, given: dict[str, Any]) -> int:
        row = transaction.row(self._statements.count_starts, **given)
        return 0 if row is None else int(row[0])

    # --- for claims, within their transactions -----------------------------------------------
    def within(self, transaction: Transaction) -> list[QueueRecord]:
        """Return all queues."""
        return [_unpack(row) for row in transaction.rows(self._statements.list_queues)]

    def admit(self, transaction: Transaction, runs: list[RunRecord]) -> list[RunRecord]:
        """Return those of some free runs for which there is a slot, or that need none.

        Queues are locked until the transaction ends, after the runs, in the order of their names.
        """
        names = sorted({run.queue for run in runs if run.queue is not None and needs_slot(run)})
        if not names:
            return runs
        listed = self._database.statements.id_list(names)
        queues = [_unpack(r) for r in transaction.rows(self._statements.lock_queues, ids=listed)]
        return admitted(runs, self._rooms(transaction, queues))

    def in_turn(
        self,
        transaction: Transaction,
        queues: Sequence[QueueRecord],
        offer: Mapping[str, float] | None,
        most: int,
    ) -> list[RunRecord]:
        """Return the runs of queues that nobody drives and whose turn it is.

        ``queues`` are those with limits. Who slept in another one waits for no turn.
        """
        now = self._clock.now()
        rooms = self._rooms(transaction, queues)
        turn = _Turn(self, transaction, now, offer, most)
        chosen = [run for room in rooms.values() for run in turn.of(room)]
        for [name] in transaction.rows(self._statements.queues_in_line):
            if name not in rooms:  # no limits, but a line
                free = QueueRecord(name=name, created_at=now, updated_at=now)
                chosen += turn.of_line(Room(free))
        return chosen

    def _rooms(self, transaction: Transaction, queues: Sequence[QueueRecord]) -> dict[str, Room]:
        now = self._clock.now()
        rooms = {queue.name: Room(queue) for queue in queues}
        listed = self._database.statements.id_list(list(rooms))
        for name, key, n in transaction.rows(self._statements.count_running, ids=listed):
            rooms[name].running[key] = n
        for name, room in rooms.items():
            if room.queue.rate is not None and room.queue.window is not None:
                since = to_us(now - room.queue.window)
                room.starts = self._count(transaction, {"of_queue": name, "since_us": since})
        return rooms

    def lines(self, transaction: Transaction, given: dict[str, Any], fits: bool) -> Iterator[Line]:
        """Yield the runs that wait, by key; beyond the first of a key they are read when asked."""
        for key, served_us, *first in transaction.rows(self._statements.lines(fits=fits), **given):
            rest = self._line(transaction, {**given, "key": key}, fits, first)
            yield Line(key, from_us(served_us), rest)

    def _line(
        self, transaction: Transaction, given: dict[str, Any], fits: bool, first: Sequence[Any]
    ) -> Iterator[RunRecord]:
        head = self._runs.unpack_listed(tuple(first))
        yield head
        for row in transaction.rows(self._statements.line(fits=fits), **given):
            run = self._runs.unpack_listed(row)
            if run.id != head.id:
                yield run

    def woken(
        self, transaction: Transaction, given: dict[str, Any], fits: bool
    ) -> Iterator[RunRecord]:
        """Yield the runs that slept and have something to do."""
        for row in transaction.rows(self._statements.woken(fits=fits), **given):
            yield self._runs.unpack_listed(row)


class _Turn:
    """Whose turn it is in queues, at one moment, for one offer."""

    def __init__(
        self,
        queues: SqlQueueStore,
        transaction: Transaction,
        now: datetime,
        offer: Mapping[str, float] | None,
        most: int,
    ) -> None:
        self._queues = queues
        self._transaction = transaction
        self._fits = offer is not None
        self._most = most
        self._given: dict[str, Any] = {"now_us": to_us(now), "limit": most}
        if offer is not None:
            self._given["offer"] = pack_offer(offer)

    def of(self, room: Room) -> list[RunRecord]:
        given = {**self._given, "of_queue": room.queue.name}
        woken = self._queues.woken(self._transaction, given, self._fits)
        return next_woken(room, woken, self._most) + self.of_line(room)

    def of_line(self, room: Room) -> list[RunRecord]:
        heads = self._most + sum(map(bool, room.running.values()))
        given = {**self._given, "of_queue": room.queue.name, "heads": heads}
        lines = self._queues.lines(self._transaction, given, self._fits)
        return next_in_line(room, lines, self._most)


def _pack(queue: QueueRecord) -> dict[str, Any]:
    window = queue.window
    return {
        "name": queue.name,
        "running_limit": queue.limit,
        "key_limit": queue.limit_per_key,
        "rate": queue.rate,
        "window_us": None if window is None else round(window.total_seconds() * 1_000_000),
        "declared": queue.declared,
        "version": queue.version,
        "created_at_us": to_us(queue.created_at),
        "updated_at_us": to_us(queue.updated_at),
    }


def _unpack(row: Row) -> QueueRecord:
    name, limit, limit_per_key, rate, window_us, declared, version, created_us, updated_us = row
    return QueueRecord(
        name=name,
        limit=limit,
        limit_per_key=limit_per_key,
        rate=rate,
        window=None if window_us is None else _window(window_us),
        declared=declared,
        version=version,
        created_at=required_time(created_us),
        updated_at=required_time(updated_us),
    )


def _window(window_us: int) -> timedelta:
    # A longer one was stored before those were refused: it stops neither claims nor its mending.
    return timedelta(microseconds=min(window_us, LONGEST // timedelta(microseconds=1)))
