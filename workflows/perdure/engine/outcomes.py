"""What the end of an attempt means: a result, another try, a failure, or lineage."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.calls import CallId, FirstTry, Growth, Outcome, Wait
from perdure.engine.actors import changes_state, is_unkept, lose_state, note_end, note_success
from perdure.engine.advance import mark_done, open_items, pend, reopen, settle
from perdure.engine.commands import Kill
from perdure.engine.divergence import (
    diverged_consumers,
    error_of_divergence,
    may_diverge,
    recompute,
)
from perdure.engine.endings import row_of
from perdure.engine.events import Ended, Verified
from perdure.engine.growth import (
    descendants,
    expand,
    graft,
    outside,
    plan_of,
    reach,
    recall,
    retire_leftovers,
    root_of,
    settle_graft,
)
from perdure.engine.needs import STOPPED, end_unneeded, kill
from perdure.engine.paces import BRIEF_S
from perdure.engine.placement import shortage
from perdure.engine.racing import targets_of
from perdure.engine.readers import find_readers, let_go
from perdure.engine.restore import count_cause
from perdure.engine.saves import spend
from perdure.engine.state import EngineState, RunState, StepState
from perdure.engine.waits import begin_wait
from perdure.errors import Failure
from perdure.plan import Backoff, Plan, options_in, request_of
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    EventRecord,
    Place,
    StepId,
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
_WITH_PROCESS = (Cause.WORKER_LOST, Cause.OUT_OF_MEMORY, Cause.TIMEOUT)
"""What ends an attempt together with its process."""
_UNCAUGHT = (Cause.ENGINE_ERROR, Cause.INPUT_LOST, Cause.INPUT_UNAVAILABLE)
"""What is no failure of a step's own: as its value it would stand when the store is mended."""


def on_ended(engine: EngineState, event: Ended, now: datetime) -> None:
    """Free what the attempt held and work its outcome into the run."""
    outcome = event.outcome
    if orphan := engine.orphans.pop(outcome.id, None):
        engine.pools[orphan[0]].give(orphan[1], outcome.id)
        return
    if made := engine.in_making.pop(outcome.id, None):
        # Made or not: should it not be there, the next call makes it, and bears what comes of that.
        engine.pools[made[0]].give(made[1], outcome.id)
        engine.touched[outcome.id.run_id] = None
        return
    run = engine.runs.get(outcome.id.run_id)
    step = run.running.pop(outcome.id, None) if run is not None else None
    if run is None or step is None:
        return
    engine.touched[run.id] = None
    engine.pools[run.executor].give(step.shape, outcome.id, is_gone=outcome.cause in _WITH_PROCESS)
    if outcome.started_at is not None and outcome.finished_at is not None:
        seconds = (outcome.finished_at - outcome.started_at).total_seconds()
        if seconds > BRIEF_S or not run.paces.has_seen(step.plan.function):
            engine.paces.note(step.plan.function, seconds)
        run.paces.note(step.plan.function, seconds)
    if outcome.cause is not Cause.SUCCEEDED:
        note_end(run, step)
    if step.status is StepStatus.CANCELLED:  # nobody needs it any more
        _note_attempt(run, step, outcome, now)
    elif outcome.cause is Cause.SUCCEEDED and outcome.growth is not None:
        _grow(engine, run, step, outcome, outcome.growth, now)
    elif outcome.cause is Cause.SUCCEEDED and outcome.wait is not None:
        _begin_wait(engine, run, step, outcome, outcome.wait, now)
    elif outcome.cause is Cause.SUCCEEDED and outcome.value is not None:
        if outcome.value.place is Place.BLOB:
            run.seen.add(outcome.value.integrity)
        succeed(engine, run, step, outcome, outcome.value, now)
        if outcome.stops and step.is_done:
            _stop_map(engine, run, step, now)
    else:
        _OUTCOMES[outcome.cause](engine, run, step, outcome, now)


def on_verified(engine: EngineState, event: Verified, now: datetime) -> None:
    """Let a run end with a value that is there; make one again that is not."""
    run = engine.runs.get(event.run_id)
    step = run.steps.get(event.step_id) if run is not None else None
    if run is None or step is None:
        return
    engine.touched[run.id] = None
    if not event.damage:
        run.seen.add(event.digest)
    elif step.is_done and step.value is not None and step.value.integrity == event.digest:
        engine.quarantine.append(event.digest)
        progress(engine, run, [reopen(run, step, event.damage, now)], now)


