"""Which of the calls that were handed to a worker have begun: one ticket for each, in a pipe.

A worker is handed many brief calls at once. While it is busy in one of them it hears nobody, yet
the coordinator has to know which have begun, and has to be able to take the others back: for a
worker that is idle, because a call turned out to be long, or because the worker has died. So a
byte lies in a pipe for each call. The worker takes one before it begins a call; the coordinator
takes those that are left, from the same end: whoever has a byte has the call, and the kernel gives
each byte to one of them. As calls begin in order, n bytes taken back are the last n calls.

A byte says to which lot its call belongs: a worker that finds one of a later lot knows that the
rest of the earlier lot was taken back.
"""

from __future__ import annotations

import os

MOST = 4096
"""Calls in one lot: a pipe holds so many bytes on every system, without waiting."""
LOTS = 256


class Tickets:
    """The coordinator's end: it gives tickets out and takes them back."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe()
        # The reading end is shared with the worker, and so is its mode.
        os.set_blocking(self.fd, False)
        os.set_blocking(self._writer, False)
        self._lot = 0

    def give(self, count: int) -> int:
        """Give out tickets of a new lot; return its number. None is left of earlier ones."""
        self._lot = (self._lot + 1) % LOTS
        os.write(self._writer, bytes([self._lot]) * count)
        return self._lot

    def take_back(self, *, at_most: int = MOST) -> int:
        """Take back what nobody has taken; return how many calls have not begun, and will not."""
        try:
            return len(os.read(self.fd, at_most))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close both ends."""
        os.close(self.fd)
        os.close(self._writer)


class TicketTaker:
    """The worker's end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held: int | None = None

    def take(self, lot: int) -> bool:
        """Take a ticket for the next call of a lot; False: the rest of it was taken back."""
        if self._held is None:
            try:
                (self._held,) = os.read(self._fd, 1)
            except BlockingIOError:
                return False
        if self._held != lot:
            return False
        self._held = None
        return True
