"""Which blobs this host has written or verified since it booted: they are not hashed again.

A verification holds while device, inode, size and change time of the file stand. It is remembered
in the process, and for large blobs in a folder of the user's own on this host, so that one process
hands a gigabyte to the next without a second look at it. That folder is outside the blob root: who
can change a blob there cannot vouch for it here.

Beside the records lie marks of what large bytes were like that were put: what is like them is
looked for by its name before it is written. A mark vouches for nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from perdure_storage.boots import boot_id

_SHARED_FROM_BYTES = 1 << 20
_REMEMBERED = 200_000
_PREFIX = "perdure-verified"


class Verified:
    """What is known about the files of one blob store."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, ...]] = {}

    def note(self, name: str, found: os.stat_result) -> None:
        """Remember that the file's bytes are those of its name."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[name] = identity(found)
        if found.st_size >= _SHARED_FROM_BYTES:
            _share(name, found)

    def holds(self, name: str, found: os.stat_result) -> bool:
        """Say whether the file has been verified, and stands as it was then."""
        if self._known.get(name) == identity(found):
            return True
        return found.st_size >= _SHARED_FROM_BYTES and _is_shared(name, found)

    def saw(self, mark: str) -> bool:
        """Say whether bytes of this sketch were put on this host before; remember that they are."""
        folder = _shared_folder()
        if folder is None:
            return False
        record = folder / f"sketch-{mark}"
        try:
            record.touch(exist_ok=False)
        except FileExistsError:
            return True
        except OSError:
            pass
        return False

    def forget(self, name: str) -> None:
        """Look at the file again next time."""
        self._known.pop(name, None)
        folder = _shared_folder()
        if folder is not None:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def sweep_records(before: float) -> None:
    """Remove what was remembered before ``before`` (seconds since the epoch): it costs a hash."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            if _is_ours(folder):
                _sweep_folder(folder, before)


def _sweep_folder(folder: Path, before: float) -> None:
    for record in folder.iterdir():
        if record.stat().st_mtime < before:
            record.unlink()
    folder.rmdir()  # refused, and that is an OSError, while a record is left


def identity(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes with a file's bytes, as far as its host tells."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


def _text(found: os.stat_result) -> str:
    return " ".join(map(str, identity(found))) + "\n"


# A record that cannot be written or read costs a hash, never an error.
def _share(name: str, found: os.stat_result) -> None:
    folder = _shared_folder()
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / name).write_text(_text(found))


def _is_shared(name: str, found: os.stat_result) -> bool:
    folder = _shared_folder()
    if folder is None:
        return False
    try:
        return (folder / name).read_text() == _text(found)
    except OSError:
        return False


def _folder_name() -> str:
    return f"{_PREFIX}-{os.getuid()}-{boot_id()}"


def _shared_folder() -> Path | None:
    """Return the folder of records, or None where it cannot be had, or is not ours alone."""
    try:
        folder = Path(tempfile.gettempdir()) / _folder_name()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        return folder if _is_ours(folder) else None
    except (OSError, ValueError):
        return None


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and private
