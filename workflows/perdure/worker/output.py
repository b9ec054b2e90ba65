"""What an attempt prints, on its way to the log store.

Nothing is created for an attempt that prints nothing. Logs are a help, not a truth: a log store
that fails costs a warning, never a step.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from perdure.calls import CallId
from perdure.worker.context import running
from perdure.worker.secrets import Redactor
from perdure_storage.protocols import LogStore
from perdure_storage.records import RunId, StepId

SEGMENT_BYTES = 64 * 1024
SEGMENT_AGE_S = 1.0

_log = logging.getLogger(__name__)


class AttemptLog:
    """Appends one attempt's output, as bytes, with secrets masked."""

    __slots__ = ("_failed", "_held", "_id", "_logs", "_redactor")

    def __init__(self, call: CallId, logs: LogStore, redactor: Redactor) -> None:
        self._id = call
        self._logs = logs
        self._redactor = redactor
        self._held = b""
        self._failed = False

    def append(self, data: bytes, *, last: bool = False) -> None:
        """Add a segment. A tail in which a secret may have begun waits for the next one."""
        data = self._redactor.data(self._held + data)
        keep = 0 if last else max(0, self._redactor.longest - 1)
        cut = len(data) - keep if keep else len(data)
        self._held = data[max(cut, 0) :]
        data = data[: max(cut, 0)]
        if data and not self._failed:
            self._write(data)

    def _write(self, data: bytes) -> None:
        at = self._id
        try:
            self._logs.append(RunId(at.run_id), StepId(at.step_id), at.generation, at.attempt, data)
        except Exception as error:  # noqa: BLE001 - a foreign store; the step must not pay for it
            self._failed = True
            _log.warning("the output of %s cannot be kept: %s", at.step_id, error)


class AttemptOutput:
    """Gathers the text that one attempt writes to ``sys.stdout``, ``sys.stderr`` and logging."""

    __slots__ = ("_call", "_log", "_logs", "_parts", "_redactor", "_since", "_size")

    def __init__(self, call: CallId, logs: LogStore, redactor: Redactor) -> None:
        self._call = call
        self._logs = logs
        self._redactor = redactor
        self._log: AttemptLog | None = None  # most attempts print nothing
        self._parts: list[str] = []
        self._size = 0
        self._since = 0.0

    @property
    def log(self) -> AttemptLog:
        """Return where it goes."""
        if self._log is None:
            self._log = AttemptLog(self._call, self._logs, self._redactor)
        return self._log

    def write(self, text: str) -> None:
        """Add ``text``; a segment is appended when it is large or a second old."""
        now = time.monotonic()
        if not self._parts:
            self._since = now
        self._parts.append(text)
        self._size += len(text)
        if self._size >= SEGMENT_BYTES or now - self._since >= SEGMENT_AGE_S:
            self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Append what has been gathered. ``last`` lets go of a held tail too."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts or last:
            self.log.append("".join(parts).encode(errors="backslashreplace"), last=last)

    def close(self) -> None:
        """Append the rest; costs nothing for an attempt that printed nothing."""
        if self._parts or (self._log is not None and self._log._held):
            self.flush(last=True)


class StepStream:
    """A text stream that also gives what steps write to it to the writing attempt.

    Everything else, and what is written outside of steps, behaves as the stream it wraps.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write through, and into the running attempt's log."""
        context = running.get()
        if context is not None:
            context.output.write(text)
        return self._stream.write(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class DivertedStream(StepStream):
    """A text stream that gives what steps write to it to the writing attempt, and only to it."""

    def write(self, text: str) -> int:
        """Write into the running attempt's log; through, where no step runs."""
        context = running.get()
        if context is None:
            return self._stream.write(text)
        context.output.write(text)
        return len(text)


class StepLogHandler(logging.Handler):
    """Gives the records that steps log to the logging attempt, unless a stream already does."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record into the attempt's log; say warnings aloud if nobody else would."""
        others = [handler for handler in logging.getLogger().handlers if handler is not self]
        if not others and record.levelno >= logging.WARNING and logging.lastResort is not None:
            # Our presence on the root logger switches Python's last resort off: act as it would.
            # Inside a step it writes to a StepStream, which captures.
            logging.lastResort.handle(record)
            return
        context = running.get()
        if context is not None and not any(_writes_to_step_stream(each) for each in others):
            context.output.write(self.format(record) + "\n")


def _writes_to_step_stream(handler: logging.Handler) -> bool:
    return isinstance(getattr(handler, "stream", None), StepStream)


@contextmanager
def captured_streams(handler: StepLogHandler) -> Iterator[None]:
    """Capture what steps print and log while the block runs, passing it through as well.

    Args:
        handler: takes what they log; made once by who captures again and again.
    """
    stdout, stderr = sys.stdout, sys.stderr
    out, err = StepStream(stdout), StepStream(stderr)
    sys.stdout, sys.stderr = out, err
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        # A step that replaced a stream for good keeps its own.
        if sys.stdout is out:
            sys.stdout = stdout
        if sys.stderr is err:
            sys.stderr = stderr
