"""``QueueStore`` in this process's memory, over the runs of a ``MemoryRunStore``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime

import msgspec

from perdure_storage import guards
from perdure_storage.admission import (
    Line,
    Room,
    admitted,
    line_order,
    needs_slot,
    next_in_line,
    next_woken,
)
from perdure_storage.clock import Clock
from perdure_storage.lifecycle import RunStatus
from perdure_storage.queue_records import KeyStanding, QueueRecord, QueueStanding
from perdure_storage.records import RunRecord

_replace = msgspec.structs.replace


class MemoryQueueStore:
    """Queues beside runs in memory.

    Args:
        lock: that of the whole store.
        clock: wall time of changes, starts and delays.
        runs: returns all runs.
        changed: is told that something has changed.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object],
        clock: Clock,
        runs: Callable[[], Iterable[RunRecord]],
        changed: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._clock = clock
        self._runs = runs
        self._changed = changed
        self._queues: dict[str, QueueRecord] = {}

    # --- changes -----------------------------------------------------------------------------
    def put_queue(self, queue: QueueRecord) -> QueueRecord | None:
        guards.require_storable_queue(queue)
        with self._lock:
            there = self._queues.get(queue.name)
            if queue.version != (0 if there is None else there.version):
                return None
            now = self._clock.now()
            made_at = now if there is None else queue.created_at
            new = _replace(queue, version=queue.version + 1, created_at=made_at, updated_at=now)
            self._queues[queue.name] = new
            self._changed()
            return new

    def remove_queue(self, name: str) -> bool:
        with self._lock:
            self._changed()
            return self._queues.pop(name, None) is not None

    # --- questions ---------------------------------------------------------------------------
    def find_queue(self, name: str) -> QueueRecord | None:
        with self._lock:
            return self._queues.get(name)

    def list_queues(self) -> list[QueueRecord]:
        with self._lock:
            return [self._queues[name] for name in sorted(self._queues)]

    def standing(self, name: str) -> QueueStanding:
        with self._lock:
            now = self._clock.now()
            mine = [run for run in self._runs() if run.queue == name]
            holders = [run for run in mine if run.owner is not None]
            queued = [run for run in mine if run.status is RunStatus.QUEUED]
            waiting = [run for run in queued if guards.is_due(run, now)]
            running = Counter(run.limit_key for run in holders)
            lines = Counter(run.limit_key for run in waiting)
            starts, opens_at = self._starts(name, mine, now)
            return QueueStanding(
                name=name,
                running=len(holders),
                waiting=len(waiting),
                delayed=len(queued) - len(waiting),
                oldest=min((run.created_at for run in waiting), default=None),
                starts=starts,
                opens_at=opens_at,
                keys=tuple(
                    KeyStanding(key=key, running=running[key], waiting=lines[key])
                    for key in sorted({*running, *lines})
                ),
                holders=tuple(run.id for run in sorted(holders, key=_had_longest)),
            )

    def _starts(
        self, name: str, mine: list[RunRecord], now: datetime
    ) -> tuple[int, datetime | None]:
        queue = self._queues.get(name)
        if queue is None or queue.rate is None or queue.window is None:
            return 0, None
        since = now - queue.window
        began = sorted(r.started_at for r in mine if r.started_at is not None)
        starts = [at for at in began if at > since]
        if len(starts) < queue.rate:
            return len(starts), None
        return len(starts), starts[-queue.rate] + queue.window

    # --- for claims, under the lock ----------------------------------------------------------
    def admit(self, runs: list[RunRecord]) -> list[RunRecord]:
        """Return those of some free runs for which there is a slot, or that need none."""
        names = {run.queue for run in runs if run.queue is not None and needs_slot(run)}
        if not names:
            return runs
        return admitted(runs, {name: self._room(self._queues[name]) for name in names & self.names})

    @property
    def names(self) -> set[str]:
        """Return the names of the queues that have limits."""
        return set(self._queues)

    def in_turn(self, due: Iterable[RunRecord], most: int) -> list[RunRecord]:
        """Return those of the runs that are due and need slots whose turn it is."""
        chosen: list[RunRecord] = []
        due = list(due)
        for name in sorted(self._queues):
            room = self._room(self._queues[name])
            mine = [run for run in due if run.queue == name]
            woken = [run for run in mine if run.status is not RunStatus.QUEUED]
            chosen += next_woken(room, sorted(woken, key=_due_longest), most)
            lines: dict[str, list[RunRecord]] = {}
            for run in sorted(mine, key=line_order):
                if run.status is RunStatus.QUEUED:
                    lines.setdefault(run.limit_key, []).append(run)
            served = self._served(name)
            waiting = [Line(key, served.get(key), iter(runs)) for key, runs in lines.items()]
            chosen += next_in_line(room, waiting, most)
        return chosen

    def _room(self, queue: QueueRecord) -> Room:
        mine = [run for run in self._runs() if run.queue == queue.name]
        running = Counter(run.limit_key for run in mine if run.owner is not None)
        starts, _ = self._starts(queue.name, mine, self._clock.now())
        return Room(queue, running, starts)

    def _served(self, name: str) -> dict[str, datetime]:
        served: dict[str, datetime] = {}
        for run in self._runs():
            if run.queue == name and run.started_at is not None:
                last = served.get(run.limit_key)
                if last is None or run.started_at > last:
                    served[run.limit_key] = run.started_at
        return served


def _had_longest(run: RunRecord) -> tuple[bool, datetime, str]:
    return run.started_at is None, run.started_at or run.created_at, run.id


def _due_longest(run: RunRecord) -> tuple[datetime, str]:
    return run.wake_at or run.created_at, run.id
