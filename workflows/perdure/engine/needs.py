"""Steps that nobody needs any more: losers of a race are ended, by rows that a resume keeps to.

The rows are in the commit of what decided the race. When a run is loaded the losers are found
anew from what was decided, so that a row stands no longer than the decision does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from perdure.engine.branching import forget_skipped
from perdure.engine.commands import Kill
from perdure.engine.endings import count_ended, row_of
from perdure.engine.racing import STEPS, standing
from perdure.engine.state import EngineState, RunState, StepState
from perdure.plan import RefTo, upstream
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Cause, StepKey, StepRecord, WaitRecord

STOPPED = "not needed: stop_when held for "
"""Before the id of the child of a map whose value was enough: why the others were ended."""


class Losers(NamedTuple):
    """What was ended because nobody needs it, and who may move on now."""

    ended: list[StepState]
    freed: list[StepState]


def end_losers(run: RunState, wait: StepState, now: datetime) -> Losers:
    """End what a wait that is over leaves, as far as nobody else needs it."""
    _, pending, _ = standing(run, run.decided[wait.id].match)
    left = dict.fromkeys([*(ref.step_id for ref in pending), *upstream(wait.plan)])
    steps = [run.steps[name] for name in left if name in run.steps]
    return end_unneeded(run, steps, f"not needed: {wait.id} had enough", now)


def end_unneeded(
    run: RunState,
    candidates: Iterable[StepState],
    reason: str,
    now: datetime,
    *,
    besides: StepState | None = None,
) -> Losers:
    """End steps that nobody needs any more, with all that only they need.

    Args:
        run: the run.
        candidates: the losers.
        reason: why they are not needed, for their rows.
        now: the time.
        besides: a step whose need of them does not count: it does without them.
    """
    losers = Losers([], [])
    mentioned = _mentioned(run)
    stack = list(candidates)[::-1]
    while stack:
        step = stack.pop()
        if _is_over(step) or step.status is StepStatus.FAILED:
            continue
        if _is_needed(step, besides, mentioned) or step.id in run.outputs:
            continue
        losers.freed.extend(_end(run, step, reason, now))
        losers.ended.append(step)
        if any(isinstance(ref, RefTo) for ref in step.refs):
            mentioned = _mentioned(run)
        below = (*upstream(step.plan), *step.plan.after, *step.members)
        stack += [run.steps[name] for name in below if name in run.steps]
    return losers


def kill(engine: EngineState, run: RunState, losers: Losers) -> None:
    """End the attempts of steps that were ended."""
    calls = tuple(call for call, step in run.running.items() if step in losers.ended)
    if calls:
        engine.kills.append(Kill(run.executor, calls, Cause.CANCELLED))


def _is_over(step: StepState) -> bool:
    return step.is_done or step.status is StepStatus.CANCELLED


def _is_needed(step: StepState, besides: StepState | None, mentioned: Collection[str]) -> bool:
    """Say whether a step that is not over needs this one, or what its graph is made of.

    One whose value others had is being made again, and may be asked for again.
    """
    had = any(user.status is StepStatus.SUCCEEDED for user in step.consumers)
    if had or step.id in mentioned:
        return True
    return any(user is not besides and not _is_over(user) for user in _users(step))


def _users(step: StepState) -> Iterable[StepState]:
    """Return who takes a step's value, or may come to: selects that have not chosen."""
    undecided = (user for user in step.users if user.branches and user.chosen is None)
    return (*step.consumers, *step.followers, *undecided)


def _mentioned(run: RunState) -> set[str]:
    """Return the steps that steps which are not over name without taking their value.

    Those of a graph are named with the steps in whose graphs they are, unless these are where they
    are named or taken.
    """
    namers: dict[str, list[StepState]] = {}
    for step in run.steps.values():
        for ref in step.refs if not _is_over(step) else ():
            if isinstance(ref, RefTo):
                namers.setdefault(ref.step, []).append(step)
    for waiting in run.waits.values():
        if waiting.wait is not None and waiting.wait.kind == STEPS:
            for pending in standing(run, waiting.wait.match)[1]:
                namers.setdefault(pending.step_id, []).append(waiting)
    named = set(namers)
    for step in run.steps.values():
        if step.below is not None and not _is_over(step):
            named.update(_asked_for(step, namers.get(step.id, ())))
    return named


def _asked_for(step: StepState, namers: Iterable[StepState]) -> Iterator[str]:
    """Yield in whose graphs a step is that somebody outside of them needs."""
    users = [user for user in _users(step) if user is not step.answers and not _is_over(user)]
    users += namers
    root = step.below
    while root is not None and any(not _is_within(user, root) for user in users):
        yield root.id
        root = root.below


def _is_within(step: StepState, root: StepState) -> bool:
    """Say whether a step is the one that gave a graph, or in that graph, or in one below it."""
    place: StepState | None = step
    while place is not None and place is not root:
        place = place.below
    return place is not None


def _end(run: RunState, step: StepState, reason: str, now: datetime) -> list[StepState]:
    """End a step; return those that do without it and miss nothing now."""
    run.end_wait(step)
    step.status, step.unneeded, step.reason = StepStatus.CANCELLED, True, reason
    forget_skipped(run, step)
    row = run.ended.pop(step.id, None)
    if row is None:
        # Settled, as a failure that was caught is: a resume does not begin it again.
        row = row_of(run, step, StepStatus.CANCELLED, now, attempt=step.attempt, caught=True)
        run.outbox.steps.append(row)
    else:  # it was ended in an earlier life of the run
        step.generation = row.generation
    return count_ended(run, step)


# --- when a run is loaded -----------------------------------------------------------------------
def remember_races(run: RunState, rows: Iterable[StepRecord], waits: Iterable[WaitRecord]) -> None:
    """Note which waits end what they leave, and the rows of what was ended in the run's plan."""
    for record in waits:  # by step and generation: the newest counts
        if record.kind == STEPS and record.match["cancel_rest"]:
            run.decided[record.step_id] = record
    for row in rows:
        if row.status is StepStatus.CANCELLED and row.current:
            run.ended[row.step_id] = row


def end_again(run: RunState, now: datetime) -> None:
    """End what was not needed before and is not now; rows of other steps are out of force."""
    for step_id, record in run.decided.items():
        step = run.steps.get(step_id)
        if step is not None and step.is_done and step.generation == record.generation:
            end_losers(run, step, now)
    for row in run.ended.values():
        run.outbox.supersede(StepKey(row.step_id, row.generation))
    run.ended.clear()
