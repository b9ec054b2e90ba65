"""What is said while a store is away: once when it begins, then rarely, once when it is over."""

from __future__ import annotations

import logging

from perdure_storage.clock import Clock

SAY_AGAIN_S = 10.0
"""How long nothing more is said of what has been said; one that comes and goes is one outage."""


class Outage:
    """One thing that a store may refuse for a while. Owned by the thread that asks for it."""

    def __init__(self, log: logging.Logger, clock: Clock, *, what: str, over: str) -> None:
        """Say nothing yet.

        Args:
            log: where to say it.
            clock: measures the silence.
            what: what does not go now: ``"could not renew the lease"``.
            over: what goes again: ``"the lease is renewed again"``.
        """
        self._log = log
        self._clock = clock
        self._what = what
        self._over = over
        self._said_at: float | None = None
        self._is_open = False
        self._is_on = False

    def note(self, error: Exception) -> None:
        """Take in that it was refused; say so, unless that was said a moment ago."""
        self._is_on = True
        now = self._clock.monotonic()
        if self._said_at is None or now - self._said_at >= SAY_AGAIN_S:
            self._said_at, self._is_open = now, True
            self._log.warning("%s: %s", self._what, error)

    @property
    def is_on(self) -> bool:
        """Say whether it was refused the last time."""
        return self._is_on

    def end(self) -> None:
        """Take in that it went through; say so if the last that was said is that it did not."""
        self._is_on = False
        if self._is_open:
            self._is_open = False
            self._log.warning("%s", self._over)
