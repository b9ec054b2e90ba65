"""What a run would come to, played through without running anything.

The engine's own rules move the steps; only the values of steps that would run are pretended. What
these will be nobody knows, so there are two ways to play: as if each came out other than anything
that was ever consumed, and as if each came out just as before. A step that runs in both runs for
certain; one that runs in the first only depends on what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from heapq import heappop

from perdure.engine.advance import mark_done, open_items, reopen, settle
from perdure.engine.growth import graft, is_rooted, outside, plan_of, root_of, settle_graft
from perdure.engine.placing import first_ready
from perdure.engine.state import RunState, StepState
from perdure.plan import path_text
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Digest, ExpansionRecord, Place, StoredValue

Grow = Callable[[RunState, StepState], ExpansionRecord | None]
"""Returns the graph that a step would give, where that is known before it runs."""
_PRETENDED = "pretended"


class _AsBefore(str):
    """A value digest that equals any other: the value came out as it was."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = str.__hash__


def play(run: RunState, now: datetime, grow: Grow, *, as_before: bool) -> dict[str, str]:
    """Play a freshly loaded run to its end; return why steps ran, by step id. Uses up ``run``.

    Args:
        run: the state, as a coordinator would begin with it.
        now: the time.
        grow: tells the graphs that steps would give.
        as_before: whether values come out as they were before, or other than ever.
    """
    ran: dict[str, str] = {}
    settle(run, run.steps.values(), now)
    _take_answers(run, now)
    while ready := list(_take_ready(run)) or list(_take_waits(run)):
        for step in ready:
            if step.status is not StepStatus.READY:
                continue  # sent back meanwhile: an input of it has to be rebuilt first
            ran[step.id] = step.reason
            step.inputs = run.input_digests(step)
            expansion = grow(run, step)
            if expansion is None or not _grown(run, step, expansion, now):
                step.status = StepStatus.SUCCEEDED
                step.value = _pretended(step, _AsBefore("") if as_before else f"unknown:{step.id}")
                settle(run, mark_done(run, step, now), now)
            _take_answers(run, now)
    return ran


def is_pretended(value: StoredValue) -> bool:
    """Say whether a value is one that nobody knows."""
    return value.codec == _PRETENDED


def _grown(run: RunState, step: StepState, expansion: ExpansionRecord, now: datetime) -> bool:
    """Let the graph that a step would give be part of the run, if all that it refers to is."""
    root, plan = root_of(step), plan_of(expansion)
    if not is_rooted(run, plan, now):
        return False
    settle_graft(run, graft(run, root, expansion, plan), now)
    freed = open_items(run, root) if root.items is not None else []
    settle(run, [*(run.steps[name] for name in (*root.members, *outside(plan))), *freed], now)
    return True


def _take_answers(run: RunState, now: datetime) -> None:
    """Give steps the values of those that answer for them."""
    while run.answered:
        root = run.answered.pop()
        answer = run.steps[root.answer]
        is_over = answer.is_done and all(run.steps[opened].is_done for opened in root.opens)
        if root.status is not StepStatus.WAITING or not is_over:
            continue
        if not answer.has_value:
            settle(run, [reopen(run, answer, f"its value is that of {root.id}", now)], now)
            continue
        root.status, root.value = StepStatus.SUCCEEDED, answer.value
        settle(run, mark_done(run, root, now), now)


def _take_ready(run: RunState) -> Iterator[StepState]:
    for heap in list(run.ready.values()):
        while (step := first_ready(run, heap)) is not None:
            heappop(heap)
            yield step
    while run.delayed:  # a retry that waits for its time: it will have come
        step = run.steps[heappop(run.delayed)[2]]
        if step.status is StepStatus.READY:
            yield step


def _take_waits(run: RunState) -> Iterator[StepState]:
    """End what was waited for before and is still, as if the message or the time had come."""
    for step in list(run.waits.values()):
        run.end_wait(step)
        step.status, step.reason = StepStatus.READY, "it has been waiting"
        yield step


def _pretended(step: StepState, digest: str) -> StoredValue:
    return StoredValue(
        codec=_PRETENDED,
        place=Place.INLINE,
        size_bytes=0,
        integrity=Digest(""),
        value_digest=digest,
        parts={path_text(path): digest for path in step.parts},
    )
