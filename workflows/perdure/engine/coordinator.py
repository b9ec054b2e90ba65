"""The shell around ``decide``: it alone waits, writes and starts things. One thread at a time.

A turn: hear (outcomes, requests, time) -> decide -> make it durable -> act. Facts are drawn from
the executors by ``poll``; nobody calls in. Other threads may only ``submit`` and ``wake``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreError, StoreUnavailable
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.protocols import BlobStore, RunStore
from perdure_storage.records import (
    Cause,
    CommitReport,
    Digest,
    ErrorRecord,
    Owner,
    ProcessId,
    Refusal,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
)
from perdure_storage.values import Values

from perdure.calls import CallContext
from perdure.engine.commands import Dispatch, Turn
from perdure.engine.decide import (
    CAREFUL_TAKEOVERS,
    EngineState,
    decide,
)
from perdure.engine.events import CancelRequested, Ended, Event, OwnershipLost, PauseRequested
from perdure.engine.matching import Matching, match_rows
from perdure.engine.ownership import is_seen_dead
from perdure.engine.placement import Pool, shortage
from perdure.engine.salvage import lose_damaged_outputs
from perdure.engine.state import RunState, load_run
from perdure.executors.processes import kill_processes
from perdure.executors.protocol import Executor
from perdure.fingerprint import fingerprints
from perdure.plan import Function, Plan, decode_plan

log = logging.getLogger(__name__)

LEASE_S = 10.0
"""How long other hosts leave a run alone whose owner is silent."""
REQUESTS_EVERY_S = 0.1
"""How often the store is asked whether somebody else wrote (a look of microseconds)."""
LOOK_FOR_WORK_EVERY_S = 1.0
"""How often a serving coordinator looks for runs that nobody drives, though nothing changed."""
PATIENCE_S = 30.0
"""How long a store that does not take a commit is waited for before the runs are given up."""
PARK_S = 0.25
KILL_GRACE_S = 5.0
GROUP_AGE_S = 0.005
"""``durability="group"``: how old an unwritten result may become while there is work."""


class Coordinator:
    """Drives runs over one store.

    Args:
        executors: makes the executor of a name when it is first needed.
        owner: the identity of this process; if it ``serves``, runs that nobody drives are
            looked for, as ``perdure up`` does.
        on_change: called with a run's id when it has ended, was parked or was lost to another
            owner; in the driving thread.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        blobs: BlobStore,
        values: Values,
        executors: Callable[[str], Executor],
        owner: Owner,
        clock: Clock,
        default_executor: str = "processes",
        on_change: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.store = store
        self.blobs = blobs
        self.values = values
        self.owner = owner
        self.clock = clock
        self.default_executor = default_executor
        self.on_change = on_change
        self._make_executor = executors
        self._executors: dict[str, Executor] = {}
        self._engine = EngineState({}, self._encode_failure)
        self._events: list[Event] = []
        self._inbox: deque[str] = deque()
        self._pending: list[tuple[RunCommit, ...]] = []
        self._pending_since = 0.0
        self._changes: object = None
        self._last_look = float("-inf")
        self._last_search = float("-inf")
        self._workers: tuple[ProcessId, ...] = ()
        self._woken = threading.Event()
        self._heartbeat = Heartbeat(store, owner)
        self._closed = False

    # --- for any thread ---------------------------------------------------------------------
    def submit(self, run_id: str) -> None:
        """Ask that this coordinator claim and drive the run, if nobody else does."""
        self._inbox.append(run_id)
        self.wake()

    def serve(self) -> None:
        """Register at once, so that others see that runs are taken on here."""
        self._start()

    def wake(self) -> None:
        """End the current wait, if any."""
        self._woken.set()
        for executor in tuple(self._executors.values()):
            executor.wake()

    def drives(self, run_id: str) -> bool:
        """Say whether the run is driven here, or is about to be."""
        return run_id in self._engine.runs or run_id in self._inbox

    @property
    def is_in_user_code(self) -> bool:
        """Say whether a step's function runs in the driving thread now."""
        return any(executor.runs_here for executor in self._executors.values())

    @property
    def is_idle(self) -> bool:
        """Say whether there is nothing to drive."""
        return not (self._engine.runs or self._inbox or self._events or self._pending)

    # --- one turn -----------------------------------------------------------------------------
    def turn(self, max_wait_s: float | None = None) -> None:
        """Wait for something to happen, at most ``max_wait_s`` seconds, and act on it.

        Raises StoreError if the store could not be written for longer than the patience.
        """
        self._take_inbox()
        self._listen()
        for outcome in self._poll(max_wait_s):
            self._events.append(Ended(outcome))
        self._advance()

    def _advance(self) -> None:
        events, self._events = self._events, []
        turn = decide(self._engine, events, self.clock.now())
        for digest in turn.quarantine:
            self._quarantine(digest)
        if self._may_defer(turn):
            self._dispatch(turn.dispatch, refused={})
            self._defer(turn.commits)
            report = CommitReport()
        else:
            if turn.ended:
                crash_point("terminal.before")
            report = self._flush(turn.commits)
            if report.committed:
                crash_point("commit.before-telling")
            self._dispatch(turn.dispatch, refused=report.refused)
        self._act(turn, report)

    def _act(self, turn: Turn, report: CommitReport) -> None:
        for kill in turn.kill:
            self._executors[kill.executor].kill(
                kill.calls, grace_s=KILL_GRACE_S, cause=kill.cause
            )
        for run_id, digest in turn.forget:
            self._forget(run_id, digest)
        for run_id, refusal in report.refused.items():
            self._on_refused(run_id, refusal, turn.commits)
        for run_id in turn.ended:
            if run_id not in report.refused:
                crash_point("terminal.after")
                log.info("run ended", extra={"action": "end", "run_id": run_id})
            self._let_go(run_id)
        for run_id in turn.parked:
            self._park_run(run_id)
        for run_id in turn.dropped:
            self._let_go(run_id)

    def _let_go(self, run_id: str) -> None:
        if not any(call.run_id == run_id for call in self._engine.orphans):
            for executor in self._executors.values():
                executor.close_run(run_id)
        self.on_change(run_id)

    def _park_run(self, run_id: str) -> None:
        record = self.store.find_run(RunId(run_id))
        if record is not None:
            self.store.release_run(record, to=RunStatus.PAUSED)
        self._let_go(run_id)

    # --- hearing --------------------------------------------------------------------------------
    def _poll(self, max_wait_s: float | None) -> list[object]:
        wait = 0.0 if self._events or self._engine.touched else self._wait_s(max_wait_s)
        executors = list(self._executors.values())
        if not executors:
            self._pause(wait)
            return []
        outcomes: list[object] = []
        for executor in executors[:-1]:
            outcomes += executor.poll(0)
        outcomes += executors[-1].poll(0 if outcomes else wait)
        self._note_workers()
        return outcomes

    def _pause(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()

    def _wait_s(self, max_wait_s: float | None) -> float:
        waits = [REQUESTS_EVERY_S]
        if max_wait_s is not None:
            waits.append(max_wait_s)
        due = self._engine.next_wakeup()
        if due is not None:
            waits.append(max(0.0, (due - self.clock.now()).total_seconds()))
        if self._pending:
            waits.append(GROUP_AGE_S)
        return min(waits)

    def _take_inbox(self) -> None:
        while self._inbox:
            run_id = self._inbox[0]
            try:
                if run_id not in self._engine.runs and not self.take_on(run_id):
                    self.on_change(run_id)
            finally:
                self._inbox.popleft()

    def _listen(self) -> None:
        now = self.clock.monotonic()
        if now - self._last_look < REQUESTS_EVERY_S:
            return
        self._last_look = now
        changes = self.store.changes()
        changed, self._changes = changes != self._changes, changes
        if changed and self._engine.runs:
            self._hear_requests()
        if self.owner.serves and (changed or now - self._last_search > LOOK_FOR_WORK_EVERY_S):
            self._last_search = now
            self._search_for_work()

    def _hear_requests(self) -> None:
        for record in self.store.requests(self.owner.token):
            run = self._engine.runs.get(record.id)
            if run is None:
                continue
            if record.cancel_requested and run.ending is None:
                self._events.append(CancelRequested(record.id))
            if record.pause_requested != run.paused:
                self._events.append(PauseRequested(record.id, record.pause_requested))

    def _search_for_work(self) -> None:
        for record in self.store.claimable():
            if record.id not in self._engine.runs:
                self.take_on(record.id)

    # --- taking runs on -----------------------------------------------------------------------
    def take_on(self, run_id: str) -> bool:
        """Claim the run and load it from its rows. Returns whether it is driven here now."""
        self._start()
        record = self._claim(RunId(run_id))
        if record is None:
            return False
        crash_point("claim.after")
        try:
            self._load(record)
        except PerdureError as error:
            # The run's own data is unusable; other runs of this coordinator go on.
            self._end_unloadable(record, error)
            self.on_change(run_id)
        return True

    def _start(self) -> None:
        if not self._heartbeat.is_started:
            self.store.register(self.owner, LEASE_S)
            self._heartbeat.start()

    def _claim(self, run_id: RunId) -> RunRecord | None:
        record = self.store.find_run(run_id)
        if record is None or record.status not in RUN_LIVE:
            return None
        seen_dead = None
        if record.owner is not None:
            if record.owner.token == self.owner.token:
                seen_dead = record.owner.token  # ours, thrown away in memory: load it again
            elif is_seen_dead(record.owner):
                seen_dead = record.owner.token
                kill_processes(self.store.workers_of(seen_dead))
            elif record.lease_live:
                return None
        return self.store.claim_run(run_id, self.owner, seen_dead=seen_dead)

    def _load(self, record: RunRecord) -> None:
        plan = decode_plan(self.store.get_plan(record.plan_digest).body)
        name = self._executor_name(record)
        executor = self._executor(name)
        now = self.clock.now()
        prints = fingerprints(plan, record.inputs)
        rows = self.store.list_steps(record.id, current_only=False)
        run = load_run(
            record,
            plan,
            prints,
            rows=rows,
            attempts=self.store.list_attempts(record.id),
            own=match_rows(
                plan,
                prints,
                rows,
                keep_changed=record.policy.on_change == "reuse",
                old_functions=self._functions_before(record),
            ),
            donated=self._donated(record, plan, prints),
            now=now,
        )
        run.executor = name
        self._refuse_unsatisfiable(run, executor)
        self._check_outputs(run, now)
        executor.open_run(
            CallContext(
                run_id=record.id,
                blobs_url=self.blobs.url,
                store_id=self.store.store_id,
                functions=plan.functions,
                constants=plan.constants,
                bundle=Digest(plan.bundle) if plan.bundle else None,
                bundle_size=plan.bundle_size,
            )
        )
        self._engine.add(run, now)
        if record.cancel_requested:
            self._events.append(CancelRequested(record.id))

    def _executor_name(self, record: RunRecord) -> str:
        name = record.policy.executor or self.default_executor
        # What kills its owner is kept out of this process.
        return "processes" if record.takeovers >= CAREFUL_TAKEOVERS else name

    def _executor(self, name: str) -> Executor:
        if name not in self._executors:
            executor = self._make_executor(name)
            self._engine.pools[name] = Pool(executor.capacity)
            self._executors[name] = executor
        return self._executors[name]

    def _functions_before(self, record: RunRecord) -> dict[str, Function]:
        digest = next(
            (
                event.detail["plan_before"]
                for event in reversed(self.store.list_events(record.id))
                if event.detail.get("plan_before")
            ),
            None,
        )
        return self._functions(digest) if digest else {}

    def _functions(self, plan_digest: str) -> dict[str, Function]:
        plan = decode_plan(self.store.get_plan(Digest(plan_digest)).body)
        return {function.code: function for function in plan.functions.values()}

    def _donated(self, record: RunRecord, plan: Plan, prints: dict[str, str]) -> Matching | None:
        donor = self.store.find_run(record.reuse_from) if record.reuse_from else None
        if donor is None:
            return None
        rows = self.store.list_steps(donor.id)
        return match_rows(
            plan, prints, rows, old_functions=self._functions(donor.plan_digest)
        )

    def _refuse_unsatisfiable(self, run: RunState, executor: Executor) -> None:
        for step in run.steps.values():
            missing = shortage(step.options, executor.capacity)
            if missing is not None:
                run.ending = _failed("perdure.errors.DefinitionError", f"{step.id}: {missing}")
                return

    def _check_outputs(self, run: RunState, now: datetime) -> None:
        """Verify the values that no worker may ever read again: those of the result."""
        if run.record.epoch == 1 and run.record.reuse_from is None:
            return
        for digest in lose_damaged_outputs(run, self.blobs, now):
            self._quarantine(digest)

    def _end_unloadable(self, record: RunRecord, error: PerdureError) -> None:
        end = _failed(f"{type(error).__module__}.{type(error).__qualname__}", str(error))
        commit = RunCommit(
            run_id=record.id, owner=self.owner.token, epoch=record.epoch, end=end
        )
        self._write((commit,))

    # --- durable ------------------------------------------------------------------------------
    def _may_defer(self, turn: Turn) -> bool:
        if turn.ended or turn.parked or turn.quarantine:
            return False
        runs = self._engine.runs
        if any(runs[c.run_id].record.policy.durability != "group" for c in turn.commits):
            return False
        if not turn.dispatch:
            return False
        return not self._pending or self.clock.monotonic() - self._pending_since < GROUP_AGE_S

    def _defer(self, commits: tuple[RunCommit, ...]) -> None:
        if commits:
            if not self._pending:
                self._pending_since = self.clock.monotonic()
            self._pending.append(commits)

    def _flush(self, commits: tuple[RunCommit, ...]) -> CommitReport:
        if self._pending:
            commits = _merge([*self._pending, commits])
            self._pending.clear()
        return self._write(commits) if commits else CommitReport()

    def _write(self, commits: tuple[RunCommit, ...]) -> CommitReport:
        """Commit, waiting out a store that does not answer: park, dispatch nothing, try again."""
        give_up_at = self.clock.monotonic() + PATIENCE_S
        while True:
            try:
                return self.store.commit(commits)
            except StoreUnavailable as error:
                if self.clock.monotonic() >= give_up_at:
                    raise
                log.warning("store does not take the commit, waiting: %s", error)
                self._pause(PARK_S)

    def _on_refused(
        self, run_id: str, refusal: Refusal, commits: tuple[RunCommit, ...]
    ) -> None:
        log.warning("commit refused: %s", refusal.message, extra={"run_id": run_id})
        self._events.append(OwnershipLost(run_id, refusal.message))
        if refusal.kind == "rejected":
            epoch = next(commit.epoch for commit in commits if commit.run_id == run_id)
            self._fail_rejected(run_id, epoch, refusal)
        elif refusal.kind == "condemned":
            self._inbox.append(run_id)

    def _fail_rejected(self, run_id: str, epoch: int, refusal: Refusal) -> None:
        """End a run one of whose rows the database itself refuses, naming the step."""
        message = f"the store refuses the row of {', '.join(refusal.steps)}: {refusal.message}"
        end = _failed("perdure_storage.errors.StoreError", message)
        self._write(
            (RunCommit(run_id=RunId(run_id), owner=self.owner.token, epoch=epoch, end=end),)
        )

    # --- acting -------------------------------------------------------------------------------
    def _dispatch(self, dispatch: Sequence[Dispatch], *, refused: dict[RunId, Refusal]) -> None:
        by_executor: dict[str, list[object]] = {}
        for command in dispatch:
            if not refused or RunId(command.call.id.run_id) not in refused:
                by_executor.setdefault(command.executor, []).append(command.call)
        for name, calls in by_executor.items():
            crash_point("dispatch.before")
            self._executors[name].submit(calls)
            crash_point("dispatch.after")

    def _note_workers(self) -> None:
        workers = tuple(
            worker for executor in self._executors.values() for worker in executor.workers()
        )
        if workers != self._workers:
            self._workers = workers
            self._heartbeat.beat_now(workers)

    def _quarantine(self, digest: Digest) -> None:
        try:
            self.blobs.quarantine(digest)
        except StoreError as error:
            log.warning("could not move a damaged blob aside: %s", error)

    def _forget(self, run_id: str, digest: Digest) -> None:
        self.blobs.spool(run_id).delete(digest)

    def _encode_failure(self, failure: object) -> object:
        return self.values.store(failure)

    def close(self, *, interrupted: bool = False) -> None:
        """Stop driving: workers die, runs stay RUNNING without an owner. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for executor in self._executors.values():
            executor.close()
        self._heartbeat.stop()


def _failed(kind: str, message: str) -> RunEnd:
    error = ErrorRecord(type=kind, message=message, cause=Cause.ENGINE_ERROR)
    return RunEnd(status=RunStatus.FAILED, error=error)


def _merge(batches: Sequence[tuple[RunCommit, ...]]) -> tuple[RunCommit, ...]:
    """Join commits of the same run, in order."""
    merged: dict[RunId, RunCommit] = {}
    for batch in batches:
        for commit in batch:
            before = merged.get(commit.run_id)
            merged[commit.run_id] = commit if before is None else _join(before, commit)
    return tuple(merged.values())


def _join(first: RunCommit, second: RunCommit) -> RunCommit:
    ended = {(row.step_id, row.generation) for row in second.steps}
    return msgspec.structs.replace(
        second,
        steps=first.steps + second.steps,
        # A start row that its own end overtook is not written.
        attempts=tuple(
            attempt
            for attempt in first.attempts
            if attempt.cause is not None or (attempt.step_id, attempt.generation) not in ended
        )
        + second.attempts,
        events=first.events + second.events,
        lost=first.lost + second.lost,
        superseded=first.superseded + second.superseded,
    )


class Heartbeat:
    """Renews the coordinator's lease from a thread of its own, so that slow turns lose nothing."""

    def __init__(self, store: RunStore, owner: Owner) -> None:
        self._store = store
        self._owner = owner
        self._workers: tuple[ProcessId, ...] = ()
        self._beat = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def is_started(self) -> bool:
        """Say whether the lease is being renewed."""
        return self._thread is not None

    def start(self) -> None:
        """Begin to renew."""
        self._thread = threading.Thread(target=self._run, name="perdure-heartbeat", daemon=True)
        self._thread.start()

    def beat_now(self, workers: tuple[ProcessId, ...]) -> None:
        """Record these worker processes with the next renewal, which comes at once."""
        self._workers = workers
        self._beat.set()

    def stop(self) -> None:
        """End the renewals and remove the heartbeat row: the runs are free at once."""
        if self._thread is None:
            return
        self._stopping = True
        self._beat.set()
        self._thread.join()
        self._thread = None
        try:
            self._store.unregister(self._owner)
        except StoreError as error:
            log.warning("could not take the heartbeat row back: %s", error)

    def _run(self) -> None:
        while not self._stopping:
            self._beat.wait(LEASE_S / 4)
            self._beat.clear()
            if self._stopping:
                return
            try:
                self._store.renew(self._owner, LEASE_S, self._workers)
            except StoreError as error:
                # Nothing to do here: every commit checks the epoch by itself.
                log.warning("could not renew the lease: %s", error)
