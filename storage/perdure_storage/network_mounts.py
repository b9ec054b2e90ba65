"""Whether a path lies on a network file system, where SQLite's locks and shared memory fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NETWORK_TYPES = frozenset(
    {
        "9p",
        "afpfs",
        "afs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "smb3",
        "smbfs",
        "webdav",
    }
)


def network_type_of(path: Path) -> str | None:
    """Return the type of the network file system that holds ``path``, or None if it is local."""
    kind = type_of(path.resolve(), _mount_table())
    return kind if kind in NETWORK_TYPES else None


def type_of(path: Path, table: str) -> str | None:
    """Return the file system type of an absolute path, going by a table of mounts.

    Args:
        path: absolute, without links.
        table: lines as in ``/proc/self/mounts``, or as ``mount`` says them on macOS.
    """
    deepest: tuple[int, str] | None = None
    for place, kind in _mounts(table):
        # Of mounts on the same place the last one is on top.
        if path.is_relative_to(place) and (deepest is None or len(place.parts) >= deepest[0]):
            deepest = (len(place.parts), kind)
    return None if deepest is None else deepest[1]


def _mounts(table: str) -> Iterator[tuple[Path, str]]:
    for line in table.splitlines():
        if " on " in line and line.endswith(")"):
            place, _, options = line.split(" on ", 1)[1].rpartition(" (")
            yield Path(place), options.split(",")[0].rstrip(")")
        elif len(fields := line.split()) >= 3:
            yield Path(_unescaped(fields[1])), fields[2]


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _mount_table() -> str:
    if sys.platform == "darwin":
        return subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=True).stdout
    return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
