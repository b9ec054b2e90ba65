"""Hashing beside other work with the same bytes, such as writing them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from perdure_storage.hashing import Hasher

_FROM_BYTES = 1 << 20


@contextmanager
def hashing(hasher: Hasher, piece: memoryview) -> Iterator[None]:
    """Add a piece to a digest while the body does something else with it, such as write it.

    A large one is hashed by a thread of its own: neither hashing nor writing holds the GIL.
    """
    beside = _HashedBeside(hasher, piece) if len(piece) >= _FROM_BYTES else None
    if beside is None or not beside.begun():
        hasher.update(piece)
        yield
        return
    try:
        yield
    finally:
        beside.join()
    if beside.error is not None:
        raise beside.error


class _HashedBeside(threading.Thread):
    """Adds one piece to a digest."""

    def __init__(self, hasher: Hasher, piece: memoryview) -> None:
        super().__init__(name="perdure-hash", daemon=True)
        self._hasher = hasher
        self._piece = piece
        self.error: BaseException | None = None

    def begun(self) -> bool:
        """Start; say whether there was a thread to be had: none at the interpreter's end."""
        try:
            self.start()
        except RuntimeError:
            return False
        return True

    def run(self) -> None:
        """Hash. What goes wrong is raised where the digest is wanted: it would be another one."""
        try:
            self._hasher.update(self._piece)
        except BaseException as error:  # noqa: BLE001 - told by whoever joins
            self.error = error
