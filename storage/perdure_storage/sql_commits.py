"""The commit of a batch of checkpoints: guarded per run, written by table, in one transaction.

The common way writes every table once for the whole batch. If the database refuses a row of it,
the transaction is undone and the batch goes the careful way: run by run, and within a run by
halves, until the refused rows are found and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, Row, RowRefused, Transaction
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import (
    CommitReport,
    Delivery,
    Digest,
    EventRecord,
    Refusal,
    RunCommit,
    RunId,
    StepId,
    StepKey,
)
from perdure_storage.rows import (
    SEQ,
    AttemptRows,
    ExpansionRows,
    RunRows,
    StepRows,
    WaitRows,
    pack_event,
    to_us,
)
from perdure_storage.signing import KeyNames, Signer


@dataclass(slots=True)
class _Part:
    """One run's part of a batch, as rows; what its transaction finds out is filled in there."""

    commit: RunCommit
    signed_under: KeyNames | None = None
    steps: list[list[Any]] = field(default_factory=list)
    attempts: list[list[Any]] = field(default_factory=list)
    expansions: list[list[Any]] = field(default_factory=list)
    plans: list[list[Any]] = field(default_factory=list)
    waits: list[list[Any]] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)
    bad: list[StepId] = field(default_factory=list)
    why_not: str = ""
    seq: int = 0
    takeovers: int = 0

    @property
    def is_packed(self) -> bool:
        """Say whether all of it became rows."""
        return not self.bad and not self.why_not


@dataclass(slots=True)
class _Outcome:
    committed: dict[RunId, int] = field(default_factory=dict)
    refused: dict[RunId, Refusal] = field(default_factory=dict)


