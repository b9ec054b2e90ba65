"""Who may have a slot of a queue, and whose turn it is: pure functions that every store asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import islice

from perdure_storage.lifecycle import RunStatus
from perdure_storage.queue_records import QueueRecord
from perdure_storage.records import RunRecord


@dataclass(slots=True)
class Room:
    """How much of a queue is taken. Belongs to one transaction.

    Attributes:
        running: how many runs have a slot, by their key.
        starts: how many have begun in the window that ends now.
    """

    queue: QueueRecord
    running: dict[str, int] = field(default_factory=dict)
    starts: int = 0

    @property
    def is_full(self) -> bool:
        """Say whether no run at all can have a slot."""
        limit = self.queue.limit
        return limit is not None and sum(self.running.values()) >= limit

    def may_begin(self) -> bool:
        """Say whether a run may begin, of whichever key."""
        return not self.is_full and self._is_within_rate

    @property
    def _is_within_rate(self) -> bool:
        return self.queue.rate is None or self.starts < self.queue.rate

    def is_full_for(self, key: str) -> bool:
        """Say whether no run of a key can have a slot."""
        limit = self.queue.limit_per_key
        return bool(key) and limit is not None and self.running.get(key, 0) >= limit

    def has(self, run: RunRecord) -> bool:
        """Say whether there is a slot for a run."""
        if self.is_full or self.is_full_for(run.limit_key):
            return False
        return self._is_within_rate or run.started_at is not None

    def take(self, run: RunRecord) -> None:
        """Give a run a slot."""
        self.running[run.limit_key] = self.running.get(run.limit_key, 0) + 1
        self.starts += run.started_at is None


def needs_slot(run: RunRecord) -> bool:
    """Say whether a claim of a free run takes a slot.

    Who takes a run over finds its slot with it. One that is to be cancelled starts nothing.
    """
    return run.queue is not None and run.owner is None and not run.cancel_requested


def admitted(runs: Sequence[RunRecord], rooms: Mapping[str, Room]) -> list[RunRecord]:
    """Return those of some free runs that can be claimed, in the order given; takes their slots.

    Args:
        runs: all of them free.
        rooms: by name, of the queues that have limits.
    """
    let_in = set()
    for run in sorted(runs, key=_seniority):
        room = rooms.get(run.queue or "") if needs_slot(run) else None
        if room is not None and not room.has(run):
            continue
        if room is not None:
            room.take(run)
        let_in.add(run.id)
    return [run for run in runs if run.id in let_in]


@dataclass(slots=True)
class Line:
    """The runs of one key that wait in a queue, in their order.

    Attributes:
        served_at: when a run of the key began last.
        runs: read when they are needed.
    """

    key: str
    served_at: datetime | None
    runs: Iterator[RunRecord]


def next_in_line(room: Room, lines: Iterable[Line], most: int) -> list[RunRecord]:
    """Return the runs whose turn it is; takes their slots. Nothing is read while none can begin.

    The highest priority first. Among equals the key that has the fewest runs going on, then the one
    that was served longest ago: keys take turns, however long the line of one is. Then the oldest.
    """
    if not room.may_begin():
        return []
    waiting = []
    for line in lines:
        served = (0, 0.0 if line.served_at is None else line.served_at.timestamp())
        if (head := next(line.runs, None)) is not None:
            waiting.append(_place(room, head, served, line))
    heapify(waiting)
    chosen: list[RunRecord] = []
    while waiting and len(chosen) < most and room.may_begin():
        *_, run, line = heappop(waiting)
        if room.is_full_for(line.key):
            continue
        room.take(run)
        chosen.append(run)
        if (head := next(line.runs, None)) is not None:
            heappush(waiting, _place(room, head, (1, float(len(chosen))), line))
    return chosen


_Place = tuple[int, int, tuple[int, float], datetime, str, RunRecord, Line]


def _place(room: Room, run: RunRecord, served: tuple[int, float], line: Line) -> _Place:
    # Ids are unique: what comes after them is never compared.
    running = room.running.get(line.key, 0)
    return -run.priority, running, served, run.created_at, run.id, run, line


def next_woken(room: Room, woken: Iterable[RunRecord], most: int) -> list[RunRecord]:
    """Return the runs that go on now, before any new one begins; takes their slots."""
    if room.is_full:
        return []
    chosen = []
    for run in islice(woken, most):
        if room.has(run):
            room.take(run)
            chosen.append(run)
    return chosen


def line_order(run: RunRecord) -> tuple[int, datetime, str]:
    """Return what sorts the runs of one key."""
    return -run.priority, run.created_at, run.id


def _seniority(run: RunRecord) -> tuple[bool, int, datetime, str]:
    return run.status is RunStatus.QUEUED, *line_order(run)
