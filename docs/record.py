"""Record the picture of README: real commands on a real terminal, drawn as an animated SVG.

    python docs/record.py                 writes docs/run.svg
    python docs/record.py /tmp/run.svg    writes it there

A shell runs in a pseudo-terminal, in a fresh folder. The example of ``perdure demo`` is run there,
killed half-way with SIGKILL, its workers too, and resumed. What the terminal showed, and when,
becomes the film; nothing in it is drawn by hand.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from fcntl import ioctl
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from types import TracebackType

import psutil
import pyte
import pyte.screens
from film import Frame, Line, Span, draw

COLUMNS, LINES = 80, 30
_KEY_S = 0.05
_FRAME_S = 0.1
_MID_STEP_S = 0.25
_LONGEST_SILENCE_S = 1.0
_PATIENCE_S = 60.0

Chunk = tuple[float, bytes]
"""What the terminal got, and when, in seconds of the monotonic clock."""


class Terminal:
    """A shell in a pseudo-terminal, typed at like a person would, and all that it printed."""

    def __init__(self, folder: Path, columns: int = COLUMNS, lines: int = LINES) -> None:
        self.columns, self.lines = columns, lines
        self.chunks: list[Chunk] = []
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.pid, self._line = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], _environment(folder))
        ioctl(self._line, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def __enter__(self) -> Terminal:
        self.wait_until(self.is_ready)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill_below(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._line)

    def enter(self, command: str) -> None:
        """Type a command, key by key, and press Enter."""
        for key in command:
            os.write(self._line, key.encode())
            self.read_for(_KEY_S)
        self.read_for(5 * _KEY_S)
        os.write(self._line, b"\r")
        self.read_for(_KEY_S)

    @property
    def text(self) -> str:
        """Return what it shows now."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def is_ready(self) -> bool:
        """Say whether the shell waits for a command: there is a prompt, and nothing behind it."""
        line = self._screen.display[self._screen.cursor.y]
        return line.strip() == "$" and self._screen.cursor.x == 2

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Read what is printed until ``holds()`` does.

        Raises:
            TimeoutError: it does not within a minute; the message has the screen.
        """
        until = time.monotonic() + _PATIENCE_S
        while not holds():
            if time.monotonic() > until:
                raise TimeoutError(self.text)
            self.read_for(_KEY_S)

    def read_for(self, seconds: float) -> None:
        """Take in what is printed within so many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._line], [], [], left)[0]:
                data = os.read(self._line, 65536)
                self.chunks.append((time.monotonic(), data))
                self._stream.feed(data)


def _environment(folder: Path) -> dict[str, str]:
    """Return what the shell knows: nothing of ours that would show."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PS1": r"\[\e[1;32m\]$\[\e[0m\] ",
        "PERDURE_WORKERS": "2",
        "BASH_SILENCE_DEPRECATION_WARNING": "1",
    }


def kill_below(pid: int) -> None:
    """SIGKILL all that a process has started, parents first: nobody shall note a child's death."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass  # its keeper was faster


def frames_of(chunks: Sequence[Chunk], columns: int, lines: int) -> Iterator[Frame]:
    """Yield what was shown, ten times a second at most; a long silence is cut short."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    at_s, last_s, shown = 0.0, chunks[0][0], None
    for _, window in groupby(chunks, key=lambda chunk: int(chunk[0] / _FRAME_S)):
        begins_s = None
        for time_s, data in window:
            begins_s = begins_s or time_s
            stream.feed(data)
        assert begins_s is not None
        at_s += min(begins_s - last_s, _LONGEST_SILENCE_S)
        last_s = begins_s
        now = tuple(_line_of(screen.buffer[row], columns) for row in range(lines))
        if now != shown:
            yield Frame(at_s, now)
        shown = now


def _line_of(row: dict[int, pyte.screens.Char], columns: int) -> Line:
    """Return a row as spans of one style each, without the blanks between and behind them."""
    spans = []
    cells = [(column, row[column]) for column in range(columns)]
    for (colour, is_bold), group in groupby(cells, key=lambda cell: (cell[1].fg, cell[1].bold)):
        run = list(group)
        text = "".join(char.data for _, char in run)
        if text.strip():
            start = run[0][0] + len(text) - len(text.lstrip())
            spans.append(Span(start, text.strip(), colour, is_bold))
    return tuple(spans)


def record(folder: Path) -> Terminal:
    """Play the story in a folder: run, kill, resume; return the terminal, its shell ended.

    Raises:
        RuntimeError: the run ended before it could be killed.
    """
    example = files("perdure.cli").joinpath("demo_example", "demo.py")
    (folder / "demo.py").write_text(example.read_text())
    ledger = folder / "ran.txt"
    with Terminal(folder) as terminal:
        terminal.enter("perdure run --id demo demo.py")
        terminal.wait_until(lambda: _has_lines(ledger, 10) or terminal.is_ready())
        if terminal.is_ready():
            raise RuntimeError("the run ended before it could be killed:\n" + terminal.text)
        terminal.read_for(_MID_STEP_S)
        kill_below(terminal.pid)
        terminal.wait_until(terminal.is_ready)
        terminal.enter("# that was kill -9, half-way. Its id is enough to go on:")
        terminal.enter("perdure resume demo")
        terminal.wait_until(terminal.is_ready)
    return terminal


def _has_lines(path: Path, count: int) -> bool:
    return path.exists() and path.read_text().count("\n") >= count


def main(words: Sequence[str]) -> int:
    """Write the film to the path that is given, or where README shows it."""
    path = Path(words[0]) if words else Path(__file__).with_name("run.svg")
    with tempfile.TemporaryDirectory() as folder:
        terminal = record(Path(folder))
    film = draw(
        list(frames_of(terminal.chunks, terminal.columns, terminal.lines)),
        columns=terminal.columns,
        title="perdure run, kill -9, perdure resume",
        description="A run of 16 steps is killed half-way. perdure resume runs what is missing, "
        "and prints the result of the whole.",
    )
    path.write_text(film)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
