"""Making runs in a SQL database, and what every change of one may write: plans, references, events.

Each function works in a transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, Transaction
from perdure_storage.errors import BlobsCondemned
from perdure_storage.records import Digest, EventRecord, PlanRecord, RunId, RunRecord
from perdure_storage.rows import PlanRows, RunRows, pack_event
from perdure_storage.signing import Signer
from perdure_storage.sql_commits import find_condemned
from perdure_storage.written_out import WRITTEN

RUN_COLUMNS = WRITTEN.columns["run"]


class Creation:
    """What the transactions of one database that make or change a run have in common."""

    def __init__(self, database: Database, clock: Clock, signer: Signer | None) -> None:
        self._database = database
        self._statements = database.statements
        self._clock = clock
        self._runs = RunRows(signer)
        self._plans = PlanRows(signer)

    def create(self, transaction: Transaction, run: RunRecord, plan: PlanRecord | None) -> bool:
        """Make a run, claimed if it has an owner; return False if its id is taken.

        A plan that is given may be there by then, without anything that refers to it: who gets
        False has to undo the transaction, or give none.
        """
        looks = (self._statements.find_tombstone, self._statements.find_run)
        if any(transaction.row(look, run_id=run.id) is not None for look in looks):
            return False
        self.refuse_duplicate(transaction, run)
        others = [other for other in (run.parent, run.reuse_from) if other is not None]
        if others:
            ids = self._statements.id_list(others)
            transaction.rows(self._statements.share_runs, ids=ids)
        blobs = guards.blobs_of_inputs(run)
        of_plan = () if plan is None else plan.blobs
        self.refuse_condemned(transaction, run.id, (*of_plan, *blobs))
        if plan is not None:
            self.put_plan(transaction, plan)
        columns = dict(zip(RUN_COLUMNS, self._runs.pack(run), strict=True))
        if transaction.row(self._statements.insert_run, **columns) is None:
            self.refuse_duplicate(transaction, run)
            return False  # somebody was faster, between the look and the insert
        self.refer(transaction, "run", run.id, blobs)
        if run.plan_digest is not None:
            transaction.insert(self._statements.insert_plan_ref, [(run.id, run.plan_digest)])
        self.tell(transaction, run.id, 1, "submitted")
        if run.owner is not None:
            self.tell(transaction, run.id, 2, *guards.claim_event(guards.fresh(run), run.owner))
        return True

    def refuse_duplicate(self, transaction: Transaction, run: RunRecord) -> None:
        """Raise DuplicateRun if another live run of its queue has its deduplication key."""
        if run.dedup_key is None:
            return
        given = {"of_queue": run.queue, "of_dedup_key": run.dedup_key}
        other = transaction.row(self._statements.find_only_one, **given)
        if other is not None and other[0] != run.id:
            raise guards.already_there(run, other[0])

    def put_plan(self, transaction: Transaction, plan: PlanRecord) -> None:
        """Write a plan with its references, unless it is there."""
        transaction.insert(self._statements.insert_plan, [self._plans.pack(plan)])
        self.refer(transaction, "plan", plan.digest, plan.blobs)

    def drop_unused(self, transaction: Transaction, plans: Sequence[Digest]) -> None:
        """Remove the plans that nothing has; they are locked first, and only then looked at."""
        statements = self._statements
        listed = statements.id_list(plans)
        transaction.rows(statements.lock_plans, ids=listed)
        used = {row[0] for row in transaction.rows(statements.plans_in_use, ids=listed)}
        unused = statements.id_list([digest for digest in plans if digest not in used])
        transaction.run(statements.delete_plan_blobs, ids=unused)
        transaction.run(statements.delete_plans, ids=unused)

    def tell(
        self,
        transaction: Transaction,
        run_id: RunId,
        seq: int,
        kind: str,
        detail: dict[str, object] | None = None,
    ) -> None:
        """Write an event of a run's story."""
        event = EventRecord(kind=kind, at=self._clock.now(), detail=detail or {})
        transaction.insert(self._statements.insert_event, [pack_event(run_id, seq, event)])

    def refer(
        self, transaction: Transaction, holder: str, holder_id: str, blobs: Iterable[Digest]
    ) -> None:
        """Keep blobs for a holder."""
        rows = [(holder, holder_id, "", 0, digest) for digest in dict.fromkeys(blobs)]
        transaction.insert(self._statements.insert_blob_ref, rows)

    def refuse_condemned(
        self, transaction: Transaction, run_id: RunId, blobs: Iterable[Digest]
    ) -> None:
        """Raise BlobsCondemned if gc is taking one of them."""
        taken = find_condemned(self._database, transaction, set(blobs))
        if taken:
            refusal = guards.condemned(run_id, taken)
            raise BlobsCondemned(refusal.message, digests=refusal.digests)