class Commits:
    """Commits batches into one database."""

    def __init__(self, database: Database, clock: Clock, signer: Signer | None) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock
        self._signer = signer
        self._steps = StepRows(signer)
        self._attempts = AttemptRows(signer)
        self._expansions = ExpansionRows(signer)
        self._waits = WaitRows(signer)
        self._runs = RunRows(signer)

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        """Make a batch true, as ``RunStore.commit`` says."""
        guards.require_distinct(batch)
        _pass(batch, "before")
        outcome = self._committed(batch) if batch else _Outcome()
        _pass(batch, "after")
        return CommitReport(committed=outcome.committed, refused=outcome.refused)

    def _committed(self, batch: Sequence[RunCommit]) -> _Outcome:
        while True:
            parts = [self._pack(commit) for commit in batch]
            try:
                return self._write(parts)
            except _KeyMoved:
                continue  # all of it is signed anew

    def _names(self) -> KeyNames | None:
        return None if self._signer is None else self._signer.names

    def _require_same_key(self, parts: list[_Part]) -> None:
        """Raise _KeyMoved if rows that were packed before the transaction have an older key."""
        if any(part.signed_under != self._names() for part in parts):
            raise _KeyMoved

    def _write(self, parts: list[_Part]) -> _Outcome:
        """Try the ways from the fastest to the one that says exactly what is wrong."""
        if not all(part.is_packed for part in parts):
            return self._database.write(lambda transaction: self._carefully(transaction, parts))
        try:
            if len(parts) == 1 and parts[0].commit.end is None:
                return self._database.write_ahead(
                    lambda transaction: self._alone(transaction, parts[0])
                )
            return self._database.write_ahead(lambda transaction: self._at_once(transaction, parts))
        except _GuardFailed:
            return self._database.write_ahead(lambda transaction: self._at_once(transaction, parts))
        except RowRefused:
            return self._database.write(lambda transaction: self._carefully(transaction, parts))

    # --- packing, before any lock is held -----------------------------------------------------
    def _pack(self, commit: RunCommit) -> _Part:
        part = _Part(commit, self._names())
        pack = self._steps.pack
        for step in commit.steps:
            try:
                part.steps.append(pack(step))
            except _UNPACKABLE:
                part.bad.append(step.step_id)
            part.blobs.update(guards.blobs_of_step(step))
        try:
            part.attempts += [self._attempts.pack(attempt) for attempt in commit.attempts]
            for expansion in commit.expansions:
                part.plans.append(self._expansions.pack_plan(expansion))
                part.expansions.append(self._expansions.pack(expansion))
                part.blobs.update(expansion.plan.blobs)
            for wait in commit.waits:
                part.waits.append(self._waits.pack(wait))
                part.blobs.update(guards.blobs_of_value(wait.default))
        except _UNPACKABLE as error:
            part.why_not = str(error)
        return part

    # --- a batch of one run ------------------------------------------------------------------
    def _alone(self, transaction: Transaction, part: _Part) -> _Outcome:
        """Commit one run's part in as few statements as there are: a chain pays them each step.

        Raises _GuardFailed if the part must not land as it is; the common way then says why.
        """
        self._require_same_key([part])
        statements = self._statements
        commit = part.commit
        moved = transaction.row(
            statements.advance_run(with_steps=bool(part.steps)),
            run_id=commit.run_id,
            owner=commit.owner,
            of_epoch=commit.epoch,
            rows=len(part.steps) + len(commit.events),
            wake_at=to_us(commit.wake_at),
        )
        if moved is None:
            raise _GuardFailed
        if part.blobs and find_condemned(self._database, transaction, part.blobs):
            raise _GuardFailed
        newest: int = moved[0]
        part.seq = newest - len(part.steps) - len(commit.events)
        outcome = _Outcome({commit.run_id: newest})
        self._retire(transaction, part)
        self._insert(transaction, [part], outcome)
        crash_point("commit.in-transaction")
        return outcome

    # --- the common way ----------------------------------------------------------------------
    def _at_once(self, transaction: Transaction, parts: list[_Part]) -> _Outcome:
        self._require_same_key(parts)
        outcome = _Outcome()
        self._land(transaction, self._accepted(transaction, parts, outcome), outcome)
        crash_point("commit.in-transaction")
        return outcome

    def _land(self, transaction: Transaction, parts: list[_Part], outcome: _Outcome) -> None:
        for part in parts:
            self._retire(transaction, part)
            outcome.committed[part.commit.run_id] = _newest(part)
        self._insert(transaction, parts, outcome)
        self._advance(transaction, parts, outcome)

    def _accepted(
        self, transaction: Transaction, parts: list[_Part], outcome: _Outcome
    ) -> list[_Part]:
        """Lock the runs in the order of their ids; return the parts whose guards hold."""
        states = self._states(transaction, [part.commit.run_id for part in parts])
        accepted = []
        for part in parts:
            refusal = _refusal(part, states.get(part.commit.run_id))
            if refusal is None:
                accepted.append(part)
            else:
                outcome.refused[part.commit.run_id] = refusal
        return self._uncondemned(transaction, accepted, outcome)

    def _states(self, transaction: Transaction, ids: list[RunId]) -> dict[RunId, Row]:
        listed = self._statements.id_list(ids)
        return {
            row[0]: row for row in transaction.rows(self._statements.lock_run_states, ids=listed)
        }

    def _uncondemned(
        self, transaction: Transaction, parts: list[_Part], outcome: _Outcome
    ) -> list[_Part]:
        blobs = {digest for part in parts for digest in part.blobs}
        if not blobs:
            return parts
        taken = find_condemned(self._database, transaction, blobs)
        if not taken:
            return parts
        for part in parts:
            mine = taken.intersection(part.blobs)
            if mine:
                outcome.refused[part.commit.run_id] = guards.condemned(part.commit.run_id, mine)
        return [part for part in parts if taken.isdisjoint(part.blobs)]

    def _retire(self, transaction: Transaction, part: _Part) -> None:
        """Take rows out of force. Raises RowRefused if one is not in force."""
        for key in part.commit.lost:
            self._retire_one(transaction, part, key, self._statements.lose_step)
        for key in part.commit.superseded:
            self._retire_one(transaction, part, key, self._statements.supersede_step)

    def _retire_one(
        self, transaction: Transaction, part: _Part, key: StepKey, statement: Any
    ) -> None:
        done = transaction.row(
            statement,
            of_run=part.commit.run_id,
            of_step=key.step_id,
            of_generation=key.generation,
        )
        if done is None:
            raise RowRefused(f"step {key.step_id!r} (generation {key.generation}) is not current")

    def _insert(self, transaction: Transaction, parts: list[_Part], outcome: _Outcome) -> None:
        statements = self._statements
        for part in parts:
            for seq, row in enumerate(part.steps, part.seq + 1):
                row[SEQ] = seq
        transaction.insert(statements.insert_step, [row for part in parts for row in part.steps])
        transaction.insert(statements.put_attempt, [row for part in parts for row in part.attempts])
        transaction.insert(statements.insert_event, self._events(parts, outcome))
        self._insert_expansions(transaction, parts)
        transaction.insert(statements.insert_wait, [row for part in parts for row in part.waits])
        for part in parts:
            for delivery in part.commit.deliveries:
                self._deliver(transaction, part.commit.run_id, delivery)
        for part in parts:
            for step_id in part.commit.spent:
                for statement in statements.delete_saves_of_step:
                    transaction.run(statement, of_run=part.commit.run_id, of_step=step_id)
        transaction.insert(
            statements.insert_blob_ref,
            [ref for part in parts if part.blobs for ref in _refs(part)],
        )

    def _insert_expansions(self, transaction: Transaction, parts: list[_Part]) -> None:
        """Insert the graphs that steps gave; in the order of plans, which other runs may share."""
        if not any(part.expansions for part in parts):
            return
        statements = self._statements
        plans = {row[0]: row for part in parts for row in part.plans}
        transaction.insert(statements.insert_plan, [plans[digest] for digest in sorted(plans)])
        transaction.insert(
            statements.insert_plan_ref,
            [(part.commit.run_id, row[0]) for part in parts for row in part.plans],
        )
        transaction.insert(
            statements.insert_expansion, [row for part in parts for row in part.expansions]
        )

    def _deliver(self, transaction: Transaction, run_id: RunId, delivery: Delivery) -> None:
        """End a wait by a message. Raises RowRefused if it is not open."""
        done = transaction.row(
            self._statements.deliver,
            of_run=run_id,
            of_step=delivery.step_id,
            of_generation=delivery.generation,
            new_message=delivery.message,
        )
        if done is None:
            raise RowRefused(f"step {delivery.step_id!r} waits for no message")

    def _events(self, parts: list[_Part], outcome: _Outcome) -> list[list[Any]]:
        rows = []
        for part in parts:
            run_id, end = part.commit.run_id, part.commit.end
            first = part.seq + len(part.steps) + 1
            rows += [pack_event(run_id, n, e) for n, e in enumerate(part.commit.events, first)]
            if end is not None:
                told = EventRecord(kind=end.status.lower(), at=self._clock.now())
                rows.append(pack_event(run_id, outcome.committed[run_id], told))
        return rows

    def _advance(self, transaction: Transaction, parts: list[_Part], outcome: _Outcome) -> None:
        """Move the runs' counters on, and end those that end."""
        going = [part for part in parts if part.commit.end is None]
        transaction.insert(
            self._statements.update_run(*COUNTING),
            [_counters(part, outcome) for part in going],
        )
        ended = [part for part in parts if part.commit.end is not None]
        for part in ended:
            self._end(transaction, part, outcome)
        note_ends(self._database, transaction, [part.commit.run_id for part in ended])

    def _end(self, transaction: Transaction, part: _Part, outcome: _Outcome) -> None:
        run_id, end = part.commit.run_id, part.commit.end
        assert end is not None
        error, error_mac = self._runs.pack_error(run_id, end.error)
        takeovers, seq, wake_at, _ = _counters(part, outcome)
        transaction.run(
            self._statements.update_run(*ENDING),
            run_id=run_id,
            status=end.status.value,
            error=error,
            error_mac=error_mac,
            finished_at_us=to_us(self._clock.now()),
            owner=None,
            owner_token=None,
            takeovers=takeovers,
            seq=seq,
            wake_at_us=wake_at,
        )

    # --- the careful way ---------------------------------------------------------------------
    def _carefully(self, transaction: Transaction, parts: list[_Part]) -> _Outcome:
        self._require_same_key(parts)
        outcome = _Outcome()
        for part in self._accepted(transaction, parts, outcome):
            why_not = self._why_not(transaction, part, outcome)
            if why_not is not None:
                bad = self._find_bad(transaction, part)
                refusal = guards.rejected(part.commit.run_id, bad, "" if bad else why_not)
                outcome.refused[part.commit.run_id] = refusal
        crash_point("commit.in-transaction")
        return outcome

    def _why_not(self, transaction: Transaction, part: _Part, outcome: _Outcome) -> str | None:
        """Let one run's part land and return None, or undo it and return what was said."""
        if not part.is_packed:
            return part.why_not
        alone = _Outcome()
        try:
            with transaction.savepoint():
                self._land(transaction, [part], alone)
        except Exception as error:
            # The driver's own exceptions: only those that refuse a row are ours to settle.
            if not self._is_refusal(error):
                raise
            return str(error)
        outcome.committed.update(alone.committed)
        return None

    def _find_bad(self, transaction: Transaction, part: _Part) -> list[StepId]:
        """Return the steps whose rows are refused; everything that was tried is undone."""
        bad = list(part.bad)
        try:
            with transaction.savepoint():
                bad += self._bad_retirements(transaction, part)
                bad += self._bad_rows(transaction, part.steps)
                bad += self._bad_expansions(transaction, part)
                bad += self._bad_waits(transaction, part)
                raise _TriedOut
        except _TriedOut:
            return bad

    def _bad_retirements(self, transaction: Transaction, part: _Part) -> Iterable[StepId]:
        kinds = (
            (part.commit.lost, self._statements.lose_step),
            (part.commit.superseded, self._statements.supersede_step),
        )
        for keys, statement in kinds:
            for key in keys:
                try:
                    self._retire_one(transaction, part, key, statement)
                except RowRefused:
                    yield key.step_id

    def _bad_rows(self, transaction: Transaction, rows: list[list[Any]]) -> list[StepId]:
        """Halve until the refused rows are alone; rows that go in stay in for the rest."""
        if not rows:
            return []
        try:
            with transaction.savepoint():
                transaction.insert(self._statements.insert_step, rows)
        except Exception as error:
            if not self._is_refusal(error):
                raise
            if len(rows) == 1:
                return [rows[0][2]]
            middle = len(rows) // 2
            left = self._bad_rows(transaction, rows[:middle])
            return left + self._bad_rows(transaction, rows[middle:])
        return []

    def _bad_expansions(self, transaction: Transaction, part: _Part) -> Iterable[StepId]:
        for plan, expansion in zip(part.plans, part.expansions, strict=True):
            try:
                with transaction.savepoint():
                    transaction.insert(self._statements.insert_plan, [plan])
                    transaction.insert(self._statements.insert_expansion, [expansion])
            except Exception as error:
                if not self._is_refusal(error):
                    raise
                yield expansion[1]

    def _bad_waits(self, transaction: Transaction, part: _Part) -> Iterable[StepId]:
        for row in part.waits:
            try:
                with transaction.savepoint():
                    transaction.insert(self._statements.insert_wait, [row])
            except Exception as error:
                if not self._is_refusal(error):
                    raise
                yield row[1]
        for delivery in part.commit.deliveries:
            try:
                with transaction.savepoint():
                    self._deliver(transaction, part.commit.run_id, delivery)
            except Exception as error:
                if not self._is_refusal(error):
                    raise
                yield delivery.step_id

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, RowRefused) or self._database.is_refusal(error)


