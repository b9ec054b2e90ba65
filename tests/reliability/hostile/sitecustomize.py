"""Makes what is rare the rule, in every process of a test run.

Python imports this by itself where the folder is on ``PYTHONPATH``; ``PERDURE_TEST_HOSTILE`` says
what to do, by names of ``MODES`` with commas between them. ``python -m tests.reliability MODES``
cares for both. Modules are changed when they are imported, so that nothing is imported early.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _UndoneError(Exception):
    """Ends a transaction that is to be done once more."""


def _twice(original: Callable[..., Any], at: int) -> Callable[..., Any]:
    """Return what does the work of a transaction once, undoes it, and then does it for good."""

    def both(*arguments: Any) -> Any:
        def undone(transaction: Any) -> None:
            arguments[at](transaction)
            raise _UndoneError

        try:
            original(*arguments[:at], undone, *arguments[at + 1 :])
        except _UndoneError:
            pass
        return original(*arguments)

    return both


def _retry_sqlite(module: Any) -> None:
    database = module.SqliteDatabase
    database._transact = _twice(database._transact, 2)


def _retry_postgres(module: Any) -> None:
    database = module.PostgresDatabase
    database._write_once = _twice(database._write_once, 1)
    database._write_ahead_once = _twice(database._write_ahead_once, 1)


def _spill(module: Any) -> None:
    original = module.Values.__init__

    def spilling(
        self: Any, codecs: Any, blobs: Any, spool: Any = None, inline_limit: int | None = None
    ) -> None:
        # But for one byte: which branch is chosen is a digit, which the engine reads in the step's
        # row. A test that says its own limit has it, and one without blobs has no place for any.
        least = module.INLINE_LIMIT_BYTES if blobs is None else 1
        original(self, codecs, blobs, spool, least if inline_limit is None else inline_limit)

    module.Values.__init__ = spilling


def _instead(name: str, value: object) -> Callable[[Any], None]:
    """Return what gives a module's ``name`` another value; it fails where there is no such name."""

    def change(module: Any) -> None:
        getattr(module, name)
        setattr(module, name, value)

    return change


MODES: dict[str, dict[str, Callable[[Any], None]]] = {
    # Every transaction is done, undone, and done again, as when a server asks for it.
    "retry": {
        "perdure_storage.sqlite_database": _retry_sqlite,
        "perdure_storage.postgres_database": _retry_postgres,
    },
    # Every value is a blob.
    "spill": {"perdure_storage.values": _spill},
    # Whoever does not renew for a second has lost its runs to other hosts.
    "lease": {"perdure.engine.heartbeat": _instead("LEASE_S", 1.0)},
    # Nothing has more than one CPU.
    "narrow": {"perdure.executors.capacity": _instead("usable_cpus", lambda: 1.0)},
}


class _Changed(Loader):
    """Loads a module as ever, then changes it."""

    def __init__(self, loader: Loader, changes: Sequence[Callable[[Any], None]]) -> None:
        self._loader = loader
        self._changes = changes

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for change in self._changes:
            change(module)


class _Finder(MetaPathFinder):
    def __init__(self, modes: Sequence[str]) -> None:
        self._changes: dict[str, list[Callable[[Any], None]]] = {}
        for mode in modes:
            for name, change in MODES[mode].items():
                self._changes.setdefault(name, []).append(change)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._changes:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changed(spec.loader, self._changes[fullname])
        return spec


_asked = os.environ.get("PERDURE_TEST_HOSTILE", "")
if _asked:
    sys.meta_path.insert(0, _Finder(_asked.split(",")))
