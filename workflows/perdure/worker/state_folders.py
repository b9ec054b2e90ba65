"""The folders in which actors were saved last, of those that can write into it what changed since.

A class with ``save_changes(folder)`` beside ``save`` and ``load`` is given the folder of its last
save or load again, as that left it: unchanged files are neither written nor read. The folder is of
one instance, and goes with it.
"""

from __future__ import annotations

import weakref
from typing import Any

from perdure_storage.temporary_folders import TemporaryFolder

_kept: dict[int, TemporaryFolder] = {}
"""By the id of the instance, which is another's only after its end, and then it is not here."""


def folder_with(instance: Any) -> TemporaryFolder:
    """Return a folder with the state of an instance as it is now; ``let_go`` of it when it is read.

    Raises:
        Exception: of the instance's own ``save`` or ``save_changes``.
    """
    folder = _kept.get(id(instance))
    try:
        if folder is not None:
            instance.save_changes(str(folder.path))
            return folder
        folder = TemporaryFolder()
        instance.save(str(folder.path))
    except BaseException:
        _close(id(instance))  # nobody knows what is in it
        if folder is not None:
            folder.close()
        raise
    return folder


def let_go(folder: TemporaryFolder, instance: Any) -> None:
    """Keep a folder that has the state of an instance for its next save, if it can use it."""
    if _kept.get(id(instance)) is folder:
        return
    if not _saves_changes(type(instance)):
        folder.close()
        return
    _close(id(instance))
    _kept[id(instance)] = folder
    weakref.finalize(instance, _close, id(instance))


def _saves_changes(cls: type) -> bool:
    """Say whether an actor can bring a folder up to date; and be told of its end by Python."""
    return callable(getattr(cls, "save_changes", None)) and cls.__weakrefoffset__ > 0


def _close(of: int) -> None:
    folder = _kept.pop(of, None)
    if folder is not None:
        folder.close()