def progress(engine: EngineState, run: RunState, steps: Iterable[StepState], now: datetime) -> None:
    """Move steps on that miss nothing, and those whose value another one has brought."""
    steps, run.reopened = [*steps, *run.reopened], []
    settle(run, steps, now)
    while run.answered:
        root = run.answered.pop()
        if _has_answer(run, root):
            settle(run, _answered(engine, run, root, now), now)


def _has_answer(run: RunState, root: StepState) -> bool:
    """Say whether a step that waits for its graph has its value now.

    It is made of the values of maps whose items it took, so these are to be there as well.
    """
    return (
        root.status is StepStatus.WAITING
        and run.steps[root.answer].is_done
        and all(run.steps[opened].is_done for opened in root.opens)
    )


def succeed(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    value: StoredValue,
    now: datetime,
    *,
    error: ErrorRecord | None = None,
) -> None:
    """Commit a value as that of the step, and move on those that need it."""
    progress(engine, run, _conclude(engine, run, step, outcome, value, now, error=error), now)


def _conclude(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    value: StoredValue,
    now: datetime,
    *,
    error: ErrorRecord | None = None,
) -> list[StepState]:
    """Make a value that of the step; return the consumers that now miss nothing."""
    step.value = value
    run.gone.discard(value.integrity)
    # Whoever rebuilds it may not be the one that missed it: that owner may have died meanwhile.
    diverged, away = diverged_consumers(run, step), find_readers(run, step)
    again: list[StepState] = []
    if diverged or away:
        names = [each.id for each in diverged]
        names += [row.step_id for rows in away.values() for row in rows]
        # The state of an actor rests on such a value: the calls since cannot be made again singly.
        is_in_state = any(changes_state(each) for each in diverged) or any(
            row.states for rows in away.values() for row in rows
        )
        recomputes = run.record.policy.on_divergence == "recompute"
        if (is_in_state and recomputes) or not may_diverge(run, step, names, now):
            _fail_diverged(run, step, outcome, names, now)
            return []
        if recomputes:
            for each in (*diverged, *let_go(run, away)):
                again += recompute(run, each, f"{step.id} was rebuilt with another value")
    step.status = StepStatus.SUCCEEDED
    if error is None or step.plan.actor is None:
        note_success(run, step, outcome.states)
    spend(run, step)
    run.outbox.attempts.pop(outcome.id, None)
    row = _row(
        run,
        step,
        outcome,
        StepStatus.SUCCEEDED,
        now,
        value=value if run.stores(step) else _without_bytes(value),
        error=error,
        caught=error is not None,
        states=dict(step.states),
    )
    run.outbox.steps.append(row)
    freed = mark_done(run, step, now)
    freed += [each for each in again if not each.missing]
    for dep in step.deps:
        _forget_spooled(engine, run, run.steps[dep])
    return freed


def _forget_spooled(engine: EngineState, run: RunState, step: StepState) -> None:
    """Let go of an unsynced value whose last consumer has committed."""
    if step.value is not None and step.value.place is Place.SPOOL and not step.open_consumers:
        engine.forget.append((run.id, step.value.integrity))
        step.value = _without_bytes(step.value)


def _without_bytes(value: StoredValue) -> StoredValue:
    return msgspec.structs.replace(value, place=Place.NONE, data=None)


def _row(
    run: RunState,
    step: StepState,
    outcome: Outcome,
    status: StepStatus,
    now: datetime,
    **more: Any,
) -> StepRecord:
    return row_of(
        run,
        step,
        status,
        outcome.finished_at or now,
        attempt=outcome.id.attempt,
        inputs=step.inputs,
        started_at=outcome.started_at,
        worker=outcome.worker,
        peak_memory_bytes=outcome.peak_memory_bytes,
        **more,
    )


# --- losers -----------------------------------------------------------------------------------
def _stop_map(engine: EngineState, run: RunState, child: StepState, now: datetime) -> None:
    """End the children of a map that are not done: the value of one of them is enough."""
    root = child.below
    if root is None or root.items is None or root.answer == child.id:
        return
    answer = run.steps[root.answer]
    others = [run.steps[name] for name in root.members if name != answer.id]
    reason = f"{STOPPED}{child.id}"
    losers = end_unneeded(run, others, reason, now, besides=answer)
    kill(engine, run, losers)
    progress(engine, run, losers.freed, now)


