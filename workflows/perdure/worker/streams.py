"""The standard streams of a worker for plain functions: both end in one file, call after call."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from typing import Any, TextIO


class StandardStreams:
    """Keeps stdout and stderr going to the output file, whatever a step does to them."""

    def __init__(self) -> None:
        # Copies of our own: a step may close or redirect the numbers 1 and 2 as it likes.
        self._fds = (os.dup(1), os.dup(2))
        status = os.fstat(1)
        self._file = (status.st_dev, status.st_ino)
        self._displaced = False
        self._stdout: TextIO = sys.stdout
        self._stderr: TextIO = sys.stderr
        # What libraries print by themselves waits in C's own buffers.
        self._flush_c: Any = ctypes.CDLL(None).fflush

    def restore(self) -> None:
        """Undo what the step before has done to the streams."""
        if self._displaced or self._stdout.closed or self._stderr.closed:
            for number, fd in enumerate(self._fds, start=1):
                os.dup2(fd, number)
            self._stdout, self._stderr = open_stream(1), open_stream(2)
            self._displaced = False
        sys.stdout, sys.stderr = self._stdout, self._stderr

    def written_bytes(self) -> int:
        """Return the length of the output file, with all in it that was printed so far."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001 - a step's own object, or a stream it closed
                continue
        self._flush_c(None)
        self._displaced = not (_leads_to(1, self._file) and _leads_to(2, self._file))
        return os.fstat(self._fds[0]).st_size


def prepare_stream(stream: TextIO) -> None:
    """Make text go out line by line, and take text that has no UTF-8."""
    stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[attr-defined]


def log_to_stderr() -> None:
    """Have log records go to stderr from INFO on where the user has set no handlers.

    As the last resort, so that a ``basicConfig()`` of the user's still takes effect.
    """
    handler = logging._StderrHandler(logging.INFO)  # type: ignore[attr-defined]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.lastResort = handler
    logging.getLogger().setLevel(logging.INFO)


def open_stream(fd: int) -> TextIO:
    """Return a text stream that goes out line by line, and does not own its descriptor."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _leads_to(fd: int, file: tuple[int, int]) -> bool:
    """Say whether a descriptor is open and leads to this device and inode."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == file
