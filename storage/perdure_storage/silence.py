"""A limit to how long a server may be silent: then its connection is cut, which ends the wait.

A driver waits for an answer for as long as the connection stands. TCP finds out that a host is
gone, but not that a server, or whatever stands before it, has stopped answering. A cut connection
is one that was lost, which everybody here knows how to deal with.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from perdure_storage.clock import SystemClock

LOOK_EVERY_S = 0.5

_now = SystemClock()


class HasDescriptor(Protocol):
    """A connection over a socket."""

    def fileno(self) -> int:
        """Return the descriptor of its socket."""
        ...


class SilenceWatch:
    """Cuts connections whose server does not answer in time. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}  # by a descriptor of our own for the same socket
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, connection: HasDescriptor, seconds: float) -> Iterator[None]:
        """Cut the connection if the block is not over within ``seconds``."""
        try:
            # Held under a number of ours: the driver may close its own, and another socket get it.
            mine = os.dup(connection.fileno())
        except Exception:  # noqa: BLE001 - the driver's: it is lost, as the block will find out
            yield
            return
        with self._lock:
            self._until[mine] = _now.monotonic() + seconds
            self._start()
        try:
            yield
        finally:
            with self._lock:
                del self._until[mine]
                os.close(mine)

    def close(self) -> None:
        """End the watch. Idempotent."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None and not self._is_over.is_set():
            self._thread = threading.Thread(target=self._run, name="perdure-silence", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            now = _now.monotonic()
            with self._lock:
                for mine, until in self._until.items():
                    if until <= now:
                        _cut(mine)


def _cut(descriptor: int) -> None:
    """Shut a socket down for everybody who has it, and leave the descriptor open."""
    end = socket.socket(fileno=descriptor)
    try:
        with contextlib.suppress(OSError):  # it is not connected any more
            end.shutdown(socket.SHUT_RDWR)
    finally:
        end.detach()
