"""A picture as a widget of anywidget: the page alters what differs, and says whether it is seen."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets
from IPython.display import display

from perdure.showing import Bundle


class Picture(anywidget.AnyWidget):
    """HTML in a page. Its markup comes escaped from ``perdure.view.markup``."""

    _esm = files("perdure.notebook").joinpath("picture.js").read_text()
    html = traitlets.Unicode().tag(sync=True)
    is_seen = traitlets.Bool(True).tag(sync=True)


class Widget:
    """An output that a widget draws, until the end leaves static HTML in its place."""

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._handle: Any = None

    @property
    def is_seen(self) -> bool:
        """Say whether a page shows it, as far as is known; a busy kernel hears no news of it."""
        return self._picture is None or bool(self._picture.is_seen)

    def show(self, look: Bundle) -> None:
        """Show how it looks now."""
        html = look.get("text/html", "")
        if self._picture is not None:
            self._picture.html = html
            return
        self._picture = Picture(html=html)
        data, metadata = _view_of(self._picture)
        # A page without widgets, and an exported notebook, take the static HTML beside it.
        self._handle = display({**data, **look}, metadata=metadata, raw=True, display_id=True)

    def leave(self, look: Bundle) -> None:
        """Show how it looks in the end."""
        if self._handle is None:
            display(look, raw=True)
            return
        self._handle.update(look, raw=True)
        if self._picture is not None:
            # It is not closed: a page that was shut meanwhile has saved the widget and not heard of
            # the static HTML; opened again it asks this kernel for the picture.
            self._picture.html = look.get("text/html", "")


def _view_of(picture: Picture) -> tuple[dict[str, Any], dict[str, Any]]:
    made: Any = picture._repr_mimebundle_()
    return made if isinstance(made, tuple) else (made, {})
