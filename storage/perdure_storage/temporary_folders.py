"""Folders for the time of a step, in the machine's folder for temporary files.

Each is locked by the process that uses it, for as long as it uses it: whose lock is free has died,
whatever killed it, and its folder may go. A process id would say less: it is given out again, and
means another process in another container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PREFIX = "perdure-folder-"


class TemporaryFolder:
    """An empty folder of this process; removed when it is closed, or by others after a death."""

    def __init__(self) -> None:
        _sweep_once()
        self._lock: int | None = None
        self._pid = os.getpid()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = _locked(self.path, fcntl.LOCK_EX)
            if self.path.exists():
                return
            if self._lock is not None:  # somebody swept it between its making and its lock
                os.close(self._lock)

    def close(self) -> None:
        """Remove it with all that is in it. Idempotent; a fork of its process leaves it alone."""
        if os.getpid() != self._pid:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def left_folders() -> list[Path]:
    """Return the folders of this user's processes that have died."""
    return list(_left())


def sweep_left_folders() -> int:
    """Remove the folders of this user's processes that have died; return how many that were."""
    swept = 0
    for path in _left():
        shutil.rmtree(path, ignore_errors=True)
        swept += 1
    return swept


@cache
def _sweep_once() -> None:
    """Remove what others left, before this process adds its own: deaths do not fill the disk."""
    sweep_left_folders()


def _left() -> Iterator[Path]:
    """Yield folders that nobody uses, locked until the next one is asked for."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError):  # it is going, or is another's
            if path.lstat().st_uid != os.getuid():
                continue
            lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:
                try:
                    yield path
                finally:
                    os.close(lock)


def _locked(path: Path, how: int) -> int | None:
    """Return a descriptor that holds the folder's lock; None if it is held, or cannot be had."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(found, how)
    except OSError:  # of some file systems none can be had: then none is swept either
        os.close(found)
        return None
    return found
