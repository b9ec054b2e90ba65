"""Tracebacks as text that does not lie: a line of a file is shown only where that line ran.

A resumed run takes the code that was recorded with it. Where its file was edited since, Python
would print whatever stands today at the number of the line that ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from traceback import FrameSummary, TracebackException, walk_tb
from types import CodeType, FrameType, TracebackType

from perdure.sources import is_local_file, is_written


def traceback_text(error: BaseException, frames: TracebackType | None) -> str:
    """Return what Python prints of an exception, without lines that are not of the code that ran.

    Args:
        error: the exception.
        frames: its traceback from where it is to be told.
    """
    said = TracebackException(type(error), error, frames, compact=True)
    editions = _Editions()
    for part, tb in _parts(said, error, frames):
        part.stack[:] = [
            editions.honest(summary, frame.f_code)
            for summary, (frame, _) in zip(part.stack, walk_tb(tb))
            if not _is_of_the_notebook(frame)
        ]
    return "".join(said.format())


def _parts(
    said: TracebackException, error: BaseException, frames: TracebackType | None
) -> Iterator[tuple[TracebackException, TracebackType | None]]:
    """Yield what is said of an exception, its causes and its members, each with its traceback."""
    yield said, frames
    left = _below(said, error)
    while left:  # no recursion: a loop of retries makes chains of thousands
        part, exception = left.pop()
        yield part, exception.__traceback__
        left += _below(part, exception)


def _below(
    said: TracebackException, error: BaseException
) -> list[tuple[TracebackException, BaseException]]:
    pairs = [(said.__cause__, error.__cause__), (said.__context__, error.__context__)]
    if isinstance(error, BaseExceptionGroup):
        pairs += zip(said.exceptions or (), error.exceptions)
    return [(part, below) for part, below in pairs if part is not None and below is not None]


def _is_of_the_notebook(frame: FrameType) -> bool:
    """Say whether it is a frame of IPython's, which gives cells an ``open`` of its own."""
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == "IPython"


class _Editions:
    """Which code is that of today's files. Mutable; of one traceback, which may be deep."""

    def __init__(self) -> None:
        self._is_todays: dict[int, bool] = {}
        self._told: set[str] = set()

    def honest(self, summary: FrameSummary, code: CodeType) -> FrameSummary:
        """Return the frame; without its line, and once a file with the reason, if that lies."""
        key = id(code)  # its frame holds it: no other code gets this id meanwhile
        if key not in self._is_todays:
            self._is_todays[key] = _is_todays(code)
        if self._is_todays[key]:
            return summary
        line = ""
        if code.co_filename not in self._told:
            self._told.add(code.co_filename)
            name = os.path.basename(code.co_filename)
            line = f"({name} has changed since this code was recorded)"
        return FrameSummary(summary.filename, summary.lineno, summary.name, line=line)


def _is_todays(code: CodeType) -> bool:
    """Say whether the code is that of its file; of no file but the user's own that is there."""
    filename = code.co_filename
    return not (is_local_file(filename) and os.path.isfile(filename)) or is_written(code)
