"""The store: whether it is there, whole, of this version, and ours to read."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from perdure.doctor.disks import check_room, check_writing
from perdure.doctor.finding import Finding, ok, problem, warning
from perdure.remedies import shell_of
from perdure.runtime import key_of
from perdure.settings import Settings, sqlite_path
from perdure.words import count_of, size
from perdure_storage.clock import Clock
from perdure_storage.connect import open_run_store, pending_revisions
from perdure_storage.errors import KeyMissing, PerdureError, StoreError, StoreUnavailable
from perdure_storage.network_mounts import network_type_of
from perdure_storage.records import RunQuery
from perdure_storage.signing import KeyFile
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_health import SqliteHealth, look_at_sqlite

LONG_LOG_BYTES = 1 << 30
"""A write-ahead log of this size was not written back for long: somebody reads all the time."""


def check_store(settings: Settings, clock: Clock) -> Generator[Finding, None, SqlRunStore | None]:
    """Yield what is to be said of the store; return it, opened, if it can be read.

    Nothing is made, bound or migrated.
    """
    path = sqlite_path(settings.store)
    if path is not None:
        is_there = yield from _check_folder(path, clock)
        if not is_there:
            return None
        is_whole = yield from _check_file(path)
        if not is_whole:
            return None
    return (yield from _open(settings))


# --- its place ------------------------------------------------------------------------------
def _check_folder(path: Path, clock: Clock) -> Generator[Finding, None, bool]:
    if kind := network_type_of(path.parent):
        said = f"{path} lies on a network file system ({kind}), where SQLite loses data"
        yield problem("store", said, "keep it on a local disk, or use postgresql://HOST/DATABASE")
    yield check_room("disk of the store", path.parent)
    if path.is_dir():
        said = f"{path} is a folder"
        yield problem("store", said, f"name the file in it: --store {path / 'perdure.db'}")
        return False
    if not os.path.exists(path):
        yield from _check_absence(path)
        return False
    yield check_writing("writing to the store", path.parent, clock)
    return True


def _check_absence(path: Path) -> Iterator[Finding]:
    above = next(each for each in path.parents if each.exists())
    if not os.access(above, os.W_OK):
        yield problem("store", f"there is none at {path}, nor may it be made", f"ls -ld {above}")
    else:
        yield ok("store", f"there is none yet at {path}: `perdure run TARGET` makes it")


# --- its file -------------------------------------------------------------------------------
def _check_file(path: Path) -> Generator[Finding, None, bool]:
    try:
        health = look_at_sqlite(path)
    except sqlite3.OperationalError as error:
        said = f"{path} cannot be opened: {error}"
        yield problem("integrity", said, f"ls -ld {path.parent} {path}")
        return False
    except (sqlite3.Error, OSError) as error:
        yield problem("integrity", f"{path} cannot be read: {error}", _restore(path))
        return False
    yield from judge_file(path, health)
    return not health.damage


def judge_file(path: Path, health: SqliteHealth) -> Iterator[Finding]:
    """Say what a quick look at the file has shown."""
    if health.damage:
        yield problem("integrity", f"{path} is damaged: {health.damage}", _restore(path))
        return
    if health.is_scanned:
        yield ok("integrity", f"{path} is whole ({size(health.size_bytes)})")
    else:
        said = f"{path} has {size(health.size_bytes)}, more than a quick look reads"
        yield ok("integrity", f"{said}; `perdure db check` reads all of it")
    if health.journal != "wal":
        said = f"{path} is written in mode {health.journal}, so readers and writers wait"
        yield warning("journal", said, f"sqlite3 {path} 'PRAGMA journal_mode=WAL'")
    elif health.log_bytes > LONG_LOG_BYTES:
        said = f"the log beside {path} has {size(health.log_bytes)}: a reader keeps it from ending"
        yield warning("journal", said, f"lsof {path}")


def _restore(path: Path) -> str:
    return f"restore it from a backup, or save what is readable: `sqlite3 {path} .recover`"


# --- its tables and its key -----------------------------------------------------------------
def _open(settings: Settings) -> Generator[Finding, None, SqlRunStore | None]:
    shell, key = shell_of(settings), key_of(settings)
    try:
        if pending := pending_revisions(settings.store):
            said = f"the store was made by an older perdure and lacks {', '.join(pending)}"
            yield warning("schema", said, shell.command("db", "upgrade"))
            return None
        store = open_run_store(settings.store, key=key, create=False)
    except KeyMissing as error:
        yield problem("key", str(error))
        return None
    except PerdureError as error:
        yield problem("store", str(error))
        return None
    yield ok("store", f"{store.url} answers; its schema is of this version")
    yield from _check_key(key)
    return store


def _check_key(key: tuple[bytes, ...] | KeyFile | None) -> Iterator[Finding]:
    if not isinstance(key, KeyFile) or not key.path.exists():
        return
    mode = stat.S_IMODE(key.path.stat().st_mode)
    if mode & 0o077:
        said = f"{key.path} may be read by others ({mode:04o}): who has it can sign rows"
        yield warning("key", said, f"chmod 600 {key.path}")
    else:
        yield ok("key", f"{key.path} fits the rows, and only you may read it")


def check_rows(settings: Settings, store: SqlRunStore) -> Finding:
    """Say whether the rows of the newest run can be read, their signatures verified."""
    newest = store.list_runs(RunQuery(limit=1))
    check = shell_of(settings).command("db", "check")
    if not newest:
        return ok("rows", "there are no runs yet")
    try:
        store.get_run(newest[0].id)
        steps = store.list_steps(newest[0].id, current_only=False)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return problem("rows", str(error), f"see what else is wrong: `{check}`")
    rows = count_of(len(steps), "step")
    return ok("rows", f"{newest[0].id}, the newest run: {rows} verified; `{check}` reads all runs")
