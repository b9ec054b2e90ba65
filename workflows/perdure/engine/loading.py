"""Taking a run on: the claim, and its state from the rows of the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

from perdure.calls import CallContext
from perdure.engine.edits import Edits, noted_changes
from perdure.engine.fleet import Fleet
from perdure.engine.growth import rows_of_graphs
from perdure.engine.matching import match_rows
from perdure.engine.ownership import is_neighbour, is_seen_dead
from perdure.engine.placement import shortage
from perdure.engine.restore import CAREFUL_TAKEOVERS, load_run
from perdure.engine.salvage import lose_damaged_values
from perdure.engine.state import RunState
from perdure.engine.takeover import match_donor
from perdure.executors.process_tree import kill_processes
from perdure.executors.protocol import Capacity
from perdure.fingerprint import fingerprints
from perdure.interactive import note_cells
from perdure.plan import (
    Function,
    Plan,
    decode_plan,
    functions_by_code,
    options_in,
    placed,
    request_of,
)
from perdure_storage.blobs import BlobRoot
from perdure_storage.clock import Clock
from perdure_storage.errors import BlobsCondemned, PerdureError, StoreError, StoreUnavailable
from perdure_storage.garbage import all_stays
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.protocols import BlobStore, RunStore
from perdure_storage.records import (
    AttemptRecord,
    BuiltPlan,
    Cause,
    Digest,
    ErrorRecord,
    EventRecord,
    ExpansionRecord,
    History,
    Owner,
    RunEnd,
    RunId,
    RunRecord,
    SaveRecord,
    StepRecord,
    WaitRecord,
)

log = logging.getLogger(__name__)

MAX_DONORS = 20
"""How many runs back the items of a map are looked for, if it was taken over whole each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is there of a run before it goes on, and of the run that it takes over from.

    Attributes:
        rows: every step row of the run, history included.
        attempts: every attempt of it.
        functions: of the plan that it had before an edit, by code digest.
        donor_rows: rows of the plan of ``reuse_from`` that count; None if there is no such run.
        donor_functions: of that run's plan, by code digest.
        expansions: the graphs that steps of the run gave in place of their values.
        donor_expansions: those of that run's steps.
        donor_graphs: rows of the steps of such graphs of that run, and of the runs that it took
            over from in turn: a map that was taken over whole left its items there.
        waits: what steps of the run wait or waited for.
        saves: what steps of the run have saved while they ran.
    """

    rows: Sequence[StepRecord] = ()
    attempts: Sequence[AttemptRecord] = ()
    functions: Mapping[str, Function] = field(default_factory=dict)
    donor_rows: Sequence[StepRecord] | None = None
    donor_functions: Mapping[str, Function] = field(default_factory=dict)
    expansions: Sequence[ExpansionRecord] = ()
    donor_expansions: Sequence[ExpansionRecord] = ()
    donor_graphs: Sequence[StepRecord] = ()
    waits: Sequence[WaitRecord] = ()
    saves: Sequence[SaveRecord] = ()


def read_past(store: RunStore, record: RunRecord) -> Past:
    """Return what the store has of a run; nothing, if the run is only being thought of."""
    return past_of(store, record, store.histories([record.id])[record.id])


def past_of(store: RunStore, record: RunRecord, history: History) -> Past:
    """Return what a run goes on from: its history, and what it takes over from another run."""
    past = Past(
        rows=history.steps,
        attempts=history.attempts,
        functions=_functions_before(store, record, history),
        expansions=history.expansions,
        waits=history.waits,
        saves=history.saves,
    )
    donor = _donor_of(store, record)
    if donor is None:
        return past
    expansions = store.list_expansions(donor.id)
    rows, grown = rows_of_graphs(store.list_steps(donor.id), expansions)
    return replace(
        past,
        donor_rows=rows,
        donor_functions=functions_of(store, donor.plan_digest),
        donor_expansions=expansions,
        donor_graphs=(
            *chain.from_iterable(grown.values()),
            *_rows_of_graphs_before(store, _donor_of(store, donor)),
        ),
    )


def _donor_of(store: RunStore, record: RunRecord) -> RunRecord | None:
    return store.find_run(record.reuse_from) if record.reuse_from else None


def _rows_of_graphs_before(store: RunStore, donor: RunRecord | None) -> Iterator[StepRecord]:
    for _ in range(MAX_DONORS):
        if donor is None:
            return
        if expansions := store.list_expansions(donor.id):
            _, grown = rows_of_graphs(store.list_steps(donor.id), expansions)
            yield from chain.from_iterable(grown.values())
        donor = _donor_of(store, donor)


def state_of(record: RunRecord, plan: Plan, past: Past, now: datetime) -> RunState:
    """Return a run as it goes on from its past: what is taken over, and why the rest runs.

    The only way from rows to a state: for a run that is claimed, and for one that is explained.
    """
    prints = fingerprints(plan, record.inputs)
    before = {**past.functions, **past.donor_functions}
    rows, grown = rows_of_graphs(past.rows, past.expansions)
    donated, donated_grown = None, dict[str, list[StepRecord]]()
    if past.donor_rows is not None:
        donated = match_donor(
            plan, prints, past.donor_rows, functions=past.donor_functions, inputs=record.inputs
        )
        for row in past.donor_graphs:
            donated_grown.setdefault(row.name, []).append(row)
    return load_run(
        record,
        plan,
        prints,
        rows=rows,
        attempts=past.attempts,
        own=match_rows(
            plan,
            prints,
            rows,
            keep_changed=record.policy.on_change == "reuse",
            edits=Edits(past.functions),
            inputs=record.inputs,
        ),
        donated=donated,
        expansions=past.expansions,
        grown=grown,
        donated_grown=donated_grown,
        waits=past.waits,
        saves=past.saves,
        edits=Edits(before, functions_by_code(plan), (*past.donor_expansions, *past.expansions)),
        noted=noted_changes(before, plan.functions),
        now=now,
    )


def lacking_hosts(events: Sequence[EventRecord]) -> set[str]:
    """Return who has left a run, since it was last opened, as something was lacking there."""
    lacking: set[str] = set()
    for event in events:
        if event.kind == "reset":
            lacking.clear()
        elif event.kind == "handed-back" and "lacks" in event.detail:
            lacking.add(str(event.detail["lacks"]))
    return lacking


def lose_what_is_gone(
    run: RunState, record: RunRecord, blobs: BlobStore, now: datetime
) -> list[Digest]:
    """Verify what a run that is not fresh has; returns the blobs to quarantine."""
    is_fresh = record.epoch == 1 and record.reuse_from is None
    return [] if is_fresh else lose_damaged_values(run, blobs, now)


def functions_of(store: RunStore, plan_digest: Digest | None) -> dict[str, Function]:
    """Return the functions of a stored plan by the digest by which reuse compares them."""
    return functions_by_code(decode_plan(store.get_plan(plan_digest).body))


def _functions_before(store: RunStore, record: RunRecord, history: History) -> dict[str, Function]:
    if record.epoch == 0 or not record.seq:
        return {}
    before = (
        event.detail["plan_before"]
        for event in reversed(history.events)
        if event.detail.get("plan_before")
    )
    digest = next(before, None)
    return functions_of(store, Digest(digest)) if digest else {}


@dataclass(frozen=True, slots=True)
class Born:
    """A run that its maker claimed as it was made: nothing can have happened in it before.

    Its plan is what decoding the recorded one would give.
    """

    record: RunRecord
    plan: Plan


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read at once of runs that are taken on together.

    Attributes:
        histories: by run.
        plans: by digest, each decoded once, however many of the runs share it.
    """

    histories: Mapping[RunId, History]
    plans: dict[Digest | None, Plan] = field(default_factory=dict)


