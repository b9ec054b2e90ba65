"""Deadlines of one thread: what is due, and how long until the next."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Timers:
    """Calls functions when their time has come. Owned by one thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` in the first ``run_due`` after ``seconds`` from now.

        There is no way to take it back: an action looks for itself whether it still applies.
        """
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), action))

    def run_due(self) -> None:
        """Call what is due."""
        while self._heap and self._heap[0][0] <= time.monotonic():
            heapq.heappop(self._heap)[2]()

    def seconds_left(self) -> float | None:
        """Return the time until the next action, at least 0; None without one."""
        if not self._heap:
            return None
        return max(0.0, self._heap[0][0] - time.monotonic())

    def patience(self, until: float | None) -> float | None:
        """Return how long to wait at most: for the next action, and not beyond ``until``."""
        left = self.seconds_left()
        if until is None:
            return left
        patience = max(0.0, until - time.monotonic())
        return patience if left is None else min(patience, left)
