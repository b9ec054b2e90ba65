"""Runs taken and given back in a SQL database: one transaction for as many as there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, Transaction
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import BuiltPlan, EventRecord, Owner, Release, RunId, RunRecord
from perdure_storage.rows import RunRows, pack_event, pack_owner, to_us
from perdure_storage.signing import Signer
from perdure_storage.sql_creation import RUN_COLUMNS, Creation
from perdure_storage.sql_messages import Messages
from perdure_storage.sql_queues import SqlQueueStore
from perdure_storage.statement import Statement


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Who takes runs, and what it knows of them, as ``RunStore.claim_runs`` says."""

    owner: Owner
    seen_dead: Collection[str]
    epochs: Mapping[RunId, int]
    built: Mapping[RunId, BuiltPlan]

    def may_take(self, run: RunRecord) -> bool:
        """Say whether a run is free, as it was seen, and has its plan or gets it with this."""
        if run.status in RUN_TERMINAL or self.epochs.get(run.id, run.epoch) != run.epoch:
            return False
        is_free = not run.lease_live or guards.token_of(run) in self.seen_dead
        return is_free and (run.plan_digest is not None or run.id in self.built)


class Claims:
    """Who holds the runs of one database.

    Args:
        database: SQLite or PostgreSQL.
        clock: wall time.
        signer: checks rows, or None.
        messages: of the same database.
        creation: writes plans that are built with a claim.
        queues: of the same database.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        signer: Signer | None,
        messages: Messages,
        creation: Creation,
        queues: SqlQueueStore,
    ) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock
        self._runs = RunRows(signer)
        self._messages = messages
        self._creation = creation
        self._queues = queues

    def claim_run(self, run_id: RunId, claim: Claim) -> RunRecord | None:
        """Take one run, as ``RunStore.claim_run`` says."""
        crash_point("claim.before")
        runs = self._database.write(lambda t: self._claim_run(t, run_id, claim))
        crash_point("claim.after")
        return runs[0] if runs else None

    def claim_runs(self, run_ids: Collection[RunId], claim: Claim) -> list[RunRecord]:
        """Take runs, as ``RunStore.claim_runs`` says."""
        crash_point("claim.before")
        runs = self._database.write(lambda t: self._claim_runs(t, run_ids, claim))
        crash_point("claim.after")
        return runs

    def _claim_run(self, transaction: Transaction, run_id: RunId, claim: Claim) -> list[RunRecord]:
        if self._statements.lock_run is not None:
            transaction.row(self._statements.lock_run, run_id=run_id)
        return self._claim_locked(transaction, [run_id], claim)

    def _claim_runs(
        self, transaction: Transaction, run_ids: Collection[RunId], claim: Claim
    ) -> list[RunRecord]:
        lock = self._statements.lock_free_runs
        if lock is not None:
            listed = self._statements.id_list(list(run_ids))
            run_ids = [row[0] for row in transaction.rows(lock, ids=listed)]
        return self._claim_locked(transaction, run_ids, claim)

    def _claim_locked(
        self, transaction: Transaction, run_ids: Collection[RunId], claim: Claim
    ) -> list[RunRecord]:
        free = [run for run in self._find(transaction, run_ids) if claim.may_take(run)]
        free = self._queues.admit(transaction, free)
        for run in free:
            if run.plan_digest is None:
                self._build(transaction, run, claim.built[run.id])
        take, owner = self._statements.update_run(*CLAIMING), claim.owner
        transaction.insert(take, [self._claimed(take, run, owner) for run in free])
        transaction.insert(self._statements.insert_event, [self._told(run, owner) for run in free])
        # Read again, because the database judges whether the lease of the new owner stands.
        return self._find(transaction, [run.id for run in free])

    def _build(self, transaction: Transaction, run: RunRecord, built: BuiltPlan) -> None:
        """Give a run the plan that was built for it, and the inputs that come with that."""
        self._creation.refuse_condemned(transaction, run.id, guards.blobs_of_built(built))
        self._creation.put_plan(transaction, built.plan)
        transaction.insert(self._statements.insert_plan_ref, [(run.id, built.plan.digest)])
        planned = guards.with_plan(run, built)
        self._creation.refer(transaction, "run", run.id, guards.blobs_of_inputs(planned))
        # Plan and inputs are under the run's signature.
        row = dict(zip(RUN_COLUMNS, self._runs.pack(planned), strict=True))
        given = {name: row[name] for name in BUILDING}
        transaction.run(self._statements.update_run(*BUILDING), run_id=run.id, **given)

    def _find(self, transaction: Transaction, run_ids: Collection[RunId]) -> list[RunRecord]:
        listed = self._statements.id_list(list(run_ids))
        rows = transaction.rows(self._statements.find_runs, ids=listed) if run_ids else []
        return [self._runs.unpack(row) for row in rows]

    def _claimed(self, take: Statement, old: RunRecord, owner: Owner) -> tuple[object, ...]:
        return take.arguments(
            {
                "run_id": old.id,
                "status": guards.status_after_claim(old).value,
                "owner": pack_owner(owner),
                "owner_token": owner.token,
                "epoch": old.epoch + 1,
                "takeovers": old.takeovers + guards.is_takeover(old, owner),
                "started_at_us": to_us(old.started_at or self._clock.now()),
                "seq": old.seq + 1,
            }
        )

    def _told(self, old: RunRecord, owner: Owner) -> list[object]:
        kind, detail = guards.claim_event(old, owner)
        event = EventRecord(kind=kind, at=self._clock.now(), detail=detail)
        return pack_event(old.id, old.seq + 1, event)

    def release_runs(self, releases: Sequence[Release]) -> list[RunId]:
        """Give runs back, as ``RunStore.release_runs`` says."""
        for release in releases:
            guards.require_releasable(release.run.id, release.to)
        crash_point("release.before")
        done = self._database.write(lambda t: self._release(t, releases))
        crash_point("release.after")
        return done

    def _release(self, transaction: Transaction, releases: Sequence[Release]) -> list[RunId]:
        if any(release.to is RunStatus.WAITING for release in releases):
            self._messages.hold(transaction)
        held = self._held(transaction, releases)
        unheard = self._unheard(transaction, held)
        give = self._statements.update_run(*RELEASING)
        transaction.insert(give, [self._given(give, each, unheard) for each in held])
        self._database.announce(transaction)
        return [release.run.id for release in held]

    def _held(self, transaction: Transaction, releases: Sequence[Release]) -> list[Release]:
        """Lock the runs in the order of their ids; return what their owner still holds."""
        listed = self._statements.id_list([release.run.id for release in releases])
        rows = transaction.rows(self._statements.lock_run_states, ids=listed)
        states = {row[0]: row[1:4] for row in rows}
        return [each for each in releases if _is_held(each.run, states.get(each.run.id))]

    def _unheard(self, transaction: Transaction, releases: list[Release]) -> set[RunId]:
        """Return the runs for which a message is there that their owner has not looked at."""
        waiting = {r.run.id: r.heard for r in releases if r.to is RunStatus.WAITING}
        candidates = self._messages.may_be_unheard(transaction, waiting)
        return {
            run_id
            for run_id in candidates
            if self._messages.is_unheard(transaction, run_id, waiting[run_id])
        }

    def _given(
        self, give: Statement, release: Release, unheard: Collection[RunId]
    ) -> tuple[object, ...]:
        wake_at = self._clock.now() if release.run.id in unheard else release.wake_at
        return give.arguments(
            {
                "run_id": release.run.id,
                "status": release.to.value,
                "wake_at_us": to_us(wake_at),
                "owner": None,
                "owner_token": None,
            }
        )


def _is_held(run: RunRecord, state: tuple[str, str | None, int] | None) -> bool:
    if state is None:
        return False
    status, token, epoch = state
    return guards.is_held_as(run, RunStatus(status), token, epoch)


CLAIMING = ("status", "owner", "owner_token", "epoch", "takeovers", "started_at_us", "seq")
BUILDING = ("plan_digest", "inputs", "inputs_digest", "mac")
RELEASING = ("status", "wake_at_us", "owner", "owner_token")
