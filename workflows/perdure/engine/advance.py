"""How steps move: from pending to ready, to done, and back when a value is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from heapq import heappush

from perdure.engine.actors import absent_for_replay, take_states, wait_for_effects
from perdure.engine.branching import (
    CHOSE,
    choose,
    chosen_branch,
    has_changed_its_mind,
    settle_selects,
)
from perdure.engine.endings import count_ended, row_of
from perdure.engine.matching import Matching
from perdure.engine.state import RunState, StepState
from perdure.plan import FromStep, ItemsOf
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    EventRecord,
    Place,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
)


def settle(run: RunState, steps: Iterable[StepState], now: datetime) -> None:
    """Move steps with nothing missing on: take over, ask for lost inputs, or make ready.

    Iterative: a chain of take-overs or of lineage of any length costs no stack.
    """
    work = deque(steps)
    while work:
        step = work.popleft()
        if step.status is not StepStatus.PENDING or step.missing or not step.wanted:
            continue
        if step.given is not None:
            take_given(run, step, step.given, now)
            work.extend(mark_done(run, step, now))
            continue
        if step.branches and (step.chosen is None or has_changed_its_mind(run, step)):
            work.extend([*choose(run, step, now), step])
            continue
        if step.plan.turns and wait_for_effects(run, step):
            continue
        if (row := _unchanged(run, step)) is not None:
            adopt(run, step, row, "its inputs turned out unchanged", now)
            work.extend(mark_done(run, step, now))
            continue
        if step.branches:
            work.extend(_take_branch(run, step, now))
            continue
        absent = [
            run.steps[ref.step]
            for ref in step.refs
            if isinstance(ref, FromStep | ItemsOf)
            and not run.steps[ref.step].unneeded
            and not run.steps[ref.step].has_value
            and not (isinstance(ref, ItemsOf) and run.steps[ref.step].items is not None)
        ] + absent_for_replay(run, step)
        if absent:
            for upstream in dict.fromkeys(absent):
                work.append(reopen(run, upstream, f"its value is needed by {step.id}", now))
            continue
        make_ready(run, step, now)


def _unchanged(run: RunState, step: StepState) -> StepRecord | None:
    """Return the older row of a step that consumed just what it would consume now."""
    if not step.candidates:
        return None
    inputs = run.input_digests(step)
    return next((row for row in step.candidates if row.inputs == inputs), None)


def _take_branch(run: RunState, select: StepState, now: datetime) -> list[StepState]:
    """Give a select the value of its branch; return what may move on now.

    Where the select's own value was lost it was that of the branch, whose bytes are gone as well.
    """
    branch = chosen_branch(run, select)
    value = branch.value
    if value is None or value.place in (Place.NONE, Place.SPOOL) or value.integrity in run.gone:
        return [reopen(run, branch, f"its value is that of {select.id}", now)]
    select.status = StepStatus.SUCCEEDED
    select.value, select.inputs = value, run.input_digests(select)
    select.reason = f"{CHOSE}{branch.id}: {select.branches[select.chosen or 0]!r} was chosen"
    row = row_of(run, select, StepStatus.SUCCEEDED, now, inputs=select.inputs, value=value)
    run.outbox.steps.append(row)
    return mark_done(run, select, now)


def make_ready(run: RunState, step: StepState, now: datetime) -> None:
    """Put a step whose inputs are there into its queue, or to wait for its back-off deadline."""
    step.status = StepStatus.READY
    if step.not_before is not None and step.not_before > now:
        heappush(run.delayed, (step.not_before, step.position, step.id))
        return
    step.ready_at = now
    run.enqueue(step)


def adopt(run: RunState, step: StepState, row: StepRecord, reason: str, now: datetime) -> None:
    """Take over a committed result as this step's, without running it. Does not wake consumers."""
    step.status = StepStatus.SUCCEEDED
    step.value, step.inputs = row.value, row.inputs
    take_states(step, row)
    step.reason = reason + run.noted.get(step.plan.function, "")
    run.outbox.steps.append(
        row_of(
            run,
            step,
            StepStatus.SUCCEEDED,
            row.finished_at or now,
            code=row.code,
            inputs=row.inputs,
            value=row.value,
            caught=row.caught,
            started_at=row.started_at,
            worker=row.worker,
            states=row.states,
        )
    )


