"""Files and folders that are on the disk, not only in its cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from perdure_storage.records import Buffer


class Sync(Protocol):
    """How hard writes are pushed down."""

    def begin(self, fd: int, start: int, size_bytes: int) -> None:
        """Let bytes of a file go down already, as a hint: nothing is durable by it."""
        ...

    def file(self, fd: int) -> None:
        """Push a file's bytes down."""
        ...

    def folder(self, path: Path) -> None:
        """Push a folder's entries down."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder with its parents, if it is not there."""
        ...


class DiskSync:
    """To the platter: what survives a power cut."""

    def begin(self, fd: int, start: int, size_bytes: int) -> None:
        """Start the write-back of a range, and wait for none of it; on Linux only.

        So the disk works while the next bytes are hashed and copied, and the sync at the end
        finds little to do. An error of the write-back is kept by the system for that sync.
        """
        start_writing = _sync_file_range()
        if start_writing is not None:
            start_writing(fd, start, size_bytes, _SYNC_FILE_RANGE_WRITE)

    def file(self, fd: int) -> None:
        """Sync a file. macOS' fsync stops at the drive's cache; F_FULLFSYNC does not."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def folder(self, path: Path) -> None:
        """Sync a folder, so that a new name in it stays."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if sys.platform == "darwin":
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            else:
                os.fsync(fd)
        except OSError as error:
            # Some network and user-space filesystems have no such call: their renames are
            # durable or not, and nothing that we do changes it.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)

    def make_folder(self, path: Path) -> None:
        """Make a folder and sync every folder that got a new entry by it.

        The parent is synced even if the folder was there: whoever made it may have died before.
        """
        if not path.is_dir():
            if not path.parent.is_dir():
                self.make_folder(path.parent)
            path.mkdir(exist_ok=True)
        # A parent above the store may be somebody else's, and not be ours to read.
        with contextlib.suppress(PermissionError):
            self.folder(path.parent)


class NoSync:
    """To the operating system only: survives processes, not the machine."""

    def begin(self, fd: int, start: int, size_bytes: int) -> None:
        """Do nothing."""

    def file(self, fd: int) -> None:
        """Do nothing."""

    def folder(self, path: Path) -> None:
        """Do nothing."""

    def make_folder(self, path: Path) -> None:
        """Make a folder with its parents."""
        path.mkdir(parents=True, exist_ok=True)


_SYNC_FILE_RANGE_WRITE = 2


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return sync_file_range(2), which Python has no name for, or None where there is none."""
    import ctypes  # only large values are worth its import

    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast(Callable[[int, int, int, int], int], call)


DISK: Sync = DiskSync()
MEMORY: Sync = NoSync()


def replace_file(
    path: Path, body: bytes, *, before_rename: Callable[[], None] = lambda: None
) -> None:
    """Write a small file whole or not at all, durably. Raises OSError."""
    temporary = path.with_name(temporary_name())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(fd, memoryview(body))
            DISK.file(fd)
        finally:
            os.close(fd)
        before_rename()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    DISK.folder(path.parent)


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte: one call may write less than it was given."""
    while data:
        data = data[os.write(fd, data) :]


def write_at(fd: int, data: Buffer, at: int) -> None:
    """Write every byte at a place of the file, wherever its position is."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def temporary_name() -> str:
    """Return a name that nobody else uses, and that the sweeper of temporaries knows."""
    return f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
