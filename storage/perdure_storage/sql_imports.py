"""A run with all its rows, out of one SQL database and into another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, RowRefused, Transaction
from perdure_storage.errors import PerdureError, RunNotFound, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    Digest,
    EventRecord,
    RunId,
    RunRecord,
    StoredValue,
    WaitRecord,
    WholeRun,
)
from perdure_storage.rows import (
    SEQ,
    AttemptRows,
    ExpansionRows,
    MessageRows,
    PlanRows,
    RunRows,
    SaveRows,
    StepRows,
    WaitRows,
    pack_event,
)
from perdure_storage.signing import Signer
from perdure_storage.sql_creation import RUN_COLUMNS, Creation
from perdure_storage.sql_histories import Histories

_UNPACKABLE = (ValueError, TypeError, OverflowError)


class _IdTaken(PerdureError):
    """Undoes the import of a run whose id was taken meanwhile. Internal."""


class Imports:
    """Whole runs of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time for the event that tells of an import.
        signer: signs and checks rows, or None.
        creation: writes plans and references.
    """

    def __init__(
        self, database: Database, clock: Clock, signer: Signer | None, creation: Creation
    ) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock
        self._creation = creation
        self._histories = Histories(database, signer)
        self._runs = RunRows(signer)
        self._plans = PlanRows(signer)
        self._steps = StepRows(signer)
        self._attempts = AttemptRows(signer)
        self._expansions = ExpansionRows(signer)
        self._waits = WaitRows(signer)
        self._saves = SaveRows(signer)
        self._messages = MessageRows(signer)

    # --- out ---------------------------------------------------------------------------------
    def whole_run(self, run_id: RunId) -> WholeRun:
        """Return every row of a run, as ``RunStore.whole_run`` says."""
        return self._database.read(lambda transaction: self._whole(transaction, run_id))

    def _whole(self, transaction: Transaction, run_id: RunId) -> WholeRun:
        statements = self._statements
        row = transaction.row(statements.find_run, run_id=run_id)
        if row is None:
            raise RunNotFound(run_id, self._database.url)
        digests = sorted(
            each[0] for each in transaction.rows(statements.plans_of_run, run_id=run_id)
        )
        plans = [transaction.row(statements.get_plan, digest=digest) for digest in digests]
        messages = transaction.rows(statements.messages_of_run, of_run=run_id)
        return WholeRun(
            run=self._runs.unpack(row),
            plans=tuple(self._plans.unpack(plan) for plan in plans if plan is not None),
            history=self._histories.within(transaction, [run_id])[run_id],
            messages=tuple(self._messages.unpack(message) for message in messages),
        )

    # --- in ----------------------------------------------------------------------------------
    def import_run(self, whole: WholeRun, told: Mapping[str, Any]) -> RunRecord | None:
        """Insert a run with all its rows, as ``RunStore.import_run`` says."""
        guards.require_whole(whole)
        run = guards.as_imported(whole.run)
        event = EventRecord(
            kind=guards.IMPORTED, at=self._clock.now(), detail=dict(told), seq=run.seq
        )
        crash_point("import.before")
        try:
            self._database.write(lambda t: self._import(t, run, whole, event))
        except _IdTaken:
            return None
        except (RowRefused, *_UNPACKABLE) as error:
            raise StoreError(f"run {run.id!r} cannot be imported: {error}") from error
        crash_point("import.after")
        return run

    def _import(
        self, transaction: Transaction, run: RunRecord, whole: WholeRun, told: EventRecord
    ) -> None:
        statements, creation = self._statements, self._creation
        if whole.messages and statements.order_messages is not None:
            transaction.row(statements.order_messages)  # as who sends: before any row is locked
        if transaction.row(statements.find_tombstone, run_id=run.id) is not None:
            raise _IdTaken(run.id)
        creation.refuse_condemned(transaction, run.id, guards.blobs_of_whole(whole))
        for plan in sorted(whole.plans, key=lambda plan: plan.digest):
            creation.put_plan(transaction, plan)
        columns = dict(zip(RUN_COLUMNS, self._runs.pack(run), strict=True))
        if transaction.row(statements.insert_run, **columns) is None:
            raise _IdTaken(run.id)
        creation.refer(transaction, "run", run.id, guards.blobs_of_inputs(run))
        refs = [(run.id, plan.digest) for plan in whole.plans]
        transaction.insert(statements.insert_plan_ref, refs)
        numbers = self._insert_messages(transaction, whole)
        self._insert_rows(transaction, whole, guards.imported_waits(whole, numbers))
        events = guards.imported_events(whole, numbers, told)
        packed = [pack_event(run.id, event.seq, event) for event in events]
        transaction.insert(statements.insert_event, packed)
        self._database.announce(transaction)
        crash_point("import.in-transaction")

    def _insert_messages(self, transaction: Transaction, whole: WholeRun) -> dict[int, int]:
        """Insert the messages one by one; return their numbers here by those that they had."""
        statements, numbers = self._statements, {}
        for message in whole.messages:
            mine = guards.imported_message(message, whole.run.id)
            row = self._messages.named(self._messages.pack(mine))
            made = transaction.row(statements.insert_message, **row)
            assert made is not None
            numbers[message.id] = int(made[0])
            blobs = guards.blobs_of_value(mine.value)
            self._creation.refer(transaction, "message", str(made[0]), blobs)
        return numbers

    def _insert_rows(
        self, transaction: Transaction, whole: WholeRun, waits: list[WaitRecord]
    ) -> None:
        statements, history = self._statements, whole.history
        steps = [self._steps.pack(step) for step in history.steps]
        for row, step in zip(steps, history.steps, strict=True):
            row[SEQ] = step.seq
        transaction.insert(statements.insert_step, steps)
        attempts = [self._attempts.pack(attempt) for attempt in history.attempts]
        transaction.insert(statements.put_attempt, attempts)
        expansions = [self._expansions.pack(expansion) for expansion in history.expansions]
        transaction.insert(statements.insert_expansion, expansions)
        transaction.insert(statements.insert_wait, [self._waits.pack(wait) for wait in waits])
        saves = [self._saves.pack(save) for save in history.saves]
        transaction.insert(statements.insert_save, saves)
        transaction.insert(statements.insert_blob_ref, list(_references(whole)))


def _references(whole: WholeRun) -> Iterator[tuple[str, RunId, str, int, Digest]]:
    """Yield which blobs the rows of steps refer to, each as a row of ``blob_ref``."""
    run_id, history = whole.run.id, whole.history
    for step in history.steps:
        if step.status is not StepStatus.LOST:
            for digest in dict.fromkeys(guards.blobs_of_step(step)):
                yield "step", run_id, step.step_id, step.generation, digest
    for wait in history.waits:
        for digest in _distinct(wait.default):
            yield "step", run_id, wait.step_id, wait.generation, digest
    for save in history.saves:
        for digest in _distinct(save.value):
            yield "save", run_id, save.step_id, save.number, digest


def _distinct(value: StoredValue | None) -> dict[Digest, None]:
    return dict.fromkeys(guards.blobs_of_value(value))