def hold(run: RunState, matching: Matching, now: datetime, *, reason: str = "") -> None:
    """Let older rows stand for the steps that they match; those of done steps are left alone."""
    for step_id, row in matching.kept.items():
        step = run.steps[step_id]
        step.status = StepStatus.SUCCEEDED
        step.generation, step.attempt = row.generation, row.attempt
        step.value, step.inputs, step.reason = row.value, row.inputs, row.reason
        take_states(step, row)
        run.unfinished -= 1
    for step_id in sorted(matching.adopted, key=lambda step_id: run.steps[step_id].position):
        step, row = run.steps[step_id], matching.adopted[step_id]
        if not step.is_done:
            adopt(run, step, row, reason or f"unchanged in {row.run_id}", now)
            run.unfinished -= 1
    for step_id, rows in matching.candidates.items():
        run.steps[step_id].candidates += rows
    for step_id, why in matching.reasons.items():
        run.steps[step_id].reason = why


def take_given(run: RunState, step: StepState, value: StoredValue, now: datetime) -> None:
    """Commit the value that was given in place of the step's own; its function is not called.

    Also where that value was found to be gone: nothing else could make it again.
    """
    step.status = StepStatus.SUCCEEDED
    step.value = value
    step.reason = f"its value was given when the run was forked from {run.record.forked_from}"
    run.outbox.steps.append(row_of(run, step, StepStatus.SUCCEEDED, now, code="", value=value))


def mark_done(run: RunState, step: StepState, now: datetime) -> list[StepState]:
    """Count a step that has just become done; return the steps that now miss nothing.

    Who takes its items has had them since it expanded, if it did; but its value only now. A select
    that was done when the run was loaded, and its choice was not, learns its branch here.
    """
    freed = count_ended(run, step)
    for consumer in step.consumers:
        if consumer.answer == step.id and consumer.status is StepStatus.WAITING:
            run.answered.append(consumer)
        elif consumer.branches:
            freed += settle_selects(run, [consumer], now)
    for follower in step.followers:
        if follower.status is StepStatus.WAITING and follower.answer:
            run.answered.append(follower)
        elif follower.status is StepStatus.PENDING and step.items is None:
            follower.missing -= 1
            if not follower.missing:
                freed.append(follower)
    return freed


def open_items(run: RunState, step: StepState) -> list[StepState]:
    """Count a map that has just expanded; return those that take its items and miss nothing."""
    pending = [each for each in step.followers if each.status is StepStatus.PENDING]
    for follower in pending:
        follower.missing = run.missing_of(follower)
    return pending


def reopen(run: RunState, step: StepState, reason: str, now: datetime) -> StepState:
    """Begin a new generation of a done step whose value is gone; consumers wait for it again."""
    if step.value is not None and step.value.place is Place.BLOB:
        run.gone.add(step.value.integrity)
    run.outbox.lose(StepKey(StepId(step.id), step.generation))
    run.outbox.events.append(
        EventRecord(kind="lost", at=now, step_id=StepId(step.id), detail={"why": reason})
    )
    begin_again(run, step, f"rebuilt: {reason}")
    return step


def begin_again(run: RunState, step: StepState, reason: str) -> None:
    """Open a new generation of a step that was done; its waiting consumers miss it again."""
    step.open_generation(reason)
    step.rebuilt += 1
    step.candidates = ()
    run.unfinished += 1
    pend(run, step)
    for dep in step.deps:
        run.steps[dep].open_consumers += 1
    for consumer in (*step.consumers, *step.followers):
        if consumer.status in (StepStatus.PENDING, StepStatus.READY):
            pend(run, consumer)


def pend(run: RunState, step: StepState) -> None:
    """Send a step back to wait for its inputs, counting anew what it misses."""
    step.status = StepStatus.PENDING
    step.missing = run.missing_of(step)
