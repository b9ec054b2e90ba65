"""The decisions: facts in, rows and commands out. No clock, thread, file, database or chance.

``decide`` changes the states that it is given and returns what is to be written and done. Called
with the same states, events and time it does the same. The caller makes the commits durable
before it acts on the rest; should a commit be refused, it throws the run's state away and loads
it again from rows, so nothing here ever has to be undone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush

import msgspec
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Digest,
    ErrorRecord,
    EventRecord,
    Place,
    RunEnd,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
)

from perdure.calls import CallId, Outcome, StepCall, input_key, step_key
from perdure.engine.commands import Dispatch, Kill, Turn
from perdure.engine.events import CancelRequested, Ended, Event, OwnershipLost, PauseRequested
from perdure.engine.matching import match_name
from perdure.engine.placement import Pool, Shape, is_impatient
from perdure.engine.state import (
    OPAQUE,
    RunState,
    StepState,
    begin_again,
    count_cause,
    mark_done,
    part_digest,
    pend,
    reopen,
    settle,
)
from perdure.errors import Failure
from perdure.plan import Backoff, FromStep

CAREFUL_TAKEOVERS = 3
"""Owners lost in a row without progress, after which a run's suspects start one at a time."""
MAX_TAKEOVERS = 4
"""... after which the run fails and names them."""
MAX_REBUILDS = 5
"""Times that one owner rebuilds a lost value before it calls the storage broken."""
UNAVAILABLE_BACKOFF = Backoff(0.5, 2.0, 30.0, 0.1)


class EngineState:
    """All runs that one coordinator drives, and what is free on its executors.

    Attributes:
        runs: in the order in which they were taken on.
        pools: free resources by executor name.
        timers: heap of (time, run id): when a run next has something to do by itself.
        orphans: attempts of runs that are no longer ours; they hold resources until they end.
        encode_failure: stores a ``Failure`` inline, for ``catch=True``.
    """

    def __init__(
        self, pools: dict[str, Pool], encode_failure: Callable[[Failure], StoredValue]
    ) -> None:
        self.runs: dict[str, RunState] = {}
        self.pools = pools
        self.timers: list[tuple[datetime, str]] = []
        self.orphans: dict[CallId, tuple[str, Shape]] = {}
        self.encode_failure = encode_failure
        self.touched: dict[str, None] = {}
        self.kills: list[Kill] = []
        self.quarantine: list[Digest] = []
        self.forget: list[tuple[str, Digest]] = []
        self.dropped: list[str] = []

    def add(self, run: RunState, now: datetime) -> None:
        """Take on a loaded run; the next ``decide`` starts it."""
        self.runs[run.id] = run
        self.touched[run.id] = None
        if run.record.deadline is not None:
            heappush(self.timers, (run.record.deadline, run.id))
        _look_at_takeovers(run)
        settle(run, run.steps.values(), now)

    def next_wakeup(self) -> datetime | None:
        """Return when something falls due without any event, or None."""
        return self.timers[0][0] if self.timers else None


def decide(engine: EngineState, events: Iterable[Event], now: datetime) -> Turn:
    """Work a batch of events into the states and say what is to be written and done."""
    for event in events:
        _HANDLERS[type(event)](engine, event, now)
    _wake_delayed(engine, now)
    dispatch = _place(engine, now)
    ended, parked = _finish_runs(engine, now)
    commits = []
    for run_id in engine.touched:
        run = engine.runs.get(run_id)
        commit = run.outbox.take(run) if run is not None else None
        if commit is not None:
            commits.append(commit)
    for run_id in (*ended, *parked):
        del engine.runs[run_id]
    return _empty(engine, commits=tuple(commits), dispatch=dispatch, ended=ended, parked=parked)


def _empty(engine: EngineState, **fields: tuple[object, ...]) -> Turn:
    turn = msgspec.structs.replace(
        Turn(
            quarantine=tuple(engine.quarantine),
            kill=tuple(engine.kills),
            forget=tuple(engine.forget),
            dropped=tuple(engine.dropped),
        ),
        **fields,
    )
    engine.touched.clear()
    engine.kills.clear()
    engine.quarantine.clear()
    engine.forget.clear()
    engine.dropped.clear()
    return turn


# --- requests ---------------------------------------------------------------------------------
def _on_cancel(engine: EngineState, event: CancelRequested, now: datetime) -> None:
    if run := engine.runs.get(event.run_id):
        _begin_ending(engine, run, RunEnd(status=RunStatus.CANCELLED), Cause.CANCELLED)


