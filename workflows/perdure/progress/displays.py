"""The displays: a live view at the bottom of a terminal, or one line a change."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from perdure.interactive import is_kernel
from perdure.progress.board import Board, Glance, Running
from perdure.progress.changes import Teller
from perdure.progress.watch import Display
from perdure.showing import Bundle, notebook
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError
from perdure_storage.protocols import LogStore
from perdure_storage.records import RunCommit, RunId

if TYPE_CHECKING:
    from perdure.progress.lines import Spoken
    from perdure.progress.screen import Screen

FIRST_AFTER_S = 0.3
"""What is over sooner needs no live view."""
SPOKEN_EVERY_S = 0.5
_TAIL_BYTES = 2048
_one_screen = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is shown: one run, where it stands, and where its steps' output is.

    Attributes:
        send: returns the command that sends the run a signal, given the signal's name.
        look: returns what the run looks like in a notebook now.
    """

    run_id: RunId
    board: Board
    logs: LogStore
    clock: Clock
    send: Callable[[str], str]
    look: Callable[[], Bundle]


Medium = Callable[[Scene], Display]
"""Opens a display of a scene."""


FindMedium = Callable[[Callable[[str], None]], "Medium | None"]
"""Finds the medium of this process, given what says a line; None if nobody is there to see it."""


def on_a_terminal(say: Callable[[str], None]) -> Medium | None:
    """Return the display for stderr if it is a terminal, else None: then nobody is there."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        return None
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):  # it cannot move its cursor
        return in_lines(say)
    return lambda scene: LiveView(scene, stream)


def in_sight(say: Callable[[str], None]) -> Medium | None:
    """Return the display below a notebook's cell, or for the terminal, if stderr is one."""
    return notebook().medium if is_kernel() else on_a_terminal(say)


def everywhere(say: Callable[[str], None]) -> Medium:
    """Return the live view on a terminal, one line a change elsewhere."""
    return on_a_terminal(say) or in_lines(say)


def in_lines(say: Callable[[str], None]) -> Medium:
    """Return the display that says one line a change."""
    return lambda scene: Lines(scene, say)


class Lines:
    """One line a change, said by ``say``; see ``Teller`` for what is told of a wide run."""

    def __init__(self, scene: Scene, say: Callable[[str], None]) -> None:
        self._clock = scene.clock
        self._say = say
        self._teller = Teller(scene.board, scene.clock.now(), scene.send)

    def update(self, commits: list[RunCommit]) -> None:
        for line in self._teller.tell(commits, self._clock.now()):
            self._say(line)

    def close(self) -> None:
        """Nothing is there to be taken away."""


class LiveView:
    """A frame at the bottom of a terminal; one at a time in a process, others show nothing."""

    def __init__(self, scene: Scene, stream: TextIO) -> None:
        self._scene = scene
        self._stream = stream
        self._first_at = time.monotonic() + FIRST_AFTER_S
        self._screen: Screen | None = None
        self._listener = Listener(scene.run_id, scene.logs)

    def update(self, commits: list[RunCommit]) -> None:
        for commit in commits:
            self._scene.board.apply(commit)
        if self._may_draw():
            self._draw()

    def close(self) -> None:
        if self._screen is not None:
            self._screen.close()
            self._screen = None
            _one_screen.release()

    def _may_draw(self) -> bool:
        if self._screen is not None:
            return True
        if time.monotonic() < self._first_at or not _one_screen.acquire(blocking=False):
            return False
        # Imported here: most runs are short, or nobody looks.
        from perdure.progress.screen import Screen

        self._screen = Screen(self._stream)
        self._screen.open()
        return True

    def _draw(self) -> None:
        from perdure.progress.lines import frame

        assert self._screen is not None
        scene, screen = self._scene, self._screen
        glance = scene.board.look(scene.clock.now())
        spoken = self._listener.listen(glance)
        screen.draw(
            frame(
                scene.run_id,
                glance,
                spoken,
                width=screen.width,
                height=screen.height,
                glyphs=screen.glyphs,
                send=scene.send,
            )
        )


class Listener:
    """The last line that was printed by one of the steps that are shown as running."""

    def __init__(self, run_id: RunId, logs: LogStore) -> None:
        self._run_id = run_id
        self._logs = logs
        self._next_at = 0.0
        self._tails: dict[Running, bytes] = {}
        self._last: Spoken | None = None

    def listen(self, glance: Glance) -> Spoken | None:
        """Return it; the logs are looked at every half a second at most."""
        now = time.monotonic()
        if now >= self._next_at:
            began = now
            for attempt in glance.slowest:
                self._look(attempt)
            self._tails = {a: tail for a, tail in self._tails.items() if a in glance.slowest}
            self._next_at = now + SPOKEN_EVERY_S + 20 * (time.monotonic() - began)
        return self._last

    def _look(self, attempt: Running) -> None:
        from perdure.progress.lines import Spoken

        try:
            tail = self._logs.read(
                self._run_id,
                attempt.step_id,
                attempt.generation,
                attempt.attempt,
                offset=-_TAIL_BYTES,
            )
        except PerdureError:  # logs are a help, not a truth
            return
        if tail == self._tails.get(attempt, b""):
            return
        self._tails[attempt] = tail
        text = tail.decode(errors="replace").replace("\r", "\n")
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            self._last = Spoken(step_id=attempt.step_id, text=lines[-1])
