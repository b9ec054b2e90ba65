"""Storage that fails on purpose: an fsspec filesystem wrapped around another one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fsspec import AbstractFileSystem

FaultKind = Literal[
    "no-space",  # writing: ENOSPC
    "io-error",  # reading or writing: EIO
    "time-out",  # reading or writing: ETIMEDOUT
    "short-write",  # what comes after is not written, and nobody is told
    "flip",  # reading: one bit is another
    "truncate",  # reading: nothing comes after
    "swap",  # reading: another object's bytes come instead
    "stale",  # looking: the file is not listed
    "forbidden",  # reading or looking: permission denied
]

_ERRORS: dict[str, int] = {
    "no-space": errno.ENOSPC,
    "io-error": errno.EIO,
    "time-out": errno.ETIMEDOUT,
    "forbidden": errno.EACCES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which storage lets its user down.

    Attributes:
        kind: what happens.
        at: number of the byte at which it happens.
        on: ``"read"``, ``"write"`` or ``"look"``.
        path: only for paths that hold this text.
        other: for ``swap``, the bytes that come instead.
    """

    kind: FaultKind
    at: int = 0
    on: Literal["read", "write", "look"] = "read"
    path: str = "blake3-"
    other: bytes = b""


class FaultyFS(AbstractFileSystem):  # type: ignore[misc]
    """A filesystem that does what ``inject`` asks for, and otherwise what the one below does."""

    cachable = False

    def __init__(self, below: Any) -> None:
        super().__init__()
        self._below = below
        self._faults: list[tuple[Fault, int | None]] = []
        self.protocol = below.protocol

    def inject(self, fault: Fault, *, times: int | None = None) -> None:
        """Let a fault happen from now on: ``times`` times, or until ``heal``."""
        self._faults.append((fault, times))

    def heal(self) -> None:
        """Be well again."""
        self._faults.clear()

    def due(self, on: str, path: str) -> Fault | None:
        """Return the fault that an operation on ``path`` meets, and count it."""
        for at, (fault, times) in enumerate(self._faults):
            if fault.on == on and fault.path in path and times != 0:
                self._faults[at] = (fault, None if times is None else times - 1)
                return fault
        return None

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        fault = self.due("read" if mode.startswith("r") else "write", path)
        file = self._below.open(path, mode, **{k: options[k] for k in _PASSED if k in options})
        return file if fault is None else _FaultyFile(file, fault)

    def _look(self, path: str) -> None:
        fault = self.due("look", path)
        if fault is not None:
            if fault.kind == "stale":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            raise _error(fault)

    def info(self, path: str, **options: Any) -> Any:
        """Return what is known of a path."""
        self._look(path)
        return self._below.info(path, **options)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """List a folder."""
        self._look(path)
        return self._below.ls(path, detail=detail, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        """Move a file."""
        self._below.mv(path1, path2, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder with its parents."""
        self._below.makedirs(path, exist_ok=exist_ok)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self._below.rm_file(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files and folders."""
        self._below.rm(path, recursive=recursive, maxdepth=maxdepth)

    def modified(self, path: str) -> Any:
        """Return when a file was written last."""
        return self._below.modified(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings."""
        self._below.invalidate_cache(path)

    def _strip_protocol(self, path: Any) -> Any:
        return self._below._strip_protocol(path)


_PASSED = ("autocommit", "block_size")


def _error(fault: Fault) -> OSError:
    number = _ERRORS[fault.kind]
    return OSError(number, os.strerror(number))


class _FaultyFile:
    """An open file that meets one fault at byte ``fault.at``."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self._file = file
        self._fault = fault
        self._at = 0

    def __enter__(self) -> _FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        """Write up to the fault."""
        view = memoryview(data)
        room = max(0, self._fault.at - self._at)
        self._at += len(view)
        self._file.write(view[:room])
        if len(view) > room and self._fault.kind != "short-write":
            raise _error(self._fault)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self._at = int(self._file.seek(offset, whence))
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read up to the fault, then as it says."""
        start = self._at
        data = bytes(self._file.read(size))
        self._at += len(data)
        if self._at <= self._fault.at and data:
            return data
        return _SPOILERS.get(self._fault.kind, _raises)(self._fault, data, self._fault.at - start)


def _raises(fault: Fault, data: bytes, at: int) -> bytes:
    raise _error(fault)


def _flip(fault: Fault, data: bytes, at: int) -> bytes:
    if not 0 <= at < len(data):
        return data
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _truncate(fault: Fault, data: bytes, at: int) -> bytes:
    return data[: max(0, at)]


def _swap(fault: Fault, data: bytes, at: int) -> bytes:
    keep = max(0, at)
    wanted = len(data) - keep
    return data[:keep] + (fault.other * (wanted // max(1, len(fault.other)) + 1))[:wanted]


_SPOILERS: dict[str, Callable[[Fault, bytes, int], bytes]] = {
    "flip": _flip,
    "truncate": _truncate,
    "swap": _swap,
}
