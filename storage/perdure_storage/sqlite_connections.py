"""Connections to a SQLite file: durable, and kept for the next who reads."""

from __future__ import annotations

import sqlite3
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another process's transaction; ours take milliseconds."""

CONNECT: dict[str, Any] = {
    "check_same_thread": False,
    "cached_statements": 256,
    # The driver begins transactions late and DEFERRED by itself: two processes that read and then
    # write lose updates that way (129 of 300 were measured). So it is told to begin none.
    "isolation_level": None,
}
_KEPT = 4


def connect(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a new connection that begins no transaction by itself."""
    connection: sqlite3.Connection = sqlite3.connect(path, timeout=busy_timeout_s, **CONNECT)
    set_up(connection)
    return connection


def set_up(connection: sqlite3.Connection, record: object = None) -> None:
    """Have a connection commit durably."""
    del record
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if sys.platform == "darwin":
        # There fsync does not reach the disk; this does.
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute("PRAGMA checkpoint_fullfsync=ON")
    # A checkpoint that found a reader leaves a long log; cut it once it is written back.
    connection.execute("PRAGMA journal_size_limit=67108864")


class SqliteConnections:
    """Connections to one file, for any thread: as many as are in use, and a few that are kept.

    Args:
        path: the file.
        busy_timeout_s: how long to wait for another writer.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._idle: deque[sqlite3.Connection] = deque()
        self._is_closed = False

    def new(self) -> sqlite3.Connection:
        """Return a connection that is the caller's."""
        return connect(self._path, busy_timeout_s=self._busy_timeout_s)

    @contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that is given back, out of any transaction."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.new()
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.rollback()
            if len(self._idle) < _KEPT and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close those that are kept, and keep none any more."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
