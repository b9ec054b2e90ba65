"""A picture that a page alters where it differs: static HTML, with a widget of anywidget behind it.

The widget has no view of its own: its code finds the HTML in the page and alters it there. So what
a notebook keeps is a picture whatever becomes of the kernel, where a view of a widget is an error
to whoever does not find it. Pages that look after widgets only where one's view is shown are given
the view, with the HTML beside it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import anywidget
import traitlets
from IPython.display import DisplayHandle, display

from perdure.interactive import find_ipython
from perdure.showing import Bundle

KEEP_EVERY_S = 10.0
"""How old the picture may be that the notebook keeps. Pages without widgets show that one."""


class Picture(anywidget.AnyWidget):
    """HTML in a page. Its markup comes escaped from ``perdure.view.markup``."""

    _esm = files("perdure.notebook").joinpath("picture.js").read_text()
    key = traitlets.Unicode().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)
    is_seen = traitlets.Bool(True).tag(sync=True)


class Altered:
    """An output of static HTML that a widget alters in the page."""

    def __init__(self) -> None:
        self._handle = DisplayHandle()
        self._picture: Picture | None = None
        self._kept_at = 0.0

    @property
    def is_wanted(self) -> bool:
        """Say whether it may be in sight, or what is kept is old.

        A busy kernel hears no news of what is in sight.
        """
        return self._picture is None or bool(self._picture.is_seen) or self._is_old

    @property
    def _is_old(self) -> bool:
        return time.monotonic() > self._kept_at + KEEP_EVERY_S

    def show(self, look: Bundle) -> None:
        """Show how it looks now."""
        html = look.get("text/html", "")
        if self._picture is None:
            self._picture = Picture(key=self._handle.display_id, html=html)
            self._keep(look, self._handle.display)
            return
        self._picture.html = html
        if self._is_old:
            self._keep(look, self._handle.update)

    def leave(self, look: Bundle) -> None:
        """Show how it looks in the end."""
        if self._picture is None:
            display(look, raw=True)
            return
        # It is not closed: a page that was shut meanwhile has kept an older picture, and when it
        # is opened again it asks this kernel for the last one.
        self._picture.html = look.get("text/html", "")
        self._keep(look, self._handle.update)

    def _keep(self, look: Bundle, show: Callable[..., None]) -> None:
        key, html = self._handle.display_id, look.get("text/html", "")
        show({**look, "text/html": f'<div data-perdure-picture="{key}">{html}</div>'}, raw=True)
        self._kept_at = time.monotonic()


class Viewed:
    """An output that the view of a widget draws, until the end leaves static HTML in its place."""

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._handle: Any = None

    @property
    def is_wanted(self) -> bool:
        """Say whether a page shows it, as far as is known; a busy kernel hears no news of it."""
        return self._picture is None or bool(self._picture.is_seen)

    def show(self, look: Bundle) -> None:
        """Show how it looks now."""
        html = look.get("text/html", "")
        if self._picture is not None:
            self._picture.html = html
            return
        self._picture = Picture(key=DisplayHandle().display_id, html=html)
        data, metadata = _view_of(self._picture)
        self._handle = display({**data, **look}, metadata=metadata, raw=True, display_id=True)

    def leave(self, look: Bundle) -> None:
        """Show how it looks in the end."""
        if self._handle is None:
            display(look, raw=True)
            return
        self._handle.update(look, raw=True)
        if self._picture is not None:  # it is not closed, for a page that was shut meanwhile
            self._picture.html = look.get("text/html", "")


def _view_of(picture: Picture) -> tuple[dict[str, Any], dict[str, Any]]:
    made: Any = picture._repr_mimebundle_()
    return made if isinstance(made, tuple) else (made, {})


def needs_view() -> bool:
    """Say whether this kernel's page looks after widgets only where a view of one is shown.

    Source: VS Code loads its part for widgets with the first output of their MIME type; it names
    the notebook to the kernel by a variable, and starts its own kernels with ``VSCODE_PID``. Colab
    shows each output in a frame of its own.
    """
    named = "__vsc_ipynb_file__" in getattr(find_ipython(), "user_ns", {})
    return named or "VSCODE_PID" in os.environ or "google.colab" in sys.modules
