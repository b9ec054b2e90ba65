"""How long functions take, as far as it has been seen: which calls are brief.

A call that is over in a moment costs more on its way to a worker and back than in it. Such calls
are sent ahead of the resources they need, so many that a worker finds the next one at hand.
"""

from __future__ import annotations

BRIEF_S = 0.005
"""Calls that take no longer are sent ahead."""
AHEAD_S = 0.02
"""So much work may wait behind a call that runs."""
MOST_AHEAD = 256
MOST_UNSEEN = 4
"""So many calls may wait behind one where their function was brief in other runs only: in this
one it may take long, and what waits there is beyond the reach of priorities and pauses."""
_KEEP = 0.9
"""How much of what was known stays known when a call was faster; a slow one counts at once."""
_LEAST_S = 1e-5
_MOST_FUNCTIONS = 4096
"""Of so many something is known: those that were called lately."""


class Paces:
    """What the calls of each function have taken lately, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, function: str, seconds: float) -> None:
        """Take in what a call of a function has taken."""
        known = self._seconds.pop(function, 0.0)
        self._seconds[function] = max(seconds, known * _KEEP, _LEAST_S)
        if len(self._seconds) > _MOST_FUNCTIONS:
            del self._seconds[next(iter(self._seconds))]

    def has_seen(self, function: str) -> bool:
        """Say whether a call of the function has ended."""
        return function in self._seconds

    def most_ahead(self, function: str) -> float:
        """Return how many calls may wait behind one that runs; 0 if the function is not brief."""
        seconds = self._seconds.get(function)
        if seconds is None or seconds > BRIEF_S:
            return 0
        return min(MOST_AHEAD, AHEAD_S / seconds)
