"""Opening a run store by URL: finding it, making it, checking that it is one and that we may.

Everything that can be wrong with a place is said here, before any run exists: what, where, and
what to type.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from perdure_storage.boots import boot_id
from perdure_storage.clock import Clock, SystemClock
from perdure_storage.database import Database
from perdure_storage.errors import KeyMissing, SchemaMismatch, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.leases import LeaseTerms
from perdure_storage.network_mounts import network_type_of
from perdure_storage.schema import CURRENT, Schema, create_sqlite, revision_of_sqlite
from perdure_storage.signing import KeyFile, KeyNames, Signer, key_id_of
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_connections import connect
from perdure_storage.sqlite_database import SqliteDatabase, explain

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Engine

    from perdure_storage.postgres_database import PostgresDatabase

log = logging.getLogger(__name__)

Key = bytes | tuple[bytes, ...] | KeyFile | None
"""One key, several of which older ones are first, the file that holds them, or no key."""

_MIGRATION_LOCK = 0x7065_7264_7572_6502
"""PostgreSQL advisory lock: one process makes or migrates the tables, the others wait."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is: a local file, or a PostgreSQL database."""

    path: Path | None = None
    server: sa.URL | None = None


def parse_place(url: str | os.PathLike[str]) -> StorePlace:
    """Return the place that a URL or a path names.

    Raises:
        StoreError: it names none; the message shows no password.
    """
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    match scheme:
        case "":
            return StorePlace(path=_file(text))
        case "sqlite":
            return StorePlace(path=_sqlite_file(text))
        case "postgresql" | "postgres":
            return StorePlace(server=_server(text))
        case _:
            raise StoreError(
                f"no store can be opened at {scheme}://...: expected a path,"
                " sqlite:///PATH or postgresql://HOST/DATABASE"
            )


def _sqlite_file(text: str) -> Path:
    rest = text.removeprefix("sqlite://")
    if not rest.startswith("/") or rest == "/":
        raise StoreError(
            f"{text} names no file: expected sqlite:///PATH (four slashes if absolute)"
        )
    return _file(rest[1:])


def _file(text: str) -> Path:
    if not text or "\0" in text or text == ":memory:":
        raise StoreError(f"{text!r} names no file: a store is kept in one, so that it is durable")
    return Path(text).expanduser().absolute()


def _server(text: str) -> sa.URL:
    import sqlalchemy as sa

    try:
        return sa.make_url(text.replace("postgres://", "postgresql://", 1))
    except (sa.exc.ArgumentError, ValueError) as error:
        # The text is not shown: what cannot be parsed may hold a password anywhere.
        raise StoreError(
            "that PostgreSQL URL cannot be read: expected postgresql://USER@HOST:PORT/DATABASE"
        ) from error


def open_run_store(
    url: str | os.PathLike[str],
    *,
    key: Key = None,
    clock: Clock | None = None,
    lease_clock: Clock | None = None,
    create: bool = True,
    schema: Schema = CURRENT,
) -> SqlRunStore:
    """Open a run store, making it if it is not there.

    An older SQLite store is brought up to date; an older PostgreSQL store says what to type. Ten
    processes that open a fresh store at once make one.

    Args:
        url: a path, ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
        key: signs rows; a ``KeyFile`` is read, and made only together with a fresh store; None
            for a store whose rows are not signed.
        clock: wall time; the system's unless given.
        lease_clock: judges leases instead of the machine's or the database's clock, in tests.
        create: make a store that is not there.
        schema: the line of revisions that this code works with.

    Raises:
        StoreError: the place is no store, is damaged, or is bound elsewhere.
        StoreUnavailable: it does not answer now.
        SchemaMismatch: its tables are of another version.
        KeyMissing: its rows are signed and ``key`` is not there.
    """
    place = parse_place(url)
    wall = clock or SystemClock()
    if place.path is not None:
        return _open_sqlite(place.path, key, wall, lease_clock, create, schema)
    assert place.server is not None
    return _open_postgres(place.server, key, wall, lease_clock, create, schema)


# --- SQLite ---------------------------------------------------------------------------------
def _open_sqlite(
    path: Path, key: Key, clock: Clock, lease_clock: Clock | None, may_create: bool, schema: Schema
) -> SqlRunStore:
    _require_local(path, may_create)
    terms = LeaseTerms(clock=lease_clock or SystemClock(), boot_id=boot_id(), ends_with_boot=True)
    with _explained(path):
        _prepare_sqlite(path, key, schema)
    return _store(SqliteDatabase(path, terms), key, clock)


def _require_local(path: Path, may_create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name the file in it, as {path / 'perdure.db'}")
    if not path.exists() and not may_create:
        raise StoreError(f"there is no store at {path}: `perdure run` makes one, or name another")
    if not may_create and path.stat().st_size == 0:
        raise StoreError(
            f"{path} is an empty file: no store was made in it yet, or it was cut. `perdure run`"
            " makes one; if there was one, put the file back from a backup first"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = network_type_of(path.parent)
    except OSError as error:
        raise no_place(path.parent, error) from error
    if kind is not None:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), where SQLite loses data: keep the"
            " store on a local disk, or use postgresql://HOST/DATABASE"
        )


