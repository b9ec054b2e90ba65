"""A copy of a live SQLite store's rows, and the pin that keeps the blobs they name from gc."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from perdure_storage.durable_files import DISK, temporary_name
from perdure_storage.errors import StoreError
from perdure_storage.faults import crash_point
from perdure_storage.records import PinRecord
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase, explain


def back_up(store: SqlRunStore, path: Path, now: datetime) -> PinRecord:
    """Copy the rows of a store into a file, whoever writes meanwhile, and pin their blobs.

    The copy is what the store was in the moment in which the pin was made: no more, no less. It
    appears whole or not at all. A death in between leaves a pin without a file.

    Args:
        store: the store; only SQLite's can be copied by us.
        path: the file to make.
        now: the time of the pin.

    Raises:
        StoreError: the store is not SQLite's, the file is there already, or its folder is not, or
            it cannot be written.
    """
    database = _sqlite_of(store)
    _require_free(path)
    pin = PinRecord(id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}", at=now, note=str(path))
    with _snapshot(database) as snapshot:
        store.pin(pin, pinned=lambda: _begin_to_read(snapshot))
        try:
            _copy(snapshot, path)
        except BaseException:
            store.unpin(pin.id)
            raise
    return pin


def _require_free(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path} is there already, and a backup replaces nothing: name another")
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent} to put a backup in: make it first")


def _sqlite_of(store: SqlRunStore) -> SqliteDatabase:
    database = store.database
    if not isinstance(database, SqliteDatabase):
        raise StoreError(
            f"{store.url} is copied by PostgreSQL's own tool: `pg_dump -Fc -f FILE DATABASE`. The"
            " values lie beside it: run no gc that deletes runs while you need the dump"
        )
    return database


@contextlib.contextmanager
def _snapshot(database: SqliteDatabase) -> Iterator[sqlite3.Connection]:
    """Yield a connection for reading, in no transaction yet."""
    with database.connections.lent() as connection:
        yield connection


def _begin_to_read(snapshot: sqlite3.Connection) -> None:
    """Fix what the connection sees: what was committed last, while nobody else can write."""
    if snapshot.in_transaction:  # of a pin that was not committed: it is made again
        snapshot.rollback()
    snapshot.execute("BEGIN")
    snapshot.execute("SELECT count(*) FROM setting").fetchone()


def _copy(snapshot: sqlite3.Connection, path: Path) -> None:
    temporary = path.with_name(temporary_name())
    try:
        target = sqlite3.connect(temporary)
        try:
            snapshot.backup(target)
        finally:
            target.close()
        _give_name(temporary, path)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    except OSError as error:
        raise StoreError(f"the backup {path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _give_name(temporary: Path, path: Path) -> None:
    fd = os.open(temporary, os.O_RDONLY)
    try:
        DISK.file(fd)
    finally:
        os.close(fd)
    crash_point("backup.before-rename")
    os.link(temporary, path)  # unlike a rename it never replaces a file
    DISK.folder(path.parent)
