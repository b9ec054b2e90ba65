"""Tells at once what changes in a local folder. It may miss something: listings find that."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

log = logging.getLogger(__name__)

_STEP_MS = 200
"""How often the thread looks for news: a file is seen within two of these."""
_TOGETHER_MS = 1_000
"""The longest that changes are gathered while more of them come."""


class FolderWatch:
    """Watches a folder of this machine, when it is there, and waits in a thread of its own.

    Network mounts tell nothing of what other machines write. Made and asked on one event loop;
    ``ensure`` asks the file system, and so belongs into a thread.

    Args:
        folder: path in full.
        is_deep: whether the folders below are watched too.
    """

    def __init__(self, folder: str, *, is_deep: bool) -> None:
        self._folder = folder
        self._is_deep = is_deep
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._watched: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._is_over = False
        self._told = ""

    @property
    def is_on(self) -> bool:
        """Say whether changes are told."""
        return self._watched is not None

    async def changed(self, wait_s: float) -> frozenset[str]:
        """Wait for changes, but no longer than this; return the paths that have changed."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            pass
        changed, self._changed = frozenset(self._changed), set()
        self._news.clear()
        return changed

    def ensure(self) -> None:
        """Watch the folder that is there now: it may not have been there, or be another one.

        To be called before a listing: that finds what was there before the watching began.
        """
        identity = _identity(self._folder)
        with self._lock:
            if self._is_over or identity == self._watched:
                return
            self._end()
            if identity is not None and self._begin():
                self._watched = identity

    def _begin(self) -> bool:
        from watchfiles._rust_notify import RustNotify  # late: only who listens needs it

        try:
            notify = RustNotify([self._folder], False, False, 0, self._is_deep, True)
        except OSError as error:  # no more watches are to be had, or the folder is gone again
            if str(error) != self._told:
                log.warning("%s is not watched, only listed: %s", self._folder, error)
            self._told = str(error)
            return False
        threading.Thread(
            target=self._follow, args=(notify, self._stop), name="perdure-watch", daemon=True
        ).start()
        return True

    def _follow(self, notify: RustNotify, stop: threading.Event) -> None:
        try:
            while isinstance(changes := notify.watch(_TOGETHER_MS, _STEP_MS, 0, stop), set):
                self._loop.call_soon_threadsafe(self._note, {path for _, path in changes})
        except RuntimeError as error:  # the loop is closed; or the watcher is broken
            log.debug("%s is not watched any more: %s", self._folder, error)
            self._watched = None
        finally:
            notify.close()

    def _note(self, paths: set[str]) -> None:
        self._changed |= paths
        self._news.set()

    def _end(self) -> None:
        self._stop.set()
        self._stop = threading.Event()
        self._watched = None

    def close(self) -> None:
        """Watch no longer, whoever may still ask for it. Idempotent."""
        with self._lock:
            self._is_over = True
            self._end()


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what tells a folder from another one that lies there later."""
    try:
        stat = os.stat(folder)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