class _KeyMoved(Exception):
    """Undoes the commit of rows that were signed before another key took its key's place."""


class _GuardFailed(Exception):
    """Undoes the fastest way, which does not know why it failed."""


class _TriedOut(Exception):
    """Undoes a savepoint in which rows were only tried."""


_UNPACKABLE = (UnicodeEncodeError, ValueError, TypeError, OverflowError)
COUNTING = ("takeovers", "seq", "wake_at_us")
ENDING = (
    "status",
    "finished_at_us",
    "error",
    "error_mac",
    "owner",
    "owner_token",
    "takeovers",
    "seq",
    "wake_at_us",
)


def find_condemned(
    database: Database, transaction: Transaction, blobs: Iterable[Digest]
) -> set[Digest]:
    """Return which of ``blobs`` gc is taking; until the transaction ends it takes no more."""
    statements = database.statements
    wanted = sorted(blobs)
    if not wanted:
        return set()
    if statements.refer_to_blobs is not None:
        transaction.row(statements.refer_to_blobs)
    listed = statements.id_list(wanted)
    return {row[0] for row in transaction.rows(statements.find_condemned, ids=listed)}


def note_ends(database: Database, transaction: Transaction, run_ids: Sequence[RunId]) -> None:
    """Keep the ends of runs that this transaction has ended, if a trigger wants to know."""
    if run_ids:
        listed = database.statements.id_list(run_ids)
        transaction.run(database.statements.note_ends, ids=listed)


