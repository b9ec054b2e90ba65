"""Which runs have something that is ready to start, and in which order they are asked for it.

Of many runs that wait for the same, one is asked: what does not start for it starts for none of
them. So a turn of the engine costs a look at what is wanted, not at each run.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from heapq import heappop, heappush
from typing import NamedTuple


class Want(NamedTuple):
    """What runs have in common of which one is asked for all.

    Attributes:
        priority: those with a higher one are asked first.
        what: what a step needs to start; the run's id, of one that is asked for itself.
    """

    priority: int
    what: Hashable


class Backlog:
    """Ids of runs by what they want, each at one place. Mutable."""

    def __init__(self) -> None:
        self._queues: dict[int, dict[Want, _Queue]] = {}
        self._places: dict[str, tuple[Want, int]] = {}
        self._due: list[tuple[datetime, str]] = []
        self._dated: set[str] = set()

    @property
    def priorities(self) -> list[int]:
        """Return the priorities of all that wait, the highest first."""
        return sorted(self._queues, reverse=True)

    def wants(self, priority: int) -> list[Want]:
        """Return what the runs of a priority want."""
        return list(self._queues.get(priority, ()))

    def put(self, run_id: str, number: int, want: Want) -> None:
        """Let a run wait for what it wants now, and for nothing else.

        Args:
            run_id: of the run.
            number: its place in the order of all runs. No two have the same.
            want: what it wants.
        """
        place = want, number
        if self._places.get(run_id) == place:
            return
        self.leave(run_id)
        self._places[run_id] = place
        self._queues.setdefault(want.priority, {}).setdefault(want, _Queue()).add(number, run_id)

    def leave(self, run_id: str) -> None:
        """Let a run wait for nothing."""
        place = self._places.pop(run_id, None)
        if place is None:
            return
        want, number = place
        queues = self._queues[want.priority]
        queues[want].remove(number)
        if not queues[want].members:
            del queues[want]
            if not queues:
                del self._queues[want.priority]

    def first(self, want: Want) -> tuple[int, str] | None:
        """Return the number and the id of the first run that wants this, or None."""
        queue = self._queues.get(want.priority, {}).get(want)
        return None if queue is None else queue.first()

    def is_alone(self, run_id: str) -> bool:
        """Say whether nobody else wants what this run does."""
        want, _ = self._places[run_id]
        return len(self._queues[want.priority][want].members) == 1

    def look_again(self, run_id: str, at: datetime) -> None:
        """See to it that the run is named by ``due`` from a time on, if it was not to be before."""
        if run_id not in self._dated:
            self._dated.add(run_id)
            heappush(self._due, (at, run_id))

    def due(self, now: datetime) -> list[str]:
        """Return, once, what was to be looked at again by now. It may wait no more."""
        found = []
        while self._due and self._due[0][0] <= now:
            found.append(heappop(self._due)[1])
        self._dated.difference_update(found)
        return found


class _Queue:
    """Runs that want the same, in the order of their numbers."""

    __slots__ = ("_numbers", "members")

    def __init__(self) -> None:
        self.members: dict[int, str] = {}
        self._numbers: list[int] = []  # a heap, also of those that have left

    def add(self, number: int, run_id: str) -> None:
        self.members[number] = run_id
        heappush(self._numbers, number)

    def remove(self, number: int) -> None:
        del self.members[number]

    def first(self) -> tuple[int, str]:
        while self._numbers[0] not in self.members:
            heappop(self._numbers)
        return self._numbers[0], self.members[self._numbers[0]]
