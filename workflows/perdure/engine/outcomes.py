"""What the end of an attempt means: a result, another try, a failure, or lineage."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from perdure.calls import CallId, Outcome
from perdure.engine.advance import begin_again, mark_done, pend, reopen, settle
from perdure.engine.events import Ended
from perdure.engine.matching import match_name
from perdure.engine.restore import count_cause
from perdure.engine.state import OPAQUE, EngineState, RunState, StepState, part_digest
from perdure.errors import Failure
from perdure.plan import Backoff, FromStep
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    EventRecord,
    Place,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
)

MAX_REBUILDS = 5
"""Times that one owner rebuilds a lost value before it calls the storage broken."""
MAX_UNAVAILABLE = 12
"""Times that one owner waits for storage that does not answer, some three minutes in all, before
the step fails (and the run can be resumed). A value that cannot be reached is never rebuilt."""
UNAVAILABLE_BACKOFF = Backoff(0.5, 2.0, 30.0, 0.1)
MAX_CAUGHT_TRACEBACK = 8_000


def on_ended(engine: EngineState, event: Ended, now: datetime) -> None:
    """Free what the attempt held and work its outcome into the run."""
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
    # Whoever rebuilds it may not be the one that missed it: that owner may have died meanwhile.
    diverged = _diverged_consumers(run, step)
    if diverged and not _may_diverge(run, step, diverged, now):
        _fail_diverged(run, step, outcome, diverged, now)
        return
    step.status = StepStatus.SUCCEEDED
    run.outbox.attempts.pop(outcome.id, None)
    row = _row(run, step, outcome, StepStatus.SUCCEEDED, now)
    stored = value if run.stores(step) else _without_bytes(value)
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
        code=run.plan.functions[step.plan.function].counts_as,
        fingerprint=run.fingerprints[step.id],
        inputs=step.inputs,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at or now,
        worker=outcome.worker,
        reason=step.reason,
        peak_memory_bytes=outcome.peak_memory_bytes,
    )


# --- another try ------------------------------------------------------------------------------
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
    if step.unavailable > MAX_UNAVAILABLE:
        _fail(engine, run, step, outcome, now)
        return
    _try_again(run, step, outcome, now, delay_s(UNAVAILABLE_BACKOFF, step.unavailable, outcome.id))


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
        if upstream.value.place is Place.BLOB:
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


def delay_s(backoff: Backoff, failures: int, call: CallId) -> float:
    """Return the seconds to wait after the n-th failure; the jitter is made of the ids."""
    delay = min(backoff.max_s, backoff.first_s * backoff.factor ** (failures - 1))
    key = f"{call.run_id}/{call.step_id}/{call.generation}/{call.attempt}".encode()
    share = zlib.crc32(key) / 0xFFFFFFFF * 2 - 1
    return max(0.0, delay * (1 + backoff.jitter * share))


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
            attempts=_charged(step),
        )
        _succeed(engine, run, step, outcome, engine.encode_failure(failure), now, error=error)
    else:
        _end_step_failed(run, step, outcome, _with_count(step, error), now)
    _note_attempt(run, step, outcome, now)


def _with_count(step: StepState, error: ErrorRecord) -> ErrorRecord:
    """Say in the error of a step that was lost again and again that this was the last time."""
    lost = step.losses + step.out_of_memory
    if error.cause not in (Cause.WORKER_LOST, Cause.OUT_OF_MEMORY) or lost < 2:
        return error
    allowed = f"lost_retries={step.options.lost_retries}"
    if error.cause is Cause.OUT_OF_MEMORY:
        allowed = "after that it is tried again once"
    return msgspec.structs.replace(error, message=f"{error.message} (lost {lost} times; {allowed})")


def _charged(step: StepState) -> int:
    """Count the tries that the step itself spent: a death around it must not enter a value."""
    return max(1, step.user_errors or step.losses + step.out_of_memory)


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
    run.outbox.lost.append(StepKey(StepId(step.id), step.generation))
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