# --- a graph in place of a value --------------------------------------------------------------
def _grow(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    growth: Growth,
    now: datetime,
) -> None:
    """Let the graph that the step gave become part of the run; its chain waits for the value."""
    _note_attempt(run, step, outcome, now)
    root = root_of(step)
    if root is step:
        step.started_at, step.worker = outcome.started_at, outcome.worker
    expansion = expand(run, step, growth)
    plan = plan_of(expansion)
    if lost := [name for name in outside(plan) if not reach(run, name, now)]:
        message = f"the graph that {root.id} gave refers to {lost[0]}, which is no step of this run"
        _fail_waiting(engine, run, root, message, now)
        return
    run.outbox.expansions.append(expansion)
    grafted = graft(run, root, expansion, plan)
    missing = _shortage(engine, run, root, plan)
    if not missing or engine.serves:
        settle_graft(run, grafted, now)
    _tell_executor(engine, run)
    if missing and engine.serves:
        _hand_back(engine, run, root, missing, now)
    elif missing:
        _fail_waiting(engine, run, root, missing, now)
        return
    for step_id, first in growth.failed.items():
        _had_a_try(engine, run, run.steps[step_id], outcome, first, now)
    freed = open_items(run, root) if root.items is not None else []
    moving = [run.steps[name] for name in (*root.members, *outside(plan))]
    progress(engine, run, [*moving, *freed], now)


def _had_a_try(
    engine: EngineState,
    run: RunState,
    step: StepState,
    chunk: Outcome,
    first: FirstTry,
    now: datetime,
) -> None:
    """Let what an item raised in a chunk be the first try of the step that it has become.

    It has the number that the item was told: earlier tries of the chunk were cut off.
    """
    if step.status is not StepStatus.PENDING:
        return  # an older row stands for it
    step.status = StepStatus.RUNNING
    step.attempt = max(step.attempt + 1, chunk.id.attempt)
    step.inputs = run.input_digests(step)
    error = msgspec.structs.replace(first.error, step_id=step.id)
    outcome = msgspec.structs.replace(
        chunk,
        id=CallId(run.id, step.id, step.generation, step.attempt),
        cause=Cause.USER_ERROR,
        growth=None,
        error=error,
        retryable=first.retryable,
    )
    _on_user_error(engine, run, step, outcome, now)


def _tell_executor(engine: EngineState, run: RunState) -> None:
    engine.extensions += run.extensions
    run.extensions.clear()


def _shortage(engine: EngineState, run: RunState, root: StepState, plan: Plan) -> str:
    capacity = engine.pools[run.executor].capacity
    offer = capacity.offer
    for step, options in options_in(plan):
        if missing := shortage(request_of(options), offer, capacity.places):
            return f"step {step.id}, which {root.id} gave, can never run here: {missing}"
    return ""


def _hand_back(
    engine: EngineState, run: RunState, root: StepState, why: str, now: datetime, **more: object
) -> None:
    """Leave a run to another host, once what runs here has ended.

    The row of the graph says what it needs: no host takes it on that has less.
    """
    run.handed_back = True
    detail = {"why": why, "place": engine.place, **more}
    event = EventRecord(kind="handed-back", at=now, step_id=StepId(root.id), detail=detail)
    run.outbox.events.append(event)


def _answered(
    engine: EngineState, run: RunState, root: StepState, now: datetime
) -> list[StepState]:
    """Give a step the value of the one that answers for it; return the consumers that it frees."""
    answer = run.steps[root.answer]
    is_unsynced = answer.value is not None and answer.value.place is Place.SPOOL
    if answer.value is None or not answer.has_value or (is_unsynced and run.stores(root)):
        return [reopen(run, answer, f"its value is that of {root.id}", now)]
    retire_leftovers(run, root)
    if root.opens:  # the values are there now, of which it had the items
        root.inputs = run.input_digests(root)
    return _conclude(engine, run, root, of_waiting(run, root, Cause.SUCCEEDED), answer.value, now)


def of_waiting(
    run: RunState, root: StepState, cause: Cause, error: ErrorRecord | None = None
) -> Outcome:
    """Return the outcome of a step that waited, for its graph or a message: nobody runs it now."""
    return Outcome(
        id=CallId(run.id, root.id, root.generation, root.attempt),
        cause=cause,
        error=error,
        worker=root.worker,
        started_at=root.started_at,
    )


def _fail_waiting(
    engine: EngineState, run: RunState, root: StepState, message: str, now: datetime
) -> None:
    error = ErrorRecord(type="perdure.errors.DefinitionError", message=message)
    _cancel_below(engine, run, root)
    fail(engine, run, root, of_waiting(run, root, Cause.SETUP_ERROR, error), now)


def _catcher(step: StepState) -> StepState | None:
    """Return the nearest step around this one that takes failures as values."""
    root = step.below
    while root is not None and not root.options.catch:
        root = root.below
    return root


