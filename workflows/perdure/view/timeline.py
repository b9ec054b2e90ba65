"""Who ran when: of each step what it waited for a place, ran, and waited for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from perdure.progress.causes import how_long
from perdure.view.model import CUT_OFF, SpanView, TimelineView
from perdure_storage.records import AttemptRecord, Cause

if TYPE_CHECKING:
    from perdure.runs import Step


_KINDS = {
    None: "RUNNING",
    Cause.SUCCEEDED: "SUCCEEDED",
    Cause.CANCELLED: "CANCELLED",
    Cause.WORKER_LOST: "LOST",
    Cause.INPUT_LOST: "LOST",
    Cause.INPUT_UNAVAILABLE: "LOST",
}


def view_timeline(
    steps: Sequence[Step], *, begin: datetime | None, end: datetime
) -> TimelineView | None:
    """Return who ran when, as long as the run; None where nothing has begun.

    Args:
        steps: all steps of a run, in plan order.
        begin: when the run was first driven.
        end: when it ended; of one that has not, the time, which is the end of what still goes on.
    """
    starts = [t.started_at for step in steps for t in step.attempts if t.started_at is not None]
    if not starts:
        return None
    first = min(starts) if begin is None else min(begin, *starts)
    clock = _Clock(first, end)
    known = _Ends(steps, first)
    found = {step.id: list(_spans(step, known, clock)) for step in steps}
    told = sorted((spans for spans in found.values() if spans), key=lambda spans: spans[0].start)
    spans = tuple(span for each in told for span in each)
    seconds = max([clock.at(end), *(span.end for span in spans)])
    return TimelineView(begin=first, seconds=seconds, spans=spans)


class _Clock:
    def __init__(self, first: datetime, end: datetime) -> None:
        self._first, self._end = first, end

    def at(self, when: datetime | None) -> float:
        return max(0.0, ((when or self._end) - self._first).total_seconds())


class _Ends:
    """When steps could have begun."""

    def __init__(self, steps: Sequence[Step], first: datetime) -> None:
        self._first = first
        self._ended = {s.id: s.row.finished_at for s in steps if s.row is not None}
        self._grew = {
            s.id: max(
                (t.finished_at for t in s.attempts if t.finished_at is not None), default=first
            )
            for s in steps
        }

    def ready(self, step: Step) -> datetime:
        """Return when all was there that it takes."""
        above = (self._ended.get(name) for name in (*step.inputs, *step.plan.after))
        given = self._grew.get(step.root, self._first) if step.root is not None else self._first
        return max([given, *(each for each in above if each is not None)])


def _spans(step: Step, known: _Ends, clock: _Clock) -> Iterator[SpanView]:
    ready: datetime | None = known.ready(step)
    last: datetime | None = None
    for attempt in step.attempts:
        if attempt.started_at is None:
            continue  # it never began
        start, end = clock.at(attempt.started_at), clock.at(attempt.finished_at)
        if attempt.generation == 1 and ready is not None and clock.at(ready) < start:
            yield SpanView(step.id, "queued", clock.at(ready), start)
        yield SpanView(step.id, _kind(attempt), start, end, attempt.attempt, attempt.worker)
        ready = last = attempt.finished_at
    if last is None or (step.is_left and step.attempts[-1].cause is not Cause.SUCCEEDED):
        return
    ended = step.row.finished_at if step.row is not None else None
    if step.status == "WAITING" or step.is_left or (ended is not None and ended > last):
        yield SpanView(step.id, "waited", clock.at(last), clock.at(ended))


def _kind(attempt: AttemptRecord) -> str:
    if attempt.cause is not None and how_long(attempt) is None:
        return CUT_OFF
    return _KINDS.get(attempt.cause, "FAILED")