def _begin_ending(engine: EngineState, run: RunState, end: RunEnd, cause: Cause) -> None:
    engine.touched[run.id] = None
    if run.ending is None:
        run.ending = end
        if run.running:
            engine.kills.append(Kill(run.executor, tuple(run.running), cause))


def _on_pause(engine: EngineState, event: PauseRequested, now: datetime) -> None:
    if run := engine.runs.get(event.run_id):
        run.paused = event.paused
        engine.touched[run.id] = None


def _on_ownership_lost(engine: EngineState, event: OwnershipLost, now: datetime) -> None:
    run = engine.runs.pop(event.run_id, None)
    if run is None:
        return
    engine.dropped.append(run.id)
    for call, step in run.running.items():
        engine.orphans[call] = (run.executor, step.shape)
    if run.running:
        engine.kills.append(Kill(run.executor, tuple(run.running), Cause.ABANDONED))


# --- outcomes ---------------------------------------------------------------------------------
def _on_ended(engine: EngineState, event: Ended, now: datetime) -> None:
    outcome = event.outcome
    if orphan := engine.orphans.pop(outcome.id, None):
        engine.pools[orphan[0]].give(orphan[1])
        return
    run = engine.runs.get(outcome.id.run_id)
    step = run.running.pop(outcome.id, None) if run is not None else None
    if run is None or step is None:
        return
    engine.touched[run.id] = None
    engine.pools[run.executor].give(step.shape)
    if outcome.cause is Cause.SUCCEEDED and outcome.value is not None:
        _succeed(engine, run, step, outcome, outcome.value, now)
    else:
        _OUTCOMES[outcome.cause](engine, run, step, outcome, now)


def _succeed(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    value: StoredValue,
    now: datetime,
    *,
    error: ErrorRecord | None = None,
) -> None:
    step.value = value
    if step.rebuilt and (diverged := _diverged_consumers(run, step)):
        if not _may_diverge(run, step, diverged, now):
            _fail_diverged(run, step, outcome, diverged, now)
            return
    step.status = StepStatus.SUCCEEDED
    run.outbox.attempts.pop(outcome.id, None)
    row = _row(run, step, outcome, StepStatus.SUCCEEDED, now)
    stored = value if _is_stored(run, step) else _without_bytes(value)
    run.outbox.steps.append(
        msgspec.structs.replace(row, value=stored, error=error, caught=error is not None)
    )
    settle(run, mark_done(run, step), now)
    for dep in step.deps:
        _forget_spooled(engine, run, run.steps[dep])


def _forget_spooled(engine: EngineState, run: RunState, step: StepState) -> None:
    """Let go of an unsynced value whose last consumer has committed."""
    if step.value is not None and step.value.place is Place.SPOOL and not step.open_consumers:
        engine.forget.append((run.id, step.value.integrity))
        step.value = _without_bytes(step.value)


def _is_stored(run: RunState, step: StepState) -> bool:
    return step.options.checkpoint or step.id in run.outputs


def _without_bytes(value: StoredValue) -> StoredValue:
    return msgspec.structs.replace(value, place=Place.NONE, data=None)


def _row(
    run: RunState, step: StepState, outcome: Outcome, status: StepStatus, now: datetime
) -> StepRecord:
    return StepRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=step.generation,
        status=status,
        attempt=outcome.id.attempt,
        name=match_name(step.plan),
        own=step.plan.own,
        code=run.plan.functions[step.plan.function].code,
        fingerprint=run.fingerprints[step.id],
        inputs=step.inputs,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at or now,
        worker=outcome.worker,
        reason=step.reason,
    )