def _cancel_below(engine: EngineState, run: RunState, root: StepState) -> None:
    """End all that belongs to a step's graph and is not done: nobody needs it any more."""
    unneeded = [
        step
        for step in descendants(run, root)
        if not step.is_done and step.status is not StepStatus.CANCELLED
    ]
    calls = tuple(call for call, step in run.running.items() if step in unneeded)
    if calls:
        engine.kills.append(Kill(run.executor, calls, Cause.CANCELLED))
    for step in unneeded:
        run.end_wait(step)
        step.status = StepStatus.CANCELLED
        run.arrive(step)
    run.unfinished -= len(unneeded)


def _begin_wait(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    wait: Wait,
    now: datetime,
) -> None:
    """Let a step wait for a time, a message or other steps, which are to be of this run."""
    _note_attempt(run, step, outcome, now)
    lost = [name for name in targets_of(wait) if not reach(run, name, now)]
    _tell_executor(engine, run)
    if lost:
        message = f"{step.id} waits for {lost[0]}, which is no step of this run, or was cancelled"
        error = ErrorRecord(type="perdure.errors.DefinitionError", message=message)
        fail(engine, run, step, of_waiting(run, step, Cause.SETUP_ERROR, error), now)
    else:
        begin_wait(run, step, outcome, wait)
        progress(engine, run, (), now)


