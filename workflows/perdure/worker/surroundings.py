"""What belongs to the whole process and steps change: each step of a warm worker gets it as new.

Modules change these things too, once, when they are imported, and later steps count on that. So
what is restored is what was there when the step's function and arguments had been loaded. Where
more was imported while the step ran, what has been added to the environment and the path may be
the modules' and stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping


class Surroundings:
    """The working folder, environment, path and file mode mask around the steps of a worker.

    Not kept: the locale, handlers of other signals than ours, and whatever else a library has.
    Owned by the main thread.
    """

    def __init__(self) -> None:
        self._modules = 0
        self._environ = os.environ
        self.note()

    def note(self) -> None:
        """Take what is there now as what is to be restored; nothing to do if nothing was imported.

        Call it when all that a step needs is loaded, before its function runs.
        """
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        self._folder = _folder()
        self._path = list(sys.path)
        self._environment = dict(self._raw_environment())
        self._mask = os.umask(0o077)
        os.umask(self._mask)

    def restore(self) -> None:
        """Undo what a step has done. Takes a few microseconds if it has done nothing."""
        signal.alarm(0)  # It would hit the next step, and kill the worker.
        os.umask(self._mask)
        if self._folder and _folder() != self._folder:
            with contextlib.suppress(OSError):  # It was removed: then there is no way back.
                os.chdir(self._folder)
        keeps_additions = len(sys.modules) != self._modules
        if sys.path != self._path and not (keeps_additions and set(self._path) <= set(sys.path)):
            sys.path[:] = self._path
        os.environ = self._environ  # noqa: B003 - the very object, should a step have replaced it
        if self._raw_environment() != self._environment:
            self._restore_environment(keeps_additions)

    def _raw_environment(self) -> Mapping[bytes, bytes]:
        """Return the dict behind ``os.environ``: many times faster to compare than its face."""
        found: Mapping[bytes, bytes] = self._environ._data  # type: ignore[attr-defined]
        return found

    def _restore_environment(self, keeps_additions: bool) -> None:
        now = dict(self._raw_environment())
        for name in now.keys() - self._environment.keys():
            if not keeps_additions:
                del os.environb[name]
        for name, value in self._environment.items():
            if now.get(name) != value:
                os.environb[name] = value


def _folder() -> str:
    """Return the working folder; "" if it is not there any more."""
    try:
        return os.getcwd()
    except OSError:
        return ""
