"""The last lines of a terminal, drawn again in place; whatever else is printed goes above them.

Rich's ``Live`` would do, but for three things. It hides the cursor: a process that is killed, and
here that is to be expected, leaves a terminal without one. It wipes a line that somebody has begun:
a step that asks at a prompt (a debugger, inline) would ask unseen. And to load Rich costs as much
as two thousand steps. Six styles and the way back to the first line are all that is needed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO, TypeAlias

from rich.cells import cell_len

from perdure.progress.lines import ASCII, UNICODE, Glyphs, Line, plain

_REDRAW_AFTER_S = 0.05
"""Prints that follow each other faster than this wait for the next frame, to cost no more."""
_SIZE = os.terminal_size((80, 24))
_STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
_COLOURS = ("31", "32", "33", "36")
_ERASE_REST, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class Screen:
    """The bottom of the terminal that ``stream`` writes to. Safe to use from many threads.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._has_colour = not os.environ.get("NO_COLOR")
        self._lock = threading.RLock()
        self._widths: list[int] = []
        self._frame = ""
        self._drawn_at = 0.0
        self._is_line_open = False
        self._is_open = False
        self._passing: list[tuple[str, AboveScreen]] = []
        self._handlers: list[tuple[_Handler, AboveScreen]] = []

    @property
    def width(self) -> int:
        """Return the number of columns, now."""
        return self._size().columns

    @property
    def height(self) -> int:
        """Return how many lines a frame may have, now."""
        return max(1, self._size().lines - 1)

    @property
    def glyphs(self) -> Glyphs:
        """Return characters that the terminal can show."""
        return UNICODE if (self._stream.encoding or "").lower().startswith("utf") else ASCII

    def open(self) -> None:
        """Let what this process prints to terminals go above the frame."""
        with self._lock:
            self._is_open = True
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if stream is not None and stream.isatty():
                    above = AboveScreen(stream, self)
                    setattr(sys, name, above)
                    self._passing.append((name, above))
                    self._handlers += _redirect_handlers(above)

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace the frame. It never gets lower, so that nothing below jumps."""
        with self._lock:
            if not self._is_open:
                return
            filled = [*lines, *[()] * (len(self._widths) - len(lines))][: self.height]
            self._frame = self._render(filled)
            if not self._is_line_open:
                self._put(filled)

    def close(self) -> None:
        """Take the frame away and give the streams back. Idempotent."""
        with self._lock:
            self._erase()
            self._is_open = False
            for name, above in self._passing:
                if getattr(sys, name) is above:
                    setattr(sys, name, above.stream)
            for handler, above in self._handlers:
                if handler.stream is above:
                    handler.setStream(above.stream)
            self._passing.clear()
            self._handlers.clear()

    def print_above(self, stream: TextIO, text: str) -> int:
        """Write somebody else's text where the frame is now, and the frame below it."""
        with self._lock:
            if not self._is_open or not text:
                return stream.write(text)
            widths = self._widths
            self._erase()
            written = stream.write(text)
            stream.flush()
            self._is_line_open = not text.endswith("\n")
            if not self._is_line_open and time.monotonic() - self._drawn_at > _REDRAW_AFTER_S:
                self._write(self._frame)
                self._widths = widths
            return written

    # --- drawing ------------------------------------------------------------------------------
    def _render(self, lines: Iterable[Line]) -> str:
        """Return a frame as the terminal is sent it; colours as it, and NO_COLOR, allow."""
        return "".join(
            "".join(self._styled(*span) for span in line) + f"{_ERASE_REST}\n" for line in lines
        )

    def _styled(self, text: str, style: str) -> str:
        code = _STYLES[style]
        if not text or not code or (code in _COLOURS and not self._has_colour):
            return text
        return f"\x1b[{code}m{text}\x1b[0m"

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((0, 0))
        # Some terminals, those of editors and of tests, do not say how large they are.
        return os.terminal_size((size.columns or _SIZE.columns, size.lines or _SIZE.lines))

    def _put(self, lines: Sequence[Line]) -> None:
        # One write for all of it: the lines are written over, not wiped first, so none flickers.
        self._write(f"{self._to_top()}{self._frame}{_ERASE_BELOW}")
        self._widths = [cell_len(plain(line)) for line in lines]

    def _erase(self) -> None:
        if self._widths:
            self._write(f"{self._to_top()}{_ERASE_BELOW}")
            self._widths = []

    def _to_top(self) -> str:
        """Return what brings the cursor to the frame's first line, also after it got narrower."""
        if not self._widths:
            return ""
        width = max(1, self.width)
        rows = sum(max(1, -(-each // width)) for each in self._widths)
        return f"\r\x1b[{rows}A"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._drawn_at = time.monotonic()


_Handler: TypeAlias = "logging.StreamHandler[Any]"


def _redirect_handlers(above: AboveScreen) -> list[tuple[_Handler, AboveScreen]]:
    """Let log handlers write above the frame too: they keep the stream that was there first."""
    named = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(each for each in named if isinstance(each, logging.Logger))]
    found = []
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is above.stream:
            handler.setStream(above)
            found.append((handler, above))
    return found


class AboveScreen:
    """A stream to the same terminal. Otherwise, and once the screen is closed, as the stream."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self.stream = stream
        self._screen = screen

    def write(self, text: str) -> int:
        """Write ``text`` above the frame."""
        return self._screen.print_above(self.stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of ``lines``."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)
