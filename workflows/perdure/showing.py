"""How things are shown in notebooks: looked up, not imported upwards.

What users hold has a ``_repr_mimebundle_`` of one line, and errors a ``_render_traceback_``, which
ask here. Who answers is named by ``perdure`` itself, and imported when there is something to show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from perdure.interactive import is_kernel

if TYPE_CHECKING:
    from perdure.progress.displays import Scene
    from perdure.progress.watch import Display

Bundle = dict[str, Any]
"""A thing in several media, by MIME type."""


class Notebook(Protocol):
    """Shows things where somebody types Python. Looking runs no user code and never raises."""

    def bundle(self, thing: object) -> Bundle:
        """Return what a thing looks like, as it stands now."""
        ...

    def show_live(self, run: Any) -> bool:
        """Show a run below the cell for as long as it goes on; False if it is over."""
        ...

    def show_end(self, run: Any) -> None:
        """Draw the pictures of a run that is over at once, before its cell ends."""
        ...

    def lines_of(self, error: BaseException) -> list[str]:
        """Return the lines that are shown of an error: the traceback of the user's code first."""
        ...

    def medium(self, scene: Scene) -> Display:
        """Return what shows a run that a cell waits for."""
        ...


_factory: Callable[[], Notebook] | None = None


def set_notebook(factory: Callable[[], Notebook]) -> None:
    """Name the function that returns who shows things."""
    global _factory
    _factory = factory


def notebook() -> Notebook:
    """Return who shows things."""
    assert _factory is not None, "`import perdure` names it"
    return _factory()


def bundle_of(thing: object) -> Bundle:
    """Return what ``thing`` looks like in a notebook."""
    return notebook().bundle(thing)


def show_live(run: object) -> bool:
    """Show a run below the cell while it goes on; False if it does not, or there is no cell."""
    return is_kernel() and notebook().show_live(run)


def show_end(run: object) -> None:
    """Draw the pictures of a run that is over, if there are any, before somebody has its result."""
    if is_kernel():
        notebook().show_end(run)


def lines_of(error: BaseException) -> list[str]:
    """Return the lines that are shown of an error where somebody types Python."""
    return notebook().lines_of(error)


def shorten(error: BaseException) -> None:
    """Let IPython show of an error that is not perdure's own only what is the user's."""
    vars(error)["_render_traceback_"] = lambda: lines_of(error)
