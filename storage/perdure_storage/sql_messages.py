"""Signals and events in a SQL database: kept, found, and the runs woken that they are for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, Transaction
from perdure_storage.errors import BlobsCondemned, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.records import EventRecord, MessageRecord, RunId, RunRecord, WaitRecord
from perdure_storage.rows import MessageRows, WaitRows, pack_event, to_us
from perdure_storage.signing import Signer
from perdure_storage.sql_commits import find_condemned

_KEY = ("receiver", "name", "dedup_key")


class Messages:
    """Messages of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time.
        signer: signs and checks rows, or None.
        require_run: locks and returns a run in a transaction; raises RunNotFound.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        signer: Signer | None,
        require_run: Callable[[Transaction, RunId], RunRecord],
    ) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock
        self._messages = MessageRows(signer)
        self._waits = WaitRows(signer)
        self._require_run = require_run

    def send(self, message: MessageRecord) -> MessageRecord | None:
        """Keep a message, as ``RunStore.send`` says."""
        try:
            self._messages.pack(message)
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise StoreError(f"the message {message.name!r} cannot be stored: {error}") from error
        crash_point("send.before")
        sent = self._database.write(lambda t: self._send(t, message, self._messages.pack(message)))
        crash_point("send.after")
        return sent

    def _send(
        self, transaction: Transaction, message: MessageRecord, row: list[object]
    ) -> MessageRecord | None:
        statements = self._statements
        if statements.order_messages is not None:  # ids are given in the order of the commits
            transaction.row(statements.order_messages)
        run = None
        if message.run_id is not None:
            run = self._require_run(transaction, message.run_id)
            guards.require_live(run.id, run.status, "signal")
        named = self._messages.named(row)
        if self._is_duplicate(transaction, named):
            return None
        blobs = guards.blobs_of_value(message.value)
        if taken := find_condemned(self._database, transaction, blobs):
            refusal = guards.condemned(message.run_id or RunId(""), taken)
            raise BlobsCondemned(refusal.message, digests=refusal.digests)
        made = transaction.row(statements.insert_message, **named)
        assert made is not None
        sent = self._messages.numbered(message, made[0])
        refs = [("message", str(sent.id), "", 0, digest) for digest in blobs]
        transaction.insert(statements.insert_blob_ref, refs)
        self._wake(transaction, sent, run)
        self._database.announce(transaction)
        return sent

    def _is_duplicate(self, transaction: Transaction, named: dict[str, object]) -> bool:
        if named["dedup_key"] is None:
            return False
        key = {f"of_{name}": named[name] for name in _KEY}
        return transaction.row(self._statements.find_duplicate, **key) is not None

    def _wake(
        self, transaction: Transaction, message: MessageRecord, run: RunRecord | None
    ) -> None:
        now, name = self._clock.now(), message.name
        if run is None:
            transaction.run(self._statements.wake_for_event, now_us=to_us(now), of_name=name)
            return
        told = EventRecord(kind="signalled", at=now, detail={"name": name, "message": message.id})
        transaction.insert(self._statements.insert_event, [pack_event(run.id, run.seq + 1, told)])
        transaction.run(
            self._statements.wake_for_signal, now_us=to_us(now), of_run=run.id, new_seq=run.seq + 1
        )

    def list_messages(self, run_id: RunId, names: Collection[str]) -> list[MessageRecord]:
        """Return what the run may have and has not had, as ``RunStore.messages`` says."""
        listed = self._statements.id_list(sorted(names))
        rows = self._database.read(
            lambda t: t.rows(self._statements.list_messages, of_run=run_id, ids=listed)
        )
        return [self._messages.unpack(row) for row in rows]

    def find_message(self, number: int) -> MessageRecord | None:
        """Return one message, whoever it is for, or None."""
        row = self._database.read(lambda t: t.row(self._statements.find_message, of_id=number))
        return None if row is None else self._messages.unpack(row)

    def list_waits(self, run_id: RunId) -> list[WaitRecord]:
        """Return the waits of a run, as ``RunStore.list_waits`` says."""
        rows = self._database.read(lambda t: t.rows(self._statements.list_waits, run_id=run_id))
        return [self._waits.unpack(row) for row in rows]

    def hold(self, transaction: Transaction) -> None:
        """Let nobody send until the transaction ends.

        To be asked before the run is locked: who sends to it locks in this order, too.
        """
        if self._statements.hold_messages is not None:
            transaction.row(self._statements.hold_messages)

    def may_be_unheard(
        self, transaction: Transaction, heard: Mapping[RunId, int]
    ) -> Collection[RunId]:
        """Return those of many runs, in one look, that ``is_unheard`` is to be asked about.

        Args:
            transaction: it holds messages back.
            heard: number of the newest message that was looked at, by run.
        """
        if not heard:
            return ()
        listed = self._statements.id_list(list(heard))
        oldest = min(heard.values())
        rows = transaction.rows(self._statements.find_maybe_unheard, ids=listed, heard=oldest)
        return [row[0] for row in rows]

    def is_unheard(self, transaction: Transaction, run_id: RunId, heard: int) -> bool:
        """Say whether a message is there for an open wait of the run that is newer than ``heard``.

        To be asked in a transaction that holds messages back, under the run's lock.
        """
        found = transaction.row(self._statements.find_unheard, of_run=run_id, heard=heard)
        return found is not None

    def forget_events(self, before: datetime) -> int:
        """Remove old events, as ``RunStore.forget_events`` says."""
        crash_point("expire.before")
        gone = self._database.write(lambda t: self._forget(t, before))
        crash_point("expire.after")
        return gone

    def _forget(self, transaction: Transaction, before: datetime) -> int:
        statements = self._statements
        gone = transaction.rows(statements.forget_events, before_us=to_us(before))
        ids = statements.id_list([str(row[0]) for row in gone])
        transaction.run(statements.delete_message_blobs, ids=ids)
        return len(gone)
