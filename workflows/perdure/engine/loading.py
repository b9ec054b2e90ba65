"""Taking a run on: the claim, and its state from the rows of the store."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.calls import CallContext
from perdure.engine.fleet import Fleet
from perdure.engine.growth import rows_of_graphs
from perdure.engine.matching import Matching, match_rows
from perdure.engine.ownership import is_neighbour, is_seen_dead
from perdure.engine.placement import shortage
from perdure.engine.restore import CAREFUL_TAKEOVERS, load_run
from perdure.engine.salvage import lose_damaged_values
from perdure.engine.state import RunState
from perdure.executors.process_tree import kill_processes
from perdure.fingerprint import fingerprints
from perdure.plan import Function, Plan, decode_plan
from perdure_storage.clock import Clock
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.protocols import BlobStore, RunStore
from perdure_storage.records import (
    Cause,
    Digest,
    ErrorRecord,
    Owner,
    RunEnd,
    RunId,
    RunRecord,
    StepRecord,
)


class Loader:
    """Claims runs for one coordinator and builds their states."""

    def __init__(
        self,
        store: RunStore,
        blobs: BlobStore,
        owner: Owner,
        clock: Clock,
        fleet: Fleet,
        default_executor: str,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._owner = owner
        self._clock = clock
        self._fleet = fleet
        self._default_executor = default_executor

    def claim(self, run_id: RunId) -> RunRecord | None:
        """Take the run if nobody alive drives it.

        A dead owner's workers are killed first; those of a silent one on this host, stopped
        perhaps, once its runs are no longer its own: no two attempts of a step overlap.
        """
        record = self._store.find_run(run_id)
        if record is None or record.status not in RUN_LIVE:
            return None
        owner, seen_dead = record.owner, None
        if owner is not None:
            if owner.token == self._owner.token:
                seen_dead = owner.token  # ours, thrown away in memory: load it again
            elif is_seen_dead(owner):
                seen_dead = owner.token
                kill_processes(self._store.workers_of(seen_dead))
            elif record.lease_live:
                return None
        claimed = self._store.claim_run(run_id, self._owner, seen_dead=seen_dead)
        if claimed is not None and owner is not None and seen_dead is None and is_neighbour(owner):
            kill_processes(self._store.workers_of(owner.token))
        return claimed

    def load(self, record: RunRecord) -> tuple[RunState, list[Digest]]:
        """Build the state of a claimed run, and make it known to its executor.

        Returns:
            The state, and the damaged blobs to quarantine before anything is rebuilt.
        """
        plan = self._plan(record.plan_digest)
        prints = fingerprints(plan, record.inputs)
        rows = self._store.list_steps(record.id, current_only=False)
        expansions = self._store.list_expansions(record.id) if record.epoch > 1 else []
        rows, grown = rows_of_graphs(rows, expansions)
        now = self._clock.now()
        own = match_rows(
            plan,
            prints,
            rows,
            keep_changed=record.policy.on_change == "reuse",
            old_functions=self._functions_before(record),
        )
        donated, donated_grown = self._donated(record, plan, prints)
        run = load_run(
            record,
            plan,
            prints,
            rows=rows,
            attempts=self._store.list_attempts(record.id),
            own=own,
            donated=donated,
            expansions=expansions,
            grown=grown,
            donated_grown=donated_grown,
            now=now,
        )
        run.executor = self._executor_name(record)
        self._open(run)
        is_fresh = record.epoch == 1 and record.reuse_from is None
        return run, [] if is_fresh else lose_damaged_values(run, self._blobs, now)

    def _executor_name(self, record: RunRecord) -> str:
        name = record.policy.executor or self._default_executor
        # What kills its owner is kept out of this process.
        return "processes" if record.takeovers >= CAREFUL_TAKEOVERS else name

    def _open(self, run: RunState) -> None:
        executor = self._fleet.get(run.executor)
        for step in run.steps.values():
            if (missing := shortage(step.options, executor.capacity)) is not None:
                run.ending = failed_end("perdure.errors.DefinitionError", f"{step.id}: {missing}")
                break
        plan = run.plan
        functions = dict(plan.functions)
        constants = dict(enumerate(plan.constants))
        for extension in run.extensions:
            functions.update(extension.functions)
            constants.update(extension.constants)
        executor.open_run(
            CallContext(
                run_id=run.id,
                blobs_url=self._blobs.url,
                store_id=self._store.store_id,
                functions=functions,
                constants=constants,
                bundle=Digest(plan.bundle) if plan.bundle else None,
                bundle_size=plan.bundle_size,
            )
        )

    def _donated(
        self, record: RunRecord, plan: Plan, prints: Mapping[str, str]
    ) -> tuple[Matching | None, dict[str, list[StepRecord]]]:
        """Return how rows of the run that this one reuses hold; those of its graphs by name."""
        donor = self._store.find_run(record.reuse_from) if record.reuse_from else None
        if donor is None:
            return None, {}
        rows, grown = rows_of_graphs(
            self._store.list_steps(donor.id), self._store.list_expansions(donor.id)
        )
        functions = self._functions(donor.plan_digest)
        by_name: dict[str, list[StepRecord]] = {}
        for row in (row for rows_of_root in grown.values() for row in rows_of_root):
            by_name.setdefault(row.name, []).append(row)
        return match_rows(plan, prints, rows, old_functions=functions), by_name

    def _functions_before(self, record: RunRecord) -> dict[str, Function]:
        if record.epoch == 0 or not record.seq:
            return {}
        before = (
            event.detail["plan_before"]
            for event in reversed(self._store.list_events(record.id))
            if event.detail.get("plan_before")
        )
        digest = next(before, None)
        return self._functions(digest) if digest else {}

    def _functions(self, plan_digest: str) -> dict[str, Function]:
        plan = self._plan(plan_digest)
        return {function.counts_as: function for function in plan.functions.values()}

    def _plan(self, digest: str) -> Plan:
        return decode_plan(self._store.get_plan(Digest(digest)).body)


def failed_end(kind: str, message: str) -> RunEnd:
    """Return the end of a run that failed for a reason outside of any step."""
    error = ErrorRecord(type=kind, message=message, cause=Cause.ENGINE_ERROR)
    return RunEnd(status=RunStatus.FAILED, error=error)
