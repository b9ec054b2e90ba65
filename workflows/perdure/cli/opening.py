"""The store that a command works on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perdure.cli.endings import say
from perdure.errors import StoreError

if TYPE_CHECKING:
    from perdure.client import Perdure


class NoStoreYet(StoreError):
    """There is no store where one is looked for, and to look must not make one.

    Likely:
        You are in another folder than the one where you ran something, or nothing has run yet.

    Type:
        ``perdure run TARGET`` makes a store; ``--store`` or ``PERDURE_STORE`` names another.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        super().__init__(
            f"there is no store at {store}: nothing has run here yet. "
            "`perdure run TARGET` makes one; --store or PERDURE_STORE names another"
        )


def open_store(store: str | None = None, **arguments: Any) -> Perdure:
    """Return the client of the settings; what it has to say goes to stderr, terminal or not.

    Args:
        store: what ``--store`` said.
        **arguments: settings that other options said; None for those that are not there.
    """
    from perdure.client import Perdure
    from perdure.progress.displays import everywhere
    from perdure.settings import load_settings

    settings = load_settings(store=store, **arguments)
    return Perdure(settings, say, find_medium=everywhere)


def open_existing(store: str | None, *, workers: int | None = None) -> Perdure:
    """Return the client of a store that is there already.

    Raises:
        NoStoreYet: there is none.
    """
    perdure = open_store(store, workers=workers)
    if _is_missing(perdure):
        raise NoStoreYet(perdure.settings.store)
    return perdure


@contextlib.contextmanager
def open_or_empty(store: str | None) -> Generator[Perdure, None, None]:
    """Open the store; where there is none, an empty one elsewhere that is gone afterwards.

    For what only looks, and has something to say also before anything has run.
    """
    from perdure.client import Perdure

    perdure = open_store(store)
    if not _is_missing(perdure):
        with perdure:
            yield perdure
        return
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        # The blobs too: a root that the settings name would be bound to the store that goes.
        url, blobs = f"sqlite:///{folder}/perdure.db", f"{folder}/blobs"
        with Perdure(replace(perdure.settings, store=url, blobs=blobs), say) as empty:
            yield empty


def _is_missing(perdure: Perdure) -> bool:
    from perdure.settings import sqlite_path

    path = sqlite_path(perdure.settings.store)
    if path is None:
        return False
    # To look into an empty file would make a store of it, whatever it was before.
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)