PlanFor = Callable[[RunRecord], BuiltPlan | None]
"""Returns the plan of a run that was made without one; None: it is not built yet."""


class Loader:
    """Claims runs for one coordinator and builds their states."""

    def __init__(
        self,
        store: RunStore,
        blobs: BlobRoot,
        owner: Owner,
        clock: Clock,
        fleet: Fleet,
        default_executor: str,
        plan_for: PlanFor,
        *,
        allow_pickle: bool = True,
    ) -> None:
        self._plan_for = plan_for
        self._allow_pickle = allow_pickle
        self._store = store
        self._blobs = blobs
        self._owner = owner
        self._clock = clock
        self._fleet = fleet
        self._default_executor = default_executor
        self._damaged: set[RunId] = set()

    def claim(self, run_id: RunId) -> RunRecord | None:
        """Take the run if nobody alive drives it.

        A dead owner's workers are killed first; those of a silent one on this host, stopped
        perhaps, once its runs are no longer its own: no two attempts of a step overlap.
        """
        record = self._store.find_run(run_id)
        if record is None or record.status not in RUN_LIVE or self._is_delayed(record):
            return None
        dead = self._end_dead_owners([record])
        built = None
        if record.plan_digest is None and (built := self._plan_for(record)) is None:
            return None
        if not _is_free(record, dead):
            return None
        token = next(iter(dead), None)
        claimed = self._store.claim_run(
            run_id, self._owner, seen_dead=token, epoch=record.epoch, built=built
        )
        if claimed is not None:
            _end_silent_owners(self._store, [record], dead)
        return claimed

    def claim_all(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Take those of these live runs that nobody alive drives, all in one transaction.

        What becomes of the workers of earlier owners is as with ``claim``. Runs that another
        coordinator is taking now are left to it.
        """
        dead = self._end_dead_owners(records)
        free = {
            r.id: r
            for r in records
            if _is_free(r, dead) and r.id not in self._damaged and not self._is_delayed(r)
        }
        built: dict[RunId, BuiltPlan] = {}
        for record in [record for record in free.values() if record.plan_digest is None]:
            if (plan := self._plan_for(record)) is None:
                del free[record.id]
            else:
                built[record.id] = plan
        claimed = self._claim_all(list(free.values()), dead, built) if free else []
        _end_silent_owners(self._store, [free[record.id] for record in claimed], dead)
        return claimed

    def _claim_all(
        self, records: list[RunRecord], dead: Collection[str], built: Mapping[RunId, BuiltPlan]
    ) -> list[RunRecord]:
        seen = {record.id: record.epoch for record in records}
        mine = {run_id: plan for run_id, plan in built.items() if run_id in seen}
        try:
            return self._store.claim_runs(
                list(seen), self._owner, seen_dead=dead, epochs=seen, built=mine
            )
        except BlobsCondemned:
            # gc is taking what a plan names: without it the others go on, and it is built again.
            rest = [record for record in records if record.id not in mine]
            return self._claim_all(rest, dead, {}) if rest else []
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(records) > 1:
                # The row of one of them is damaged: by themselves the others can be taken.
                return [run for each in records for run in self._claim_all([each], dead, mine)]
            (damaged,) = seen
            self._damaged.add(damaged)
            log.error("cannot drive run %s: %s", damaged, error, extra={"run_id": damaged})
            return []

    def _is_delayed(self, record: RunRecord) -> bool:
        """Say whether a run is not to begin yet; but anybody may end it."""
        if record.status is not RunStatus.QUEUED or record.cancel_requested:
            return False
        return record.not_before is not None and record.not_before > self._clock.now()

    def _end_dead_owners(self, records: Sequence[RunRecord]) -> set[str]:
        """Return the tokens of owners that are no more, when their workers are gone too."""
        owners = {record.owner.token: record.owner for record in records if record.owner}
        # A run of ours was thrown away in memory: it is loaded again.
        dead = {t for t, owner in owners.items() if t == self._owner.token or is_seen_dead(owner)}
        for token in dead - {self._owner.token}:
            kill_processes(self._store.workers_of(token))
        return dead

    @all_stays()
    def read(self, records: Sequence[RunRecord]) -> Reading:
        """Read what claimed runs did, in a few queries for all of them."""
        try:
            return Reading(self._store.histories([record.id for record in records]))
        except PerdureError as error:
            # Rows of one of them are damaged: each is read by itself, so that the others go on.
            log.debug("reading runs one by one: %s", error)
            return Reading({})

    def reading_of(self, born: Sequence[Born]) -> Reading:
        """Return what there is to read of runs that were made just now: their plans."""
        return Reading(
            {each.record.id: History() for each in born},
            {each.record.plan_digest: each.plan for each in born},
        )

    @all_stays()
    def load(self, record: RunRecord, reading: Reading) -> tuple[RunState, list[Digest]]:
        """Build the state of a claimed run, and make it known to its executor.

        Returns:
            The state, and the damaged blobs to quarantine before anything is rebuilt.
        """
        plan = self._plan(record.plan_digest, reading.plans)
        history = reading.histories.get(record.id)
        if history is None:
            history = self._store.histories([record.id])[record.id]
        past = past_of(self._store, record, history)
        now = self._clock.now()
        run = state_of(record, plan, past, now)
        run.lacked_by = lacking_hosts(history.events)
        run.executor = self._executor_name(record)
        self._open(run)
        return run, lose_what_is_gone(run, record, self._blobs, now)

    def _plan(self, digest: Digest | None, plans: dict[Digest | None, Plan]) -> Plan:
        if digest not in plans:
            plans[digest] = decode_plan(self._store.get_plan(digest).body)
        return plans[digest]

    def _executor_name(self, record: RunRecord) -> str:
        name = record.policy.executor or self._default_executor
        # What kills its owner is kept out of this process.
        is_careful = name == "inline" and record.takeovers >= CAREFUL_TAKEOVERS
        return "processes" if is_careful else name

    def _open(self, run: RunState) -> None:
        executor = self._fleet.get(run.executor)
        if missing := _shortage(run, executor.capacity):
            run.ending = failed_end("perdure.errors.DefinitionError", missing)
        plan = run.plan
        functions = dict(plan.functions)
        constants = dict(enumerate(plan.constants))
        for extension in run.extensions:
            functions.update(extension.functions)
            constants.update(extension.constants)
        run.extensions.clear()
        cells = {file: cell for each in functions.values() for file, cell in each.cells.items()}
        note_cells(cells)  # for tracebacks
        executor.open_run(
            CallContext(
                run_id=run.id,
                blobs_url=self._blobs.address,
                blobs_cache=self._blobs.cache,
                store_id=self._store.store_id,
                functions=functions,
                constants=constants,
                bundle=Digest(plan.bundle) if plan.bundle else None,
                bundle_size=plan.bundle_size,
                allow_pickle=self._allow_pickle,
                cells=cells,
            )
        )


def _shortage(run: RunState, capacity: Capacity) -> str:
    """Return why a step of a run can never run where so much is offered, or ""."""
    offer = capacity.offer
    in_graphs = {id(step.options): (step.plan, step.options) for step in run.steps.values()}
    for step, options in (*options_in(run.plan), *in_graphs.values()):
        if missing := shortage(request_of(options), offer, capacity.places):
            return f"{placed(step, run.plan.functions)} can never run here: {missing}"
    return ""


def _is_free(record: RunRecord, dead: Collection[str]) -> bool:
    return record.owner is None or record.owner.token in dead or not record.lease_live


def _end_silent_owners(store: RunStore, before: Sequence[RunRecord], dead: Collection[str]) -> None:
    """Kill the workers of owners on this host from whom runs were taken though they may live."""
    owners = {record.owner.token: record.owner for record in before if record.owner}
    for token, owner in owners.items():
        if token not in dead and is_neighbour(owner):
            kill_processes(store.workers_of(token))


def failed_end(kind: str, message: str) -> RunEnd:
    """Return the end of a run that failed for a reason outside of any step."""
    error = ErrorRecord(type=kind, message=message, cause=Cause.ENGINE_ERROR)
    return RunEnd(status=RunStatus.FAILED, error=error)