def no_place(folder: Path, error: OSError) -> StoreError:
    """Return what is to be said where a store's folder cannot be made."""
    return StoreError(
        f"cannot make a store in {folder}: {error.strerror}."
        f" Name another place, or look at its rights: `ls -ld {folder.parent}`"
    )


def _prepare_sqlite(path: Path, key: Key, schema: Schema) -> None:
    """See that the tables are there and up to date; the folder's lock lets one process do it."""
    if path.exists() and not _pending_sqlite(path, schema):
        return
    with _folder_lock(path.parent):
        pending = _pending_sqlite(path, schema)
        if pending == schema.revisions:
            _create_sqlite(path, key, schema)
        elif pending:
            _migrate_sqlite(path, schema)


def _pending_sqlite(path: Path, schema: Schema) -> tuple[str, ...]:
    with closing(connect(path)) as connection:
        connection.execute("BEGIN")
        return schema.pending(revision_of_sqlite(connection, str(path)), str(path))


def _create_sqlite(path: Path, key: Key, schema: Schema) -> None:
    with closing(connect(path)) as connection:
        # The file remembers that it has a write-ahead log; not possible in a transaction.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        create_sqlite(connection, schema, lambda: _made_key_id(key))
        connection.execute("COMMIT")
    crash_point("store.created")


def _migrate_sqlite(path: Path, schema: Schema) -> None:
    from perdure_storage.migrating import migrate

    crash_point("migration.before")
    with _sqlite_engine(path) as engine, engine.connect() as connection:
        # Alembic copies tables that others refer to; that is checked when all of it is done.
        _driver_of(connection).execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            migrate(connection, schema)
    crash_point("migration.after")


@contextmanager
def _sqlite_engine(path: Path) -> Iterator[Engine]:
    """Yield SQLAlchemy's engine; what goes wrong with it is explained."""
    import sqlalchemy as sa

    from perdure_storage.sqlite_engine import sqlite_engine

    engine = sqlite_engine(path)
    try:
        yield engine
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise explain(error.orig, path) from error
        raise StoreError(f"the store {path} cannot be used: {error}") from error
    finally:
        engine.dispose()


def _reader(engine: Engine) -> sa.Connection:
    return engine.connect().execution_options(reads_only=True)