def _refusal(part: _Part, state: Row | None) -> Refusal | None:
    if state is None:
        return guards.gone(part.commit.run_id)
    _, status, owner, epoch, part.seq, part.takeovers = state
    return guards.refusal_of(part.commit, RunStatus(status), owner, epoch)


def _newest(part: _Part) -> int:
    """Return the run's sequence number once the part has landed."""
    commit = part.commit
    return part.seq + len(part.steps) + len(commit.events) + (commit.end is not None)


def _counters(part: _Part, outcome: _Outcome) -> tuple[int, int, int | None, RunId]:
    run_id = part.commit.run_id
    takeovers = 0 if part.steps else part.takeovers
    return takeovers, outcome.committed[run_id], to_us(part.commit.wake_at), run_id


def _refs(part: _Part) -> list[tuple[object, ...]]:
    of_steps = [
        ("step", step.run_id, step.step_id, step.generation, digest)
        for step in part.commit.steps
        for digest in guards.blobs_of_step(step)
    ]
    of_plans = [
        ("plan", expansion.plan.digest, "", 0, digest)
        for expansion in part.commit.expansions
        for digest in expansion.plan.blobs
    ]
    of_waits = [
        ("step", wait.run_id, wait.step_id, wait.generation, digest)
        for wait in part.commit.waits
        for digest in guards.blobs_of_value(wait.default)
    ]
    return [*of_steps, *of_plans, *of_waits]


def _pass(batch: Sequence[RunCommit], when: str) -> None:
    """Pass the crash points of a commit, and of what is in it."""
    crash_point(f"commit.{when}")
    for part in batch:
        if part.lost:
            crash_point(f"lost.{when}")
        if part.expansions:
            crash_point(f"expansion.{when}")
        if part.waits:
            crash_point(f"wait.{when}")
        if part.deliveries:
            crash_point(f"deliver.{when}")
        if part.end is not None:
            crash_point(f"terminal.{when}")
