"""Keys that are typed while something is shown on the terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Generator
from contextlib import contextmanager

END = "\x04"
"""What Ctrl-D types: there is no more to come."""
_AT_MOST = 64


@contextmanager
def typed_keys() -> Generator[Callable[[float], str]]:
    """Give a function that waits for so many seconds at most and returns what is typed meanwhile.

    Inside, keys come at once and are not shown; Ctrl-C does what it always does. Where there is
    no keyboard it only waits.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        yield lambda seconds: _typed([], seconds)
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield lambda seconds: _typed([keyboard], seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _typed(keyboards: list[int], seconds: float) -> str:
    """Return the keys that are typed first; "" when the time is over, ``END`` after the last."""
    ready, _, _ = select.select(keyboards, [], [], seconds)
    if not ready:
        return ""
    try:
        return os.read(ready[0], _AT_MOST).decode(errors="ignore") or END
    except OSError:  # the terminal is gone
        return END