# --- another try ------------------------------------------------------------------------------
def _on_user_error(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    count_cause(step, outcome.cause)
    if outcome.retryable and step.user_errors <= step.options.retries:
        delay = delay_s(step.options.backoff, step.user_errors, outcome.id)
        _try_again(engine, run, step, outcome, now, delay)
    else:
        fail(engine, run, step, outcome, now)


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
        _try_again(engine, run, step, outcome, now, 0.0)
    else:
        fail(engine, run, step, outcome, now)


def _on_abandoned(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    _try_again(engine, run, step, outcome, now, 0.0)


def _on_unavailable(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    step.unavailable += 1
    if step.unavailable > MAX_UNAVAILABLE:
        fail(engine, run, step, outcome, now)
        return
    _try_again(
        engine, run, step, outcome, now, delay_s(UNAVAILABLE_BACKOFF, step.unavailable, outcome.id)
    )


def _on_input_lost(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    kind, _, name = outcome.culprit.partition(":")
    if kind in ("actor", "state") and step.plan.actor is not None:
        _restore_otherwise(engine, run, step, outcome, now)
        return
    upstream = run.steps.get(name) if kind == "step" else None
    if upstream is None or upstream.rebuilt >= MAX_REBUILDS:
        fail(engine, run, step, outcome, now)
        return
    _note_attempt(run, step, outcome, now)
    if upstream.is_done and upstream.value is not None:
        if upstream.value.place is Place.BLOB:
            engine.quarantine.append(upstream.value.integrity)
        why = outcome.error.message if outcome.error else "its value is gone"
        progress(engine, run, [reopen(run, upstream, why, now)], now)
    _pend(engine, run, step, now)


def _restore_otherwise(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    """Come to an actor's state by another way: its instance is gone, or a snapshot of it."""
    assert step.plan.actor is not None
    kind, _, name = outcome.culprit.partition(":")
    actor = step.plan.actor.actor
    _note_attempt(run, step, outcome, now)
    holder = run.steps.get(name)
    if kind == "state" and holder is not None and actor in holder.states:
        state = lose_state(holder, actor)
        if state.place is Place.BLOB:
            engine.quarantine.append(state.integrity)
        if is_unkept(run, holder):
            recall(run, holder, now)
            _tell_executor(engine, run)
        if is_unkept(run, holder):
            why = "the state of an actor after it is gone"
            progress(engine, run, [reopen(run, holder, why, now)], now)
    _pend(engine, run, step, now)


def _on_setup_error(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    """Leave the run to a host that may have the code or the environment that is lacking here.

    When none is left that has not tried it, the step fails, as it does where nobody else serves.
    """
    error = outcome.error
    if error is None or not engine.serves or not engine.elsewhere - run.lacked_by:
        fail(engine, run, step, outcome, now)
        return
    _try_again(engine, run, step, outcome, now, 0.0)
    if not run.handed_back:
        run.lacked_by.add(engine.token)
        why = f"{error.type.rpartition('.')[2]}: {error.message}"
        _hand_back(engine, run, step, why, now, lacks=engine.token)


def _on_final(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    fail(engine, run, step, outcome, now)


def _on_cancelled(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    step.status = StepStatus.CANCELLED
    _note_attempt(run, step, outcome, now)


def _try_again(
    engine: EngineState,
    run: RunState,
    step: StepState,
    outcome: Outcome,
    now: datetime,
    delay: float,
) -> None:
    step.not_before = now + timedelta(seconds=delay) if delay else None
    _note_attempt(run, step, outcome, now)
    _pend(engine, run, step, now)


def _pend(engine: EngineState, run: RunState, step: StepState, now: datetime) -> None:
    """Send the step back to wait for its inputs, which may have been lost meanwhile."""
    pend(run, step)
    progress(engine, run, [step], now)


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
        progress=step.progress,
    )


def delay_s(backoff: Backoff, failures: int, call: CallId) -> float:
    """Return the seconds to wait after the n-th failure; the jitter is made of the ids."""
    delay = min(backoff.max_s, backoff.first_s * backoff.factor ** (failures - 1))
    key = f"{call.run_id}/{call.step_id}/{call.generation}/{call.attempt}".encode()
    share = zlib.crc32(key) / 0xFFFFFFFF * 2 - 1
    return max(0.0, delay * (1 + backoff.jitter * share))


# --- final failure ----------------------------------------------------------------------------
def fail(
    engine: EngineState, run: RunState, step: StepState, outcome: Outcome, now: datetime
) -> None:
    """End a step for good: as a failure that somebody takes as a value, or as that of the run."""
    error = outcome.error or ErrorRecord(
        type="perdure_storage.errors.InternalError",
        message=f"an attempt ended as {outcome.cause.value!r} without an error",
        cause=Cause.ENGINE_ERROR,
    )
    error = msgspec.structs.replace(error, step_id=step.id, cause=outcome.cause)
    is_catchable = outcome.cause not in _UNCAUGHT
    catcher = _catcher(step) if is_catchable else None
    if step.options.catch and is_catchable:
        failure = _failure(step, error)
        succeed(engine, run, step, outcome, engine.encode(failure), now, error=error)
    elif catcher is not None:
        row = _failed_row(run, step, outcome, error, now)
        run.outbox.steps.append(msgspec.structs.replace(row, caught=True))
        _cancel_below(engine, run, catcher)
        around = of_waiting(run, catcher, Cause.SUCCEEDED)
        value = engine.encode(_failure(step, error))
        succeed(engine, run, catcher, around, value, now, error=error)
    else:
        error = _with_count(step, error)
        run.outbox.steps.append(_failed_row(run, step, outcome, error, now))
        step.status = StepStatus.FAILED
        run.failure = run.failure or error
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


def _failure(step: StepState, error: ErrorRecord) -> Failure:
    return Failure(
        type=error.type,
        message=error.message,
        traceback=error.traceback[-MAX_CAUGHT_TRACEBACK:],
        step_id=step.id,
        index=step.plan.item,
        attempts=_charged(step),
    )


def _charged(step: StepState) -> int:
    """Count the tries that the step itself spent: a death around it must not enter a value."""
    return max(1, step.user_errors or step.losses + step.out_of_memory)


def _failed_row(
    run: RunState, step: StepState, outcome: Outcome, error: ErrorRecord, now: datetime
) -> StepRecord:
    return msgspec.structs.replace(_row(run, step, outcome, StepStatus.FAILED, now), error=error)


def _fail_diverged(
    run: RunState, step: StepState, outcome: Outcome, names: Sequence[str], now: datetime
) -> None:
    step.value = None
    error = error_of_divergence(step, names)
    failed = msgspec.structs.replace(outcome, cause=error.cause, error=error)
    _note_attempt(run, step, failed, now)
    run.outbox.steps.append(_failed_row(run, step, failed, error, now))
    step.status = StepStatus.FAILED
    run.failure = run.failure or error


_Handler = Callable[[EngineState, RunState, StepState, Outcome, datetime], None]
_OUTCOMES: dict[Cause, _Handler] = {
    Cause.SUCCEEDED: _on_final,  # without a value: the worker is wrong
    Cause.USER_ERROR: _on_user_error,
    Cause.TIMEOUT: _on_user_error,
    Cause.WORKER_LOST: _on_loss,
    Cause.OUT_OF_MEMORY: _on_loss,
    Cause.SETUP_ERROR: _on_setup_error,
    Cause.ENGINE_ERROR: _on_final,
    Cause.INPUT_LOST: _on_input_lost,
    Cause.INPUT_UNAVAILABLE: _on_unavailable,
    Cause.CANCELLED: _on_cancelled,
    Cause.ABANDONED: _on_abandoned,
}
