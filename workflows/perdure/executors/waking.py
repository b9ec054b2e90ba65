"""A pipe that ends a wait: safe from any thread and from signal handlers."""

from __future__ import annotations

import os


class WakePipe:
    """Wakes the one thread that waits for ``fd`` to become readable."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if _HAS_PIPE2 else _pipe()

    def wake(self) -> None:
        """Make ``fd`` readable. Does nothing once closed."""
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            pass  # Full: whoever waits is awake already.
        except OSError:
            if self._writer >= 0:
                raise

    def drain(self) -> bool:
        """Forget the wake-ups so far; say whether there was one."""
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Release the descriptors. Idempotent."""
        if self._writer >= 0:
            reader, writer = self.fd, self._writer
            self.fd = self._writer = -1
            os.close(writer)
            os.close(reader)


_HAS_PIPE2 = hasattr(os, "pipe2")


def _pipe() -> tuple[int, int]:
    """Return a pipe as ``pipe2`` makes it, on systems that have none (macOS)."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
