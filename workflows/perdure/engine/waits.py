"""Steps that wait for a time or a message: how that begins, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any

from perdure.calls import Outcome, Wait
from perdure.engine.growth import source_of
from perdure.engine.racing import STEPS, enter
from perdure.engine.state import RunState, StepState
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StepId, WaitRecord

LINGER = timedelta(seconds=1)
"""A run that has something to do within this time is not given back in between."""


def begin_wait(run: RunState, step: StepState, outcome: Outcome, wait: Wait) -> None:
    """Let a step wait, from the commit on that ends its attempt."""
    step.started_at, step.worker = outcome.started_at, outcome.worker
    record = WaitRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=step.generation,
        kind=wait.kind,
        name=wait.name,
        match=_race(wait) if wait.kind == STEPS else wait.match,
        deadline=wait.deadline,
        default=wait.default,
        source=source_of(run, step),
    )
    run.outbox.waits.append(record)
    hold_wait(run, step, record)


def _race(wait: Wait) -> dict[str, Any]:
    return {
        "steps": [[ref.step_id, list(ref.path)] for ref in wait.steps],
        "wanted": wait.wanted,
        "cancel_rest": wait.cancel_rest,
    }


def hold_wait(run: RunState, step: StepState, record: WaitRecord) -> None:
    """Make a wait part of the state, whether it is new or was recorded before."""
    step.status = StepStatus.WAITING
    step.wait = record
    run.waits[step.id] = step
    if record.deadline is not None:
        heappush(run.deadlines, (record.deadline, step.position, step.id))
    if record.name:
        run.unheard = True
    if record.kind == STEPS:
        enter(run, step, record)


def wait_again(run: RunState, waits: Iterable[WaitRecord]) -> None:
    """Take up what steps waited for when their owner was lost or let go of the run."""
    for record in waits:
        step = run.steps.get(record.step_id)
        is_open = step is not None and step.status is StepStatus.PENDING and record.message is None
        if step is None or not is_open or step.generation != record.generation:
            _leave(run, record)
            continue
        step.inputs = run.input_digests(step)
        if record.source == source_of(run, step):
            hold_wait(run, step, record)
        else:  # it is another wait now: it begins anew, under a new number
            step.generation += 1
            _leave(run, record)


def _leave(run: RunState, record: WaitRecord) -> None:
    """Remember what a wait asked for that is not taken up.

    To the store it may be open still: a message for it that is not looked at keeps the run awake.
    """
    if record.name and record.message is None:
        run.unclaimed.add(record.name)
        run.unheard = True


def names_of_waits(run: RunState) -> set[str]:
    """Return the names of the messages that steps of the run wait for, or did."""
    waits = {step.wait.name for step in run.waits.values() if step.wait and step.wait.name}
    return waits | run.unclaimed


def can_end(run: RunState) -> bool:
    """Say whether a wait of the run may end though no step of it runs: by a message, or in time.

    A wait for steps ends by itself at its deadline only.
    """
    waits = (step.wait for step in run.waits.values())
    return any(w is not None and (w.kind != STEPS or w.deadline is not None) for w in waits)


def next_deadline(run: RunState) -> datetime | None:
    """Return when the next wait ends by itself, or None."""
    while run.deadlines:
        at, _, step_id = run.deadlines[0]
        step = run.steps.get(step_id)
        if step is not None and step.wait is not None and step.wait.deadline == at:
            return at
        heappop(run.deadlines)  # it has ended otherwise
    return None