def _driver_of(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock: nothing is left behind, and a dead holder has let go."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error


# --- PostgreSQL -----------------------------------------------------------------------------
def _open_postgres(
    server: sa.URL,
    key: Key,
    clock: Clock,
    lease_clock: Clock | None,
    may_create: bool,
    schema: Schema,
) -> SqlRunStore:
    terms = LeaseTerms(clock=lease_clock, boot_id=boot_id(), ends_with_boot=False)
    database = _postgres(server, terms)
    try:
        with database.explained():
            _prepare_postgres(database, key, schema, may_create)
        for risk in database.risks():
            log.warning(
                "%s has %s = off: what was committed may be lost in a power cut. As its superuser"
                " type `ALTER SYSTEM SET %s = on; SELECT pg_reload_conf();`",
                database.url,
                risk,
                risk,
            )
        return _store(database, key, clock)
    except BaseException:
        database.close()
        raise


def _postgres(server: sa.URL, terms: LeaseTerms) -> PostgresDatabase:
    try:
        from perdure_storage.postgres_database import PostgresDatabase
    except ImportError as error:
        raise StoreError("PostgreSQL needs its driver: pip install 'perdure[postgres]'") from error
    return PostgresDatabase(server, terms)


def _prepare_postgres(
    database: PostgresDatabase, key: Key, schema: Schema, may_create: bool
) -> None:
    from perdure_storage.migrating import create, revision_of

    with database.engine.connect() as connection:
        pending = schema.pending(revision_of(connection, database.url), database.url)
    if not pending:
        return
    if pending != schema.revisions:
        raise SchemaMismatch(
            f"{database.url} was made by an older perdure and lacks {', '.join(pending)}:"
            " type `perdure db upgrade`"
        )
    if not may_create:
        raise StoreError(f"there is no store in {database.url}: `perdure run` makes one")
    with _locked_postgres(database.engine) as connection:
        if revision_of(connection, database.url) is None:
            create(connection, schema, lambda: _made_key_id(key))
    crash_point("store.created")


@contextmanager
def _locked_postgres(engine: Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction in which one process at a time changes tables."""
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


# --- both -----------------------------------------------------------------------------------
def _store(database: Database, key: Key, clock: Clock) -> SqlRunStore:
    try:
        settings = database.read(lambda t: t.texts(database.statements.list_settings))
        store_id = settings["store_id"]
        signer = _signer(database.url, store_id, settings, key)
    except BaseException:
        database.close()
        raise
    if signer is not None:
        signer.look = lambda: key_names(database)
        database.on_keys = signer.follow
    return SqlRunStore(database, store_id=store_id, clock=clock, signer=signer)


def _made_key_id(key: Key) -> str | None:
    if isinstance(key, KeyFile):
        return key_id_of(key.load_or_create())
    made = keys_at_hand(key)
    return key_id_of(made[-1]) if made else None


def keys_at_hand(key: Key) -> tuple[bytes, ...]:
    """Return the keys there are now, older ones first."""
    if isinstance(key, KeyFile):
        return key.load_all()
    return (key,) if isinstance(key, bytes) else key or ()


def key_names(database: Database) -> KeyNames | None:
    """Return under which keys the rows of a store are signed, or None if they are not."""
    return _names_in(database.read(lambda t: t.texts(database.statements.list_settings)))


def _names_in(settings: Mapping[str, str]) -> KeyNames | None:
    current = settings.get("key_id")
    return None if current is None else KeyNames(current, settings.get("key_id_before"))


def _signer(url: str, store_id: str, settings: Mapping[str, str], key: Key) -> Signer | None:
    names = _names_in(settings)
    if names is None:
        # Rows of a store without signatures prove nothing, and a key does not change that.
        if isinstance(key, bytes | tuple):
            raise StoreError(f"the rows of {url} are not signed: open it without a key")
        return None
    ring = {key_id_of(each): each for each in keys_at_hand(key)}
    if not ring:
        where = key.path if isinstance(key, KeyFile) else "PERDURE_KEY, or .perdure/key"
        raise KeyMissing(
            f"the rows of {url} are signed, and their key is not there: it should be in {where}."
            " Copy it from where the store was made"
        )
    for name in filter(None, (names.current, names.before)):
        if name not in ring:
            raise StoreError(
                f"the rows of {url} are signed with key {name}, and the key given is"
                f" {', '.join(ring)}: put the right one into .perdure/key or PERDURE_KEY"
            )
    before = ring[names.before] if names.before else None
    return Signer(ring[names.current], store_id, before=before, find=lambda: keys_at_hand(key))


# --- migrations, asked for ------------------------------------------------------------------
def pending_revisions(url: str | os.PathLike[str], *, schema: Schema = CURRENT) -> tuple[str, ...]:
    """Return the revisions that a store lacks, oldest first, and change nothing."""
    with _opened(url) as (engine, shown), _reader(engine) as connection:
        return schema.pending(_required_revision(connection, shown), shown)


def upgrade_sql(url: str | os.PathLike[str], *, schema: Schema = CURRENT) -> str:
    """Return the SQL that would bring a store up to date, and change nothing."""
    from perdure_storage.migrating import migration_sql

    with _opened(url) as (engine, shown), _reader(engine) as connection:
        revision = _required_revision(connection, shown)
        if not schema.pending(revision, shown):
            return ""
        return migration_sql(connection.dialect.name, schema, revision)


def upgrade(url: str | os.PathLike[str], *, schema: Schema = CURRENT) -> tuple[str, ...]:
    """Bring a store's tables up to date; return the revisions that were applied.

    Ten at once do one migration; a crash inside leaves the tables as they were.
    """
    from perdure_storage.migrating import migrate

    place = parse_place(url)
    if place.path is not None:
        pending = pending_revisions(url, schema=schema)
        if pending:
            with _explained(place.path):
                _prepare_sqlite(place.path, None, schema)
        return pending
    with _opened(url) as (engine, shown), _locked_postgres(engine) as connection:
        pending = schema.pending(_required_revision(connection, shown), shown)
        if pending:
            crash_point("migration.before")
            migrate(connection, schema)
    if pending:
        crash_point("migration.after")
    return pending


def database_time(url: str | os.PathLike[str]) -> datetime | None:
    """Return the time by the database's server; None for a file, which has this machine's."""
    if parse_place(url).path is not None:
        return None
    with _opened(url) as (engine, _), _reader(engine) as connection:
        now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now


def _required_revision(connection: sa.Connection, shown: str) -> str:
    from perdure_storage.migrating import revision_of

    revision = revision_of(connection, shown)
    if revision is None:
        raise StoreError(f"there is no store in {shown}: `perdure run` makes one")
    return revision


@contextmanager
def _opened(url: str | os.PathLike[str]) -> Iterator[tuple[Engine, str]]:
    place = parse_place(url)
    if place.path is not None:
        _require_local(place.path, may_create=False)
        with _explained(place.path), _sqlite_engine(place.path) as engine:
            yield engine, str(place.path)
        return
    assert place.server is not None
    terms = LeaseTerms(clock=None, boot_id=boot_id(), ends_with_boot=False)
    database = _postgres(place.server, terms)
    try:
        with database.explained():
            yield database.engine, database.url
    finally:
        database.close()
