"""Actors in a run: on which state a call is made, and from which snapshot that is come to. Pure.

A mutating call is a step with one more input, the state after the call before it, and one more
output, the state after itself, which is kept in its row. The live instance in some process is a
copy of what the rows say, and is not asked for anything that they do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from perdure.engine.state import (
    RunState,
    StepState,
    before_of,
    kept_state,
    position,
    unfinished_before,
)
from perdure.plan import FromStep, ItemsOf, StateOf
from perdure_storage.hashing import digest_of
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Place, StepRecord, StoredValue


class Way(NamedTuple):
    """How the state is come to in which a call finds its actor.

    Attributes:
        base: the call before it; None for the constructor.
        start: the call whose snapshot it begins with; None: with the constructor.
        replay: the calls that are made again from there, in order.
    """

    base: StepState | None
    start: StepState | None
    replay: tuple[StepState, ...]


def take_states(step: StepState, row: StepRecord) -> None:
    """Let a step have what an older row of it says of the states of actors."""
    step.states = dict(row.states)
    step.applied = changes_state(step) and not row.caught
    step.at = f"{row.step_id}/{row.generation}"


def changes_state(step: StepState) -> bool:
    """Say whether a step is a call that may change an actor's state."""
    use = step.plan.actor
    return use is not None and (
        use.role == "new" or (use.role == "write" and use.state != "rebuild")
    )


def way_to(run: RunState, step: StepState) -> Way:
    """Return how the state is come to on which an actor's call is made."""
    use = step.plan.actor
    assert use is not None
    if use.role == "new":
        return Way(None, None, ())
    if use.state == "rebuild":
        made = run.steps[use.actor]
        return Way(made, None, (made,))
    (turn,) = step.plan.turns
    base = position(run, turn)
    replay: list[StepState] = []
    at: StepState | None = base
    while at is not None and kept_state(at, use.actor) is None:
        replay.append(at)
        before = before_of(at, use.actor)
        at = None if before is None else position(run, StateOf(use.actor, before))
    return Way(base, at, tuple(reversed(replay)))


def is_live(run: RunState, step: StepState, way: Way) -> bool:
    """Say whether a call can be made on the live instance, as far as is known."""
    use = step.plan.actor
    if use is None or use.role != "write" or use.state == "rebuild":
        return False  # one that is rebuilt is made wherever it is not there
    if step.applied or way.base is None:
        return False
    return run.live.get(use.actor) == way.base.at


def wait_for_effects(run: RunState, step: StepState) -> bool:
    """Let a step wait for what is done again before its turn; say whether there is something.

    A graph that was done, and so has let it pass, may have to say again how it left an actor.
    """
    for turn in (*step.plan.turns, *_turns_of_replay(run, step)):
        again = unfinished_before(run, turn)
        if again is not None and again.id not in step.deps:
            step.deps += (again.id,)
            again.consumers.append(step)
            again.open_consumers += 1
    step.missing = run.missing_of(step)
    return step.missing > 0


def _turns_of_replay(run: RunState, step: StepState) -> Iterator[StateOf]:
    """Yield the turns of the calls that would be made again to come to the state of a call."""
    if step.plan.actor is None:
        return
    actor = step.plan.actor.actor
    for turn in step.plan.turns:
        at = position(run, turn)
        while kept_state(at, actor) is None and (before := before_of(at, actor)) is not None:
            earlier = StateOf(actor, before)
            yield earlier
            at = position(run, earlier)


def absent_for_replay(run: RunState, step: StepState) -> list[StepState]:
    """Return the steps whose values are gone, and needed to come to the state of a call."""
    if step.plan.actor is None:
        return []
    way = way_to(run, step)
    if not way.replay or is_live(run, step, way):
        return []
    return [
        run.steps[ref.step]
        for each in way.replay
        for ref in each.refs
        if isinstance(ref, FromStep | ItemsOf)
        and ref.step != each.plan.actor.actor  # type: ignore[union-attr]
        and not run.steps[ref.step].has_value
    ]


def keeps_state(step: StepState, way: Way) -> bool:
    """Say whether the state after a call is kept with its result."""
    use = step.plan.actor
    if use is None or use.state == "rebuild" or not changes_state(step) or step.applied:
        return False
    if step.below is not None and (step.plan.item is None or _may_be_the_last(step)):
        return True  # the row of the step that gave the graph says how it left the actor
    if use.snapshot == 0:
        return use.is_last
    # The constructor's is the first; in a graph that a step gave, the last call's is that step's.
    return use.role == "new" or use.is_last or len(way.replay) + 1 >= use.snapshot


def _may_be_the_last(step: StepState) -> bool:
    """Say whether an item of a map may be the last that changes the state, though others follow."""
    if step.options.catch or step.options.stop_when is not None:
        return True
    root = step.below
    while root is not None:
        if root.options.catch:
            return True
        root = root.below
    return False


def note_success(run: RunState, step: StepState, states: dict[str, StoredValue]) -> None:
    """Note what a call, or a graph that was given actors, has left behind."""
    if step.plan.actor is None:
        _take_from_graph(run, step)
    elif changes_state(step) and not step.applied:
        step.applied = True
        step.states = dict(states)
        step.at = f"{step.id}/{step.generation}"
        run.live[step.plan.actor.actor] = step.at


def note_end(run: RunState, step: StepState) -> None:
    """Note that an attempt ended that did not succeed: the instance that it had is gone."""
    if step.plan.actor is not None and changes_state(step):
        run.live.pop(step.plan.actor.actor, None)


def _take_from_graph(run: RunState, root: StepState) -> None:
    for actor, last in root.lasts.items():
        turn = StateOf(actor, last)
        kept = None
        if last in run.steps and unfinished_before(run, turn) is None:
            kept = kept_state(position(run, turn), actor)
        root.states[actor] = kept or _UNKEPT


_UNKEPT = StoredValue(
    codec="unkept/1",
    place=Place.NONE,
    size_bytes=0,
    integrity=digest_of(b""),
    value_digest="",
)
"""In the row of a step whose graph has called an actor: only the rows of that graph say how it is
now. Without them the step's row is of no use."""


def lose_state(step: StepState, actor: str) -> StoredValue:
    """Note that a snapshot is gone; return it. The calls since an earlier one lead to its state."""
    state = step.states[actor]
    gone = msgspec.structs.replace(state, place=Place.NONE, data=None, files=())
    step.states[actor] = _UNKEPT if step.plan.actor is None else gone
    return state


def is_unkept(run: RunState, step: StepState) -> bool:
    """Say whether what a step's graph has done to an actor is neither in its row nor in the run."""
    return (
        step.is_done
        and step.plan.actor is None  # a call says itself what it has done
        and any(
            kept_state(step, actor) is None and step.lasts.get(actor) not in run.steps
            for actor in step.states
        )
    )


def remember_lost(run: RunState, rows: Iterable[StepRecord]) -> None:
    """Note of calls whose results were lost that their effects were not."""
    for row in rows:
        step = run.steps.get(row.step_id)
        if row.status is not StepStatus.LOST or step is None or step.is_done:
            continue
        if changes_state(step) and row.fingerprint == run.fingerprints[step.id]:
            step.inputs = row.inputs
            take_states(step, row)
