"""What a run would come to, played through without running anything.

The engine's own rules move the steps; only the values of steps that would run are pretended. What
these will be nobody knows, so there are two ways to play: as if each came out other than anything
that was ever consumed, and as if each came out just as before. A step that runs in both runs for
certain; one that runs in the first only depends on what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop

from perdure.engine.advance import mark_done, settle
from perdure.engine.placing import first_ready
from perdure.engine.state import RunState, StepState
from perdure.plan import path_text
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Digest, Place, StoredValue


class _AsBefore(str):
    """A value digest that equals any other: the value came out as it was."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = str.__hash__


def play(run: RunState, now: datetime, *, as_before: bool) -> dict[str, str]:
    """Play a freshly loaded run to its end; return why steps ran, by step id. Uses up ``run``.

    Args:
        run: the state, as a coordinator would begin with it.
        now: the time.
        as_before: whether values come out as they were before, or other than ever.
    """
    ran: dict[str, str] = {}
    settle(run, run.steps.values(), now)
    while ready := list(_take_ready(run)):
        for step in ready:
            if step.status is not StepStatus.READY:
                continue  # sent back meanwhile: an input of it has to be rebuilt first
            ran[step.id] = step.reason
            step.status = StepStatus.SUCCEEDED
            step.value = _pretended(step, _AsBefore("") if as_before else f"unknown:{step.id}")
            settle(run, mark_done(run, step), now)
    return ran


def _take_ready(run: RunState) -> Iterator[StepState]:
    for heap in list(run.ready.values()):
        while (step := first_ready(run, heap)) is not None:
            heappop(heap)
            yield step
    while run.delayed:  # a retry that waits for its time: it will have come
        step = run.steps[heappop(run.delayed)[2]]
        if step.status is StepStatus.READY:
            yield step


def _pretended(step: StepState, digest: str) -> StoredValue:
    return StoredValue(
        codec="",
        place=Place.INLINE,
        size_bytes=0,
        integrity=Digest(""),
        value_digest=digest,
        parts={path_text(path): digest for path in step.parts},
    )
