"""Looking at the file of a SQLite store without opening it as one: nothing is made or migrated."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

TIMEOUT_S = 5.0
SCAN_BYTES = 256 << 20
"""Larger files are not read as a whole by a quick look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteHealth:
    """What a quick look at the file has shown.

    Attributes:
        journal: how it is written, ``"wal"`` as it should be.
        damage: what SQLite says is wrong in it; "" if nothing is.
        is_scanned: whether all of it was read.
        size_bytes: of the file.
        log_bytes: of the write-ahead log beside it.
    """

    journal: str
    damage: str
    is_scanned: bool
    size_bytes: int
    log_bytes: int


def look_at_sqlite(path: Path, *, scan_bytes: int = SCAN_BYTES) -> SqliteHealth:
    """Read a SQLite file; safe beside whoever writes it.

    Raises:
        sqlite3.Error: it is no SQLite file, or cannot be opened.
        OSError: it cannot be reached.
    """
    size_bytes = path.stat().st_size
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=TIMEOUT_S)
    try:
        journal = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
        is_scanned = size_bytes <= scan_bytes
        said = connection.execute("PRAGMA quick_check(3)").fetchall() if is_scanned else []
    finally:
        connection.close()
    damage = "; ".join(str(row[0]) for row in said if row[0] != "ok")
    return SqliteHealth(
        journal=journal,
        damage=" ".join(damage.split()),
        is_scanned=is_scanned,
        size_bytes=size_bytes,
        log_bytes=_size_of(path.with_name(f"{path.name}-wal")),
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