def _on_user_error(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    count_cause(step, outcome.cause)
    if outcome.retryable and step.user_errors <= step.options.retries:
        delay = delay_s(step.options.backoff, step.user_errors, outcome.id)
        _try_again(run, step, outcome, now, delay)
    else:
        _fail(engine, run, step, outcome, now)


def _on_loss(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    count_cause(step, outcome.cause)
    allowed = step.options.lost_retries
    if outcome.cause is Cause.OUT_OF_MEMORY:
        again = allowed != 0 and step.out_of_memory <= 1
    else:
        again = allowed < 0 or step.losses <= allowed
    if again:
        _try_again(run, step, outcome, now, 0.0)
    else:
        _fail(engine, run, step, outcome, now)


def _on_abandoned(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    _try_again(run, step, outcome, now, 0.0)


def _on_unavailable(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    step.unavailable += 1
    _try_again(
        run, step, outcome, now, delay_s(UNAVAILABLE_BACKOFF, step.unavailable, outcome.id)
    )


def _try_again(
    run: RunState, step: StepState, outcome: Outcome, now: datetime, delay: float
) -> None:
    step.not_before = now + timedelta(seconds=delay) if delay else None
    _note_attempt(run, step, outcome, now)
    _pend(run, step, now)


def _pend(run: RunState, step: StepState, now: datetime) -> None:
    """Send the step back to wait for its inputs, which may have been lost meanwhile."""
    pend(run, step)
    settle(run, [step], now)


def _on_input_lost(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    kind, _, name = outcome.culprit.partition(":")
    upstream = run.steps.get(name) if kind == "step" else None
    if upstream is None or upstream.rebuilt >= MAX_REBUILDS:
        _fail(engine, run, step, outcome, now)
        return
    _note_attempt(run, step, outcome, now)
    if upstream.is_done and upstream.value is not None:
        engine.quarantine.append(upstream.value.integrity)
        why = outcome.error.message if outcome.error else "its value is gone"
        settle(run, [reopen(run, upstream, why, now)], now)
    _pend(run, step, now)


def _on_final(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    _fail(engine, run, step, outcome, now)


def _on_cancelled(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    step.status = StepStatus.CANCELLED
    _note_attempt(run, step, outcome, now)


_Handler = Callable[[EngineState, RunState, StepState, Outcome, datetime], None]
_OUTCOMES: dict[Cause, _Handler] = {
    Cause.SUCCEEDED: _on_final,  # without a value: the worker is wrong
    Cause.USER_ERROR: _on_user_error,
    Cause.TIMEOUT: _on_user_error,
    Cause.WORKER_LOST: _on_loss,
    Cause.OUT_OF_MEMORY: _on_loss,
    Cause.SETUP_ERROR: _on_final,
    Cause.ENGINE_ERROR: _on_final,
    Cause.INPUT_LOST: _on_input_lost,
    Cause.INPUT_UNAVAILABLE: _on_unavailable,
    Cause.CANCELLED: _on_cancelled,
    Cause.ABANDONED: _on_abandoned,
}


def _note_attempt(run: RunState, step: StepState, outcome: Outcome, now: datetime) -> None:
    run.outbox.attempts[outcome.id] = AttemptRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=outcome.id.generation,
        attempt=outcome.id.attempt,
        cause=outcome.cause,
        error=outcome.error,
        worker=outcome.worker,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at or now,
        not_before=step.not_before,
        peak_memory_bytes=outcome.peak_memory_bytes,
    )


# --- final failure ----------------------------------------------------------------------------
def _fail(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    error = outcome.error or ErrorRecord(
        type="perdure_storage.errors.InternalError",
        message=f"an attempt ended as {outcome.cause.value!r} without an error",
        cause=Cause.ENGINE_ERROR,
    )
    error = msgspec.structs.replace(error, step_id=step.id, cause=outcome.cause)
    if step.options.catch and outcome.cause is not Cause.ENGINE_ERROR:
        failure = Failure(
            type=error.type,
            message=error.message,
            traceback=error.traceback[-MAX_CAUGHT_TRACEBACK:],
            step_id=step.id,
            index=None,
            attempts=step.attempt,
        )
        _succeed(engine, run, step, outcome, engine.encode_failure(failure), now, error=error)
    else:
        _end_step_failed(run, step, outcome, error, now)
    _note_attempt(run, step, outcome, now)


MAX_CAUGHT_TRACEBACK = 8_000


def _end_step_failed(
    run: RunState, step: StepState, outcome: Outcome, error: ErrorRecord, now: datetime
) -> None:
    step.status = StepStatus.FAILED
    row = _row(run, step, outcome, StepStatus.FAILED, now)
    run.outbox.steps.append(msgspec.structs.replace(row, error=error))
    run.failure = run.failure or error


# --- divergence -------------------------------------------------------------------------------
def _diverged_consumers(run: RunState, step: StepState) -> list[StepState]:
    """Return committed consumers that provably consumed another value than the rebuilt one."""
    assert step.value is not None
    diverged = []
    for consumer in step.consumers:
        if consumer.status is not StepStatus.SUCCEEDED:
            continue
        for ref, old in zip(consumer.refs, consumer.inputs, strict=True):
            if isinstance(ref, FromStep) and ref.step == step.id:
                new = part_digest(step.value, ref.path)
                if new != old and not new.startswith(OPAQUE) and not old.startswith(OPAQUE):
                    diverged.append(consumer)
                    break
    return diverged


def _may_diverge(
    run: RunState, step: StepState, diverged: Sequence[StepState], now: datetime
) -> bool:
    policy = run.record.policy.on_divergence
    names = [consumer.id for consumer in diverged]
    if policy == "fail":
        return False
    run.outbox.events.append(
        EventRecord(
            kind="diverged",
            at=now,
            step_id=StepId(step.id),
            detail={"consumers": names, "policy": policy},
        )
    )
    if policy == "recompute":
        for consumer in diverged:
            _recompute(run, consumer, f"{step.id} was rebuilt with another value")
    return True


def _recompute(run: RunState, step: StepState, reason: str) -> None:
    run.outbox.lost.append(StepKey(step.id, step.generation))
    begin_again(run, step, reason)


def _fail_diverged(
    run: RunState, step: StepState, outcome: Outcome, diverged: Sequence[StepState], now: datetime
) -> None:
    names = ", ".join(consumer.id for consumer in diverged)
    step.value = None
    error = ErrorRecord(
        type="perdure.errors.NondeterminismError",
        message=(
            f"step {step.id} was rebuilt and gave another value than the one that {names} "
            "consumed. Make it deterministic or checkpoint it, or resume with "
            'on_divergence="recompute" (runs them again) or "keep" (accepts the mix)'
        ),
        cause=Cause.ENGINE_ERROR,
        step_id=step.id,
    )
    _end_step_failed(run, step, outcome, error, now)


# --- time -------------------------------------------------------------------------------------
def delay_s(backoff: Backoff, failures: int, call: CallId) -> float:
    """Return the seconds to wait after the n-th failure; the jitter is made of the ids."""
    delay = min(backoff.max_s, backoff.first_s * backoff.factor ** (failures - 1))
    key = f"{call.run_id}/{call.step_id}/{call.generation}/{call.attempt}".encode()
    share = zlib.crc32(key) / 0xFFFFFFFF * 2 - 1
    return max(0.0, delay * (1 + backoff.jitter * share))


def _wake_delayed(engine: EngineState, now: datetime) -> None:
    while engine.timers and engine.timers[0][0] <= now:
        run = engine.runs.get(heappop(engine.timers)[1])
        if run is None:
            continue
        engine.touched[run.id] = None
        if run.record.deadline is not None and run.record.deadline <= now:
            _begin_ending(engine, run, _deadline_passed(run), Cause.CANCELLED)
        while run.delayed and run.delayed[0][0] <= now:
            step = run.steps[heappop(run.delayed)[2]]
            if step.status is StepStatus.READY and step.not_before is not None:
                step.not_before = None
                step.ready_at = now
                heap = run.ready.setdefault(step.shape, [])
                heappush(heap, (step.position, step.generation, step.id))


def _deadline_passed(run: RunState) -> RunEnd:
    error = ErrorRecord(
        type="builtins.TimeoutError",
        message=f"the deadline of the run, {run.record.deadline}, has passed",
        cause=Cause.TIMEOUT,
    )
    return RunEnd(status=RunStatus.FAILED, error=error)


# --- placement --------------------------------------------------------------------------------
def _place(engine: EngineState, now: datetime) -> tuple[Dispatch, ...]:
    placed: list[Dispatch] = []
    full: set[str] = set()
    ranks: dict[int, list[RunState]] = {}
    for run in engine.runs.values():
        if run.ready and not run.is_stopping:
            ranks.setdefault(run.record.priority, []).append(run)
    for priority in sorted(ranks, reverse=True):
        waiting = ranks[priority]
        while waiting:
            # One step of each run in turn: a wide run does not keep a narrow one waiting.
            waiting = [run for run in waiting if _place_one(engine, run, now, placed, full)]
    return tuple(placed)


def _place_one(
    engine: EngineState, run: RunState, now: datetime, placed: list[Dispatch], full: set[str]
) -> bool:
    """Start one step of the run if one fits.

    ``full`` names the executors that a large request has waited for long enough: what is free
    there is kept for it.
    """
    if run.executor in full or (run.one_at_a_time and run.running):
        return False
    pool = engine.pools[run.executor]
    best: StepState | None = None
    for shape, heap in list(run.ready.items()):
        step = _head(run, heap)
        if step is None:
            del run.ready[shape]
        elif not pool.fits(shape):
            if step.ready_at is not None and is_impatient(step.ready_at, now):
                full.add(run.executor)
                return False
        elif best is None or step.position < best.position:
            best = step
    if best is None:
        return False
    heappop(run.ready[best.shape])
    pool.take(best.shape)
    placed.append(Dispatch(run.executor, _start(engine, run, best, now)))
    return True


def _head(run: RunState, heap: list[tuple[int, int, str]]) -> StepState | None:
    """Return the first step of the heap that is still ready; entries may have gone stale."""
    while heap:
        _, generation, step_id = heap[0]
        step = run.steps[step_id]
        if step.status is StepStatus.READY and step.generation == generation:
            return step
        heappop(heap)
    return None


def _start(engine: EngineState, run: RunState, step: StepState, now: datetime) -> StepCall:
    step.status = StepStatus.RUNNING
    step.attempt += 1
    step.inputs = run.input_digests(step)
    call = CallId(run.id, step.id, step.generation, step.attempt)
    run.running[call] = step
    run.outbox.attempts[call] = AttemptRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=step.generation,
        attempt=step.attempt,
        started_at=now,
    )
    engine.touched[run.id] = None
    options = step.options
    return StepCall(
        id=call,
        function=step.plan.function,
        args=step.plan.args,
        kwargs=step.plan.kwargs,
        values=_values(run, step),
        parts=step.parts,
        timeout_s=options.timeout_s,
        checkpoint=_is_stored(run, step),
        outputs=options.outputs,
        retry_on=options.retry_on,
        idempotency_key=f"{run.id}/{step.id}/{step.generation}",
    )


def _values(run: RunState, step: StepState) -> dict[str, StoredValue]:
    values = {}
    for ref in step.refs:
        if isinstance(ref, FromStep):
            value = run.steps[ref.step].value
            assert value is not None
            values[step_key(ref.step)] = value
        else:
            values[input_key(ref.name)] = run.record.inputs[ref.name]
    return values


# --- the end ----------------------------------------------------------------------------------
def _look_at_takeovers(run: RunState) -> None:
    if run.record.takeovers >= MAX_TAKEOVERS:
        names = ", ".join(run.suspects) or "no step was running"
        run.ending = RunEnd(
            status=RunStatus.FAILED,
            error=ErrorRecord(
                type="perdure.errors.WorkerLost",
                message=(
                    f"{run.record.takeovers} owners in a row died driving this run without a "
                    f"single commit. Running when the last one died: {names}"
                ),
                cause=Cause.WORKER_LOST,
                step_id=run.suspects[0] if run.suspects else None,
            ),
        )
    run.one_at_a_time = run.record.takeovers >= CAREFUL_TAKEOVERS


def _finish_runs(
    engine: EngineState, now: datetime
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ended, parked = [], []
    for run_id in engine.touched:
        run = engine.runs.get(run_id)
        if run is None:
            continue
        if run.delayed:
            heappush(engine.timers, (run.delayed[0][0], run.id))
        if run.running:
            continue
        end = _end_of(run)
        if end is not None:
            run.outbox.end = end
            ended.append(run_id)
        elif run.paused:
            parked.append(run_id)
    return tuple(ended), tuple(parked)


def _end_of(run: RunState) -> RunEnd | None:
    """Return how a run in which nothing is running ends, or None if it goes on."""
    if run.ending is not None:
        return run.ending
    if run.unfinished == 0:
        return RunEnd(status=RunStatus.SUCCEEDED)
    if run.failure is not None and (run.is_stopping or not _can_go_on(run)):
        return RunEnd(status=RunStatus.FAILED, error=run.failure)
    if run.paused or _can_go_on(run):
        return None
    return RunEnd(
        status=RunStatus.FAILED,
        error=ErrorRecord(
            type="perdure_storage.errors.InternalError",
            message="no step of the run can proceed: please report this",
            cause=Cause.ENGINE_ERROR,
        ),
    )


def _can_go_on(run: RunState) -> bool:
    return bool(run.delayed) or any(_head(run, heap) for heap in run.ready.values())


_HANDLERS: dict[type, Callable[..., None]] = {
    Ended: _on_ended,
    CancelRequested: _on_cancel,
    PauseRequested: _on_pause,
    OwnershipLost: _on_ownership_lost,
}
