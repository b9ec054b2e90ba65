"""Pictures below cells that change while their runs go on, and what they leave in the notebook.

A picture is one output of its cell, static HTML that is replaced in place. Without anywidget each
change replaces it as a whole; with it a widget in the page alters only what differs, and what the
notebook keeps follows from time to time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from perdure.progress.displays import Scene
from perdure.runs import Run
from perdure.showing import Bundle
from perdure_storage.errors import PerdureError, RunNotFound
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import RunCommit

log = logging.getLogger(__name__)

DRAW_EVERY_S = 0.5
IDLE_EVERY_S = 2.0
"""While nobody drives the run, or the picture is out of sight."""
_SHARE = 20
"""Drawing may take one part in so many of the time."""
_VIEWS_A_CELL = 3
"""A cell that runs a loop of runs shows so many; the others it tells in a line each."""


class Output(Protocol):
    """Where a picture is shown: one output of a cell."""

    @property
    def is_wanted(self) -> bool:
        """Say whether a new picture is of use: a page that nobody looks at needs few."""
        ...

    def show(self, look: Bundle) -> None:
        """Show how it looks now."""
        ...

    def leave(self, look: Bundle) -> None:
        """Show how it looks in the end: what stays in the notebook."""
        ...


class Replaced:
    """An output that is replaced as a whole."""

    is_wanted = True

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown: Bundle | None = None

    def show(self, look: Bundle) -> None:
        from IPython.display import display

        if look == self._shown:
            return
        self._shown = look
        if self._handle is None:
            self._handle = display(look, raw=True, display_id=True)
        else:
            self._handle.update(look, raw=True)

    leave = show


def open_output() -> Output:
    """Return a new output: one with a widget if anywidget is installed."""
    try:
        from perdure.notebook.widget import Altered, Viewed, needs_view
    except ImportError:
        return Replaced()
    return Viewed() if needs_view() else Altered()


class View:
    """The picture of one run. Any thread may draw it; one does at a time.

    Args:
        run: the run.
        look: returns what it looks like now.
        output: where it is shown.
    """

    def __init__(self, run: Run, look: Callable[[], Bundle], output: Output) -> None:
        self.next_at = 0.0
        self.draw_at = 0.0
        self._is_over = False
        self._lock = threading.Lock()
        self._run = run
        self._look = look
        self._output = output

    @property
    def run_id(self) -> str:
        """Return whose picture it is."""
        return self._run.id

    def turn(self) -> bool:
        """Draw if it is time, the end of the run at once; return whether the run goes on."""
        with self._lock:
            if time.monotonic() >= self.next_at and not self._is_over:
                self._is_over = not self._take_turn()
            return not self._is_over

    def _take_turn(self) -> bool:
        try:
            if self._run.record.status not in RUN_LIVE:
                self._output.leave(self._look())
                return False
            is_wanted = self._output.is_wanted
            if is_wanted and time.monotonic() >= self.draw_at:
                self._draw()
            is_quiet = not is_wanted or not self._run.is_driven
        except RunNotFound:  # it was deleted: the last picture stays
            return False
        except PerdureError as error:  # the store is away
            log.debug("could not look at the run: %s", error)
            is_quiet = True
        self.next_at = time.monotonic() + (IDLE_EVERY_S if is_quiet else DRAW_EVERY_S)
        return True

    def _draw(self) -> None:
        began = time.monotonic()
        self._output.show(self._look())
        now = time.monotonic()
        self.draw_at = now + _SHARE * (now - began)


class Views:
    """The pictures of runs that no cell waits for, and the thread that draws them.

    There is a thread while there is something to draw; a kernel that ends does not wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: list[View] = []
        self._has_thread = False
        self._woken = threading.Event()

    def add(self, view: View) -> None:
        """Draw a view from now on, until its run is over."""
        with self._lock:
            self._views.append(view)
            self._woken.set()
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._draw, name="perdure-views", daemon=True).start()

    def hurry(self, run_id: str) -> None:
        """Draw a run's pictures now, if there are any; what is over is left to the thread."""
        with self._lock:
            views = [view for view in self._views if view.run_id == run_id]
        for view in views:
            view.next_at = 0.0
            goes_on(view)
        self._woken.set()

    def _draw(self) -> None:
        while True:
            self._woken.clear()
            over = [view for view in list(self._views) if not goes_on(view)]
            with self._lock:
                self._views = [view for view in self._views if view not in over]
                if not self._views:
                    self._has_thread = False
                    return
                wake_at = min(view.next_at for view in self._views)
            self._woken.wait(max(0.05, wake_at - time.monotonic()))


def goes_on(view: View) -> bool:
    """Let a view take its turn; return whether there will be another."""
    try:
        return view.turn()
    except Exception:  # whatever the notebook's own machinery raises: the view is given up
        log.debug("a view of a run has failed", exc_info=True)
        return False


class Waited:
    """The display of a run that a cell waits for: the same picture; the waiting thread's pace."""

    def __init__(self, scene: Scene, output: Output) -> None:
        self._scene = scene
        self._output = output
        self._next_at = 0.0

    def update(self, commits: list[RunCommit]) -> None:
        """Draw if it is time. The picture is made of rows: what is told of commits is known."""
        began = time.monotonic()
        if began >= self._next_at:
            self._output.show(self._scene.look())
            now = time.monotonic()
            self._next_at = now + max(DRAW_EVERY_S, _SHARE * (now - began))

    def close(self) -> None:
        """Leave the last picture, as it is in the end."""
        self._output.leave(self._scene.look())


class Told:
    """The display of a run that has no picture: its end is told in a line by whoever watches."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def update(self, commits: list[RunCommit]) -> None:
        """Take in what has become of the run."""
        for commit in commits:
            self._scene.board.apply(commit)

    def close(self) -> None:
        """Nothing is there to be taken away."""


class Room:
    """How many pictures a cell has. Mutable."""

    def __init__(self, cell: Callable[[], object]) -> None:
        self._cell = cell
        self._last: object = None
        self._count = 0

    def take(self) -> bool:
        """Say whether the cell that runs now has room for one more, and take it."""
        cell = self._cell()
        self._count = self._count + 1 if cell == self._last else 1
        self._last = cell
        return self._count <= _VIEWS_A_CELL
