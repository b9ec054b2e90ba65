"""What SQL stores do for gc: what is referred to, marks, pins, and ids that are not free yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

from perdure_storage.clock import Clock
from perdure_storage.database import Database, Transaction
from perdure_storage.errors import StoreError
from perdure_storage.faults import crash_point
from perdure_storage.records import Digest, PinRecord, RunId
from perdure_storage.rows import required_time, to_us


class Upkeep:
    """The upkeep of one database, as ``RunStore`` says."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock

    # --- ids of deleted runs -----------------------------------------------------------------
    def free_id(self, run_id: RunId) -> None:
        """Remove a tombstone."""
        crash_point("free.before")
        self._database.write(lambda t: t.run(self._statements.delete_tombstone, run_id=run_id))
        crash_point("free.after")

    def list_tombstones(self, before: datetime) -> list[RunId]:
        """Return the runs deleted before a time whose ids are not free yet."""
        statement, before_us = self._statements.list_tombstones, to_us(before)
        rows = self._database.read(lambda t: t.rows(statement, before_us=before_us))
        return [row[0] for row in rows]

    # --- references and marks ----------------------------------------------------------------
    def unreferenced(self, digests: Iterable[Digest], besides: Collection[RunId]) -> list[Digest]:
        """Return those that nothing refers to, or nothing but some runs and their plans."""
        statements, wanted = self._statements, sorted(set(digests))
        given = {"ids": statements.id_list(wanted)}
        statement = statements.find_referenced
        if besides:
            statement = statements.find_referenced_besides
            given["besides"] = statements.id_list(list(besides))
        rows = self._database.read(lambda t: t.rows(statement, **given))
        used = {row[0] for row in rows}
        return [digest for digest in wanted if digest not in used]

    def condemn(self, digests: Iterable[Digest]) -> list[Digest]:
        """Mark those that nothing refers to; return them."""
        wanted = sorted(set(digests))
        crash_point("condemn.before")
        marked = self._database.write(lambda t: self._condemn(t, wanted))
        crash_point("condemn.after")
        return marked

    def _condemn(self, transaction: Transaction, wanted: list[Digest]) -> list[Digest]:
        statements = self._statements
        if statements.exclude_referrers is not None:
            transaction.row(statements.exclude_referrers)
        listed = statements.id_list(wanted)
        used = {row[0] for row in transaction.rows(statements.find_referenced, ids=listed)}
        marked = [digest for digest in wanted if digest not in used]
        at = to_us(self._clock.now())
        transaction.insert(statements.insert_condemned, [(digest, at) for digest in marked])
        return marked

    def list_condemned(self, digests: Iterable[Digest] | None) -> dict[Digest, datetime]:
        """Return the marked ones with the times of their marks."""
        statements = self._statements
        given = {} if digests is None else {"ids": statements.id_list(list(digests))}
        statement = statements.list_condemned if digests is None else statements.find_condemned
        rows = self._database.read(lambda t: t.rows(statement, **given))
        return {digest: required_time(at_us) for digest, at_us in rows}

    def absolve(self, marks: Mapping[Digest, datetime]) -> None:
        """Remove marks, as they were listed."""
        rows = [(digest, to_us(marks[digest])) for digest in sorted(marks)]
        crash_point("absolve.before")
        self._database.write(lambda t: t.insert(self._statements.delete_condemned, rows))
        crash_point("absolve.after")

    def forget_condemned(self, before: datetime) -> int:
        """Remove the marks made before a time; return how many."""
        statement, before_us = self._statements.forget_condemned, to_us(before)
        crash_point("forget.before")
        forgotten = self._database.write(lambda t: len(t.rows(statement, before_us=before_us)))
        crash_point("forget.after")
        return forgotten

    # --- pins --------------------------------------------------------------------------------
    def pin(self, pin: PinRecord, pinned: Callable[[], None]) -> None:
        """Keep every blob that is referred to now; ``pinned`` is called inside the transaction."""
        crash_point("pin.before")
        self._database.write(lambda t: self._pin(t, pin, pinned))
        crash_point("pin.after")

    def _pin(self, transaction: Transaction, pin: PinRecord, pinned: Callable[[], None]) -> None:
        statements = self._statements
        if statements.refer_to_blobs is not None:
            transaction.row(statements.refer_to_blobs)
        row = {"id": pin.id, "at_us": to_us(pin.at), "note": pin.note}
        if transaction.row(statements.insert_pin, **row) is None:
            raise StoreError(f"there is a pin {pin.id!r} in {self._database.url} already")
        transaction.run(statements.insert_pinned, pin_id=pin.id)
        pinned()

    def unpin(self, pin_id: str) -> bool:
        """Remove a pin with its references; return whether it was there."""
        crash_point("unpin.before")
        done = self._database.write(lambda t: self._unpin(t, pin_id))
        crash_point("unpin.after")
        return done

    def _unpin(self, transaction: Transaction, pin_id: str) -> bool:
        transaction.run(self._statements.delete_pinned, pin_id=pin_id)
        return transaction.row(self._statements.delete_pin, pin_id=pin_id) is not None

    def list_pins(self) -> list[PinRecord]:
        """Return the pins, oldest first."""
        rows = self._database.read(lambda t: t.rows(self._statements.list_pins))
        return [PinRecord(id=row[0], at=required_time(row[1]), note=row[2]) for row in rows]
