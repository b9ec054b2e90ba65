"""Who ran when: of each step what it waited for a place, ran, and waited for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from perdure.progress.causes import how_long
from perdure.view.model import SpanView, TimelineView
from perdure_storage.records import AttemptRecord, Cause

if TYPE_CHECKING:
    from perdure.runs import Step


_KINDS = {
    None: "RUNNING",
    Cause.SUCCEEDED: "SUCCEEDED",
    Cause.CANCELLED: "CANCELLED",
    Cause.ABANDONED: "LOST",
    Cause.WORKER_LOST: "LOST",
    Cause.INPUT_LOST: "LOST",
    Cause.INPUT_UNAVAILABLE: "LOST",
}


def view_timeline(
    steps: Sequence[Step], *, begin: datetime | None, now: datetime
) -> TimelineView | None:
    """Return who ran when; None where nothing has begun.

    Args:
        steps: all steps of a run, in plan order.
        begin: when the run was first driven.
        now: the time, which is the end of what still goes on.
    """
    starts = [t.started_at for step in steps for t in step.attempts if t.started_at is not None]
    if not starts:
        return None
    first = min(starts) if begin is None else min(begin, *starts)
    clock = _Clock(first, now)
    known = _Ends(steps, first)
    found = {step.id: list(_spans(step, known, clock)) for step in steps}
    told = sorted((spans for spans in found.values() if spans), key=lambda spans: spans[0].start)
    spans = tuple(span for each in told for span in each)
    return TimelineView(
        begin=first, seconds=max([span.end for span in spans], default=0.0), spans=spans
    )


class _Clock:
    def __init__(self, first: datetime, now: datetime) -> None:
        self._first, self._now = first, now

    def at(self, when: datetime | None) -> float:
        return max(0.0, ((when or self._now) - self._first).total_seconds())


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
        start, end = clock.at(attempt.started_at), clock.at(_end(attempt))
        if attempt.generation == 1 and ready is not None and clock.at(ready) < start:
            yield SpanView(step.id, "queued", clock.at(ready), start)
        yield SpanView(step.id, _kind(attempt), start, end, attempt.attempt, attempt.worker)
        ready = last = attempt.finished_at
    if last is None or step.is_left:
        return
    ended = step.row.finished_at if step.row is not None else None
    if step.status == "WAITING" or (ended is not None and ended > last):
        yield SpanView(step.id, "waited", clock.at(last), clock.at(ended))


def _end(attempt: AttemptRecord) -> datetime | None:
    """Return when an attempt ended; of one that was cut off, which nobody saw, its beginning."""
    was_seen = attempt.cause is None or how_long(attempt) is not None
    return attempt.finished_at if was_seen else attempt.started_at


def _kind(attempt: AttemptRecord) -> str:
    return _KINDS.get(attempt.cause, "FAILED")
