"""What things look like where somebody types Python: bundles of plain text and static HTML.

Everything is read from rows and plans: nothing is unpickled, and no code of the user's runs. What
goes wrong in a picture costs the picture: what is shown then is text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import singledispatch

from perdure.comparing import Difference
from perdure.explaining import Explanation
from perdure.graph.dag import Dag, make_dag
from perdure.graph.node import Node
from perdure.interactive import find_ipython
from perdure.notebook import pictures, texts
from perdure.notebook.live import Room, Told, View, Views, Waited, goes_on, open_output
from perdure.notebook.tracebacks import lines_of
from perdure.progress.displays import Scene
from perdure.progress.watch import Display
from perdure.runs import Run, Runs, Step
from perdure.showing import Bundle
from perdure.view.markup import Element
from perdure.workflow import Workflow
from perdure_storage.errors import PerdureError
from perdure_storage.lifecycle import RUN_LIVE

log = logging.getLogger(__name__)


def bundle(thing: object) -> Bundle:
    """Return what a thing looks like, as it stands now; only text where it has no picture."""
    text = _attempt(lambda: _text(thing)) or _attempt(lambda: repr(thing))
    picture = _attempt(lambda: str(_picture(thing)))
    return {
        "text/plain": text or f"<{type(thing).__name__}>",
        **({"text/html": picture} if picture else {}),
    }


def _attempt(make: Callable[[], str]) -> str | None:
    try:
        return make()
    except Exception:  # a cell shows what it can, whatever a store or a plan has come to
        log.debug("could not show something", exc_info=True)
        return None


@singledispatch
def _text(thing: object) -> str:
    return str(thing) if isinstance(thing, Dag | Explanation | Difference) else repr(thing)


_text.register(Run, texts.tell_run)
_text.register(Runs, texts.tell_runs)
_text.register(Step, texts.tell_step)


@singledispatch
def _picture(thing: object) -> Element | str:
    return ""


_picture.register(Run, pictures.draw_run)
_picture.register(Runs, pictures.draw_runs)
_picture.register(Step, pictures.draw_step)
_picture.register(Workflow, pictures.draw_workflow)
_picture.register(Dag, pictures.draw_dag)
_picture.register(Explanation, pictures.draw_explanation)


@_picture.register
def _(thing: Node) -> Element | str:
    return pictures.draw_dag(make_dag(thing))


@_picture.register
def _(thing: Difference) -> Element | str:
    return pictures.draw_text(str(thing))


class Shown:
    """What ``perdure.showing`` asks, in this process."""

    def __init__(self) -> None:
        self._views = Views()
        self._room = Room(lambda: find_ipython().execution_count)

    def bundle(self, thing: object) -> Bundle:
        """Return what a thing looks like."""
        return bundle(thing)

    def show_live(self, run: Run) -> bool:
        """Show a run below the cell while it goes on."""
        try:
            if run.record.status not in RUN_LIVE:
                return False
        except PerdureError:  # it was deleted, or the store is away: its bundle is text
            return False
        view = View(run, lambda: bundle(run), open_output())
        if goes_on(view):  # its first turn is here, where the cell is known that it belongs to
            self._views.add(view)
        return True

    def show_end(self, run: Run) -> None:
        """Draw the pictures of a run that is over at once, before its cell ends."""
        self._views.hurry(run.id)

    def lines_of(self, error: BaseException) -> list[str]:
        """Return what is shown of an error."""
        return lines_of(error)

    def medium(self, scene: Scene) -> Display:
        """Return what shows a run that a cell waits for."""
        return Waited(scene, open_output()) if self._room.take() else Told(scene)


NOTEBOOK = Shown()
