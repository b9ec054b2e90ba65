"""A terminal of a real process: what was sent to it, and how that looks."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

TIMEOUT_S = 60


class Terminal:
    """Runs ``python WORDS...`` with a terminal of its own for all three streams."""

    def __init__(
        self,
        words: list[str],
        folder: Path,
        *,
        columns: int = 80,
        lines: int = 24,
        **environment: str,
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", **environment}
        for name in {"COLUMNS", "LINES"} - environment.keys():  # the size is the terminal's own
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    @property
    def shown(self) -> str:
        """Return what can be seen now."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def wait_for(self, is_so: Callable[[str], bool]) -> str:
        """Return what is shown as soon as ``is_so`` of it; fail if that never comes."""
        until = time.monotonic() + TIMEOUT_S
        while not is_so(self.shown):
            assert self._hear(until - time.monotonic()), f"never came; shown:\n{self.shown}"
        return self.shown

    def wait(self) -> int:
        """Take what is sent until the process has ended; return its exit code."""
        until = time.monotonic() + TIMEOUT_S
        while self._hear(until - time.monotonic()):
            pass
        return self.process.wait(timeout=TIMEOUT_S)

    def type(self, text: str) -> None:
        """Type ``text`` on the keyboard."""
        os.write(self._fd, text.encode())

    def close(self) -> None:
        """Kill what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)

    def _hear(self, wait_s: float) -> bool:
        if wait_s <= 0 or not select.select([self._fd], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # nobody has the other end any more
            return False
        self.sent += data
        self._stream.feed(data)
        return bool(data)
