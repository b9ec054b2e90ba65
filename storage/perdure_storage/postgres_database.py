"""PostgreSQL as a store's database: short transactions, and no commit that is left in doubt."""

from __future__ import annotations

import logging
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg import pq
from psycopg.abc import Params, Query
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, Pool, PoolProxiedConnection, QueuePool

from perdure_storage.clock import SystemClock
from perdure_storage.compiled_book import CompiledBook
from perdure_storage.database import KEY_NAMES, RowRefused, Transaction
from perdure_storage.errors import PerdureError, StoreError, StoreUnavailable
from perdure_storage.leases import LeaseTerms
from perdure_storage.signing import KeyNames
from perdure_storage.silence import SilenceWatch
from perdure_storage.statements import Statements

T = TypeVar("T")

logger = logging.getLogger(__name__)
_now = SystemClock()

READ_TIMEOUT_S = 30
"""Longest statement on a reading connection: people ask there, and may ask for too much."""
LOCK_TIMEOUT_S = 30
"""Longest wait for a row that another transaction holds; ours last milliseconds."""
IDLE_TIMEOUT_S = 60
"""After this the server gives up a transaction whose client fell silent, and its row locks."""
SILENT_S = 45.0
"""Longest wait for an answer: longer than what the server itself allows. A server that was stopped,
or a proxy that has lost it, would be waited for without an end."""
SILENT_BEAT_S = 3.0
"""The same for a renewal, of which several fit into a lease."""
CONNECT_S = 5
"""Longest wait for a connection."""
POOL_SIZE, POOL_MORE = 4, 12
"""Connections that a process keeps for reading, and may have beside them; writer and watcher come
on top. Whoever finds none free waits: a server has a hundred for everybody."""
RETRY_AFTER_S = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)
"""Pauses before a transaction that surely did not commit is tried again."""
RENEW_AFTER_S = (0.0,)
"""The same for a renewal, which comes again soon by itself."""
RESOLVE_WITHIN_S = 30.0
"""How long to ask what became of a commit before its caller is told that nobody knows."""

_BEGUN = f"SELECT pg_current_xact_id()::text, names.* FROM ({KEY_NAMES}) AS names (now, before)"
"""The transaction's id, and under which keys rows are signed: one question for both."""

_NEWEST = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
"""A commit of ours is on the disk when it is answered, whatever others on the server care for."""

_RISKS = (
    "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"
)

CHANNEL = "perdure_changes"
POLL_S = 1.0
"""A watcher looks at the tables this often anyway: a notification is a hint, not the truth."""


class _Dropped(Exception):
    """The connection is gone, or the server undid the transaction: nothing was committed."""


class PostgresDatabase:
    """A ``Database`` on a PostgreSQL server.

    Args:
        url: with credentials; they never leave this object.
        terms: how leases are judged.
    """

    def __init__(self, url: sa.URL, terms: LeaseTerms) -> None:
        self._terms = terms
        self._url = _shown(url)
        dialect = psycopg_dialect.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
        self._book = CompiledBook(dialect, terms)
        self._engine = postgres_engine(url)
        # Writer and watcher are never taken from the pool, where a connection may be long dead.
        self._lone = postgres_engine(url, pool=NullPool)
        self._writing = threading.Lock()
        self._watching = threading.Lock()
        self._pause = threading.Event()
        self._writer: PoolProxiedConnection | None = None
        self._watcher: PoolProxiedConnection | None = None
        self._silence = SilenceWatch()
        self._heard = 0
        self._is_closed = False
        self.on_keys: Callable[[KeyNames], bool] | None = None

    @property
    def url(self) -> str:
        return self._url

    @property
    def terms(self) -> LeaseTerms:
        return self._terms

    @property
    def book(self) -> CompiledBook:
        return self._book

    @property
    def statements(self) -> Statements:
        return self._book.runs

    @property
    def engine(self) -> Engine:
        """Return the engine, for what makes and migrates the tables."""
        return self._engine

    def risks(self) -> list[str]:
        """Return settings of the server by which it may lose what it said was committed."""
        with self.explained():
            return self._until_it_stands(self._risks_once)

    def _risks_once(self) -> list[str]:
        with self._pooled() as connection:
            return [row[0] for row in connection.execute(_RISKS).fetchall()]

    def write(self, work: Callable[[Transaction], T]) -> T:
        with self._writing, self.explained():
            return self._until_it_stands(lambda: self._write_once(work))

    def write_ahead(self, work: Callable[[Transaction], T]) -> T:
        with self._writing, self.explained():
            return self._until_it_stands(lambda: self._write_ahead_once(work))

    def beat(self, work: Callable[[Transaction], T]) -> T:
        """Renew on a pooled connection, so that a long commit does not let the lease run out."""
        with self.explained():
            return self._until_it_stands(lambda: self._beat_once(work), RENEW_AFTER_S)

    def read(self, work: Callable[[Transaction], T]) -> T:
        with self.explained():
            return self._until_it_stands(lambda: self._read_once(work))

    def is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, _REFUSALS)

    def changes(self) -> object:
        with self._watching:
            try:
                self._listen()
            except (psycopg.Error, sa.exc.SQLAlchemyError):
                # Watching is a help: the token moves with time as well, and whoever then reads
                # the tables hears what is wrong.
                self._drop_watcher()
        return (self._heard, int(_now.monotonic() / POLL_S))

    def outlive(self) -> None:
        # Twice: a statement sees the tables a moment before its transaction has a number.
        for _ in range(2):
            newest = self.read(lambda t: t.ask(_NEWEST))
            while self.read(lambda t: t.ask(_OLDEST)) < newest:
                self._pause.wait(0.01)

    def announce(self, transaction: Transaction) -> None:
        transaction.notify(f"NOTIFY {CHANNEL}")

    def close(self) -> None:
        with self._writing, self._watching:
            self._is_closed = True
            self._drop_writer()
            self._drop_watcher()
        self._silence.close()
        self._engine.dispose()

    # --- one attempt -------------------------------------------------------------------------
    def _write_once(self, work: Callable[[Transaction], T]) -> T:
        connection = self._open_writer()
        backend = connection.info.backend_pid
        try:
            with self._silence.limit(connection, SILENT_S):
                connection.execute("BEGIN")
                begun = connection.execute(_BEGUN).fetchone()
                self._has_new_keys(begun)
                result = work(Transaction(connection, self._terms))
        except BaseException as error:
            self._roll_back(connection, error)
            raise
        try:
            with self._silence.limit(connection, SILENT_S):
                connection.execute("COMMIT")
        except psycopg.Error as error:
            self._require_committed(begun, backend, error)
        return result

    def _write_ahead_once(self, work: Callable[[Transaction], T]) -> T:
        """As ``_write_once``, in a pipeline: what is not looked at is not waited for."""
        connection = self._open_writer()
        backend = connection.info.backend_pid
        begun: tuple[Any, ...] | None = None
        is_commit_sent = False
        try:
            with self._silence.limit(connection, SILENT_S), _pipeline(connection):
                connection.execute("BEGIN")
                asked = connection.execute(_BEGUN)
                result = work(Transaction(connection, self._terms))
                begun = asked.fetchone()
                if self._has_new_keys(begun):
                    raise _Dropped("rows are signed with another key since")
                is_commit_sent = True
                connection.execute("COMMIT")
        except BaseException as error:
            if is_commit_sent and isinstance(error, psycopg.Error) and _is_gone(connection):
                self._require_committed(begun, backend, error)
                return result
            self._roll_back(connection, error)
            raise
        return result

    def _has_new_keys(self, begun: tuple[Any, ...] | None) -> bool:
        assert begun is not None
        _, current, before = begun
        return self.on_keys is not None and self.on_keys(KeyNames(current, before))

    def _roll_back(self, connection: psycopg.Connection[Any], error: BaseException) -> None:
        """Undo the transaction; if nothing can have been committed, say that it may be repeated."""
        if _is_gone(connection):
            self._drop_writer()
        else:
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                self._drop_writer()
        if _is_transient(error, connection):
            raise _Dropped(str(error)) from error

    def _beat_once(self, work: Callable[[Transaction], T]) -> T:
        with self._pooled(SILENT_BEAT_S) as connection:
            return work(Transaction(connection, self._terms))

    def _read_once(self, work: Callable[[Transaction], T]) -> T:
        with self._pooled() as connection:
            return work(Transaction(connection, self._terms))

    def _until_it_stands(
        self, attempt: Callable[[], T], pauses_s: Sequence[float] = RETRY_AFTER_S
    ) -> T:
        for pause_s in pauses_s:
            try:
                return attempt()
            except _Dropped as error:
                if self._is_closed:
                    raise
                logger.info("%s: %s; trying again", self._url, error)
                self._pause.wait(pause_s)
        return attempt()

    # --- connections -------------------------------------------------------------------------
    def _open_writer(self) -> psycopg.Connection[Any]:
        if self._writer is None:
            self._writer = self._connect(self._lone)
            driver = _driver(self._writer)
            driver.execute("SET statement_timeout = 0")
            driver.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
            driver.execute(_DURABLE)
        return _driver(self._writer)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.invalidate()
        self._writer = None

    def _connect(self, engine: Engine) -> PoolProxiedConnection:
        try:
            return engine.raw_connection()
        except psycopg.OperationalError as error:
            raise _Dropped(str(error).strip()) from error

    @contextmanager
    def _pooled(self, silent_s: float = SILENT_S) -> Iterator[psycopg.Connection[Any]]:
        connection = self._connect(self._engine)
        driver = _driver(connection)
        try:
            with self._silence.limit(driver, silent_s):
                yield driver
        except psycopg.Error as error:
            if _is_transient(error, driver):
                connection.invalidate()
                raise _Dropped(str(error)) from error
            raise
        finally:
            connection.close()

    def _listen(self) -> None:
        if self._watcher is None:
            self._watcher = self._lone.raw_connection()
            driver = _driver(self._watcher)
            with self._silence.limit(driver, SILENT_BEAT_S):
                driver.execute(f"LISTEN {CHANNEL}")
            self._heard += 1
        self._heard += sum(1 for _ in _driver(self._watcher).notifies(timeout=0))

    def _drop_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.invalidate()
        self._watcher = None

    # --- commits in doubt --------------------------------------------------------------------
    def _require_committed(
        self, begun: tuple[Any, ...] | None, backend: int, error: Exception
    ) -> None:
        """Return if the transaction stands after all; raise _Dropped if it surely does not."""
        self._drop_writer()
        if begun is None or not self._became_committed(begun[0], backend, error):
            raise _Dropped("the commit did not arrive") from error

    def _became_committed(self, transaction_id: str, backend: int, error: Exception) -> bool:
        """Ask the server what became of a transaction whose COMMIT was never answered.

        Its id answers that for good, also after the server restarted. While it is still open, its
        backend waits for a client that is gone: it is ended, which settles the matter. Nothing is
        tried again before it is known that nothing was committed.
        """
        until = _now.monotonic() + RESOLVE_WITHIN_S
        while _now.monotonic() < until:
            try:
                with self._pooled() as connection:
                    status = self._status_of(connection, transaction_id, backend)
            except _Dropped:
                status = None
            if status in ("committed", "aborted"):
                return status == "committed"
            self._pause.wait(0.1)
        raise StoreUnavailable(
            f"{self._url} was lost while a commit was under way, and does not say whether it"
            " stands. It is read again when the run is resumed: nothing is done twice"
        ) from error

    def _status_of(
        self, connection: psycopg.Connection[Any], transaction_id: str, backend: int
    ) -> str | None:
        row = connection.execute("SELECT pg_xact_status(%s::xid8)", (transaction_id,)).fetchone()
        status = None if row is None else row[0]
        if status == "in progress":
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid = %s AND backend_xid = %s::xid8::xid",
                (backend, transaction_id),
            )
        return status

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the driver raises into errors of ours."""
        try:
            yield
        except PerdureError:
            raise
        except _REFUSALS as error:
            raise RowRefused(f"{self._url} refused a row: {error}") from error
        except (_Dropped, psycopg.Error) as error:
            raise explain(error, self._url) from error
        except sa.exc.TimeoutError as error:
            raise StoreUnavailable(
                f"{self._url}: none of this process's {POOL_SIZE + POOL_MORE} connections for"
                " reading became free. Ask for less at once"
            ) from error
        except sa.exc.DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            raise explain(cause, self._url) from error


_REFUSALS: tuple[type[Exception], ...] = (
    psycopg.IntegrityError,
    psycopg.DataError,
    pg.ProgramLimitExceeded,
    OverflowError,
    UnicodeEncodeError,
)

_UNDONE: tuple[type[Exception], ...] = (
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
)


_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""By these TCP finds within some 10 s that a host is gone which could not say so."""


def postgres_engine(url: sa.URL, *, pool: type[Pool] = QueuePool) -> Engine:
    """Return an engine whose connections commit each statement unless a transaction is begun."""
    sizes = {"pool_size": POOL_SIZE, "max_overflow": POOL_MORE} if pool is QueuePool else {}
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=pool,
        **sizes,
        # Nothing is left open on a connection that is given back, and a dead one cannot be reset.
        pool_reset_on_return=None,
        connect_args={
            "connect_timeout": CONNECT_S,
            "autocommit": True,
            "cursor_factory": _Cursor,
            **_ALIVE,
        },
        # What a server says about rows may hold values; those are not for logs.
        hide_parameters=True,
    )
    sa.event.listen(engine, "connect", _set_up)
    # Before all others: SQLAlchemy's own asks for texts, which such a database gives as bytes.
    sa.event.listen(engine, "connect", _require_utf8, insert=True)
    return engine


@contextmanager
def _pipeline(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Send what the block asks without waiting for each answer.

    An error of the block leaves it when the pipeline is over: it is the one that counts, and the
    driver would print beside it that a pipeline whose connection is lost cannot be ended.
    """
    error: BaseException | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except BaseException as raised:  # noqa: BLE001 - it is raised below
                error = raised
    except psycopg.Error:
        if error is None:
            raise
    if error is not None:
        raise error


class _Cursor(psycopg.Cursor[Any]):
    """Sends several rows as psycopg does, in a pipeline of ours where there is none."""

    def executemany(
        self, query: Query, params_seq: Iterable[Params], *, returning: bool = False
    ) -> None:
        is_ridden = self.connection.info.pipeline_status is not pq.PipelineStatus.OFF
        with nullcontext() if is_ridden else _pipeline(self.connection):
            super().executemany(query, params_seq, returning=returning)


def _require_utf8(connection: psycopg.Connection[Any], record: object) -> None:
    del record
    encoding = connection.info.parameter_status("server_encoding") or "UTF8"
    if encoding != "UTF8":
        raise StoreError(
            f"the encoding of the PostgreSQL database {connection.info.dbname} is {encoding}, in"
            " which not every text can be kept: make one with `createdb -T template0 -E UTF8 NAME`"
            " and name it in the store's URL"
        )


def _set_up(connection: psycopg.Connection[Any], record: object) -> None:
    del record
    try:
        connection.execute(f"SET statement_timeout = '{READ_TIMEOUT_S}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'")
    except BaseException:
        # The pool forgets a connection that fails here, and would leave it open.
        connection.close()
        raise


def _driver(connection: PoolProxiedConnection) -> psycopg.Connection[Any]:
    driver: Any = connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _shown(url: sa.URL) -> str:
    """Return a URL for messages: no user, no password, no options."""
    place = sa.URL.create("postgresql", host=url.host, port=url.port, database=url.database)
    return place.render_as_string(hide_password=True)


def _is_transient(error: BaseException, connection: psycopg.Connection[Any]) -> bool:
    if isinstance(error, _UNDONE):
        return True
    return isinstance(error, psycopg.OperationalError) and _is_gone(connection)


def _is_gone(connection: psycopg.Connection[Any]) -> bool:
    return connection.broken or connection.closed


_MISSING = re.compile(r'database "(.+)" does not exist')
"""What a server says before there is a connection, and so without a code."""


def explain(error: Exception, url: str) -> StoreError:
    """Return what the server's error means: what happened, where, and what to type."""
    said = " ".join(str(error).split())
    match error:
        case pg.TooManyConnections():
            return StoreUnavailable(
                f"{url} takes no more connections: {said}. Raise `max_connections`, or let fewer"
                f" processes use it: each has up to {POOL_SIZE + POOL_MORE + 2}"
            )
        case pg.UndefinedTable():
            return StoreError(
                f"{url} has no perdure tables any more: {said}. Restore it from a backup"
            )
        case pg.DiskFull():
            return StoreUnavailable(
                f"the disk of {url} is full: nothing of this commit was kept. What was committed"
                " before is safe. Free some space, then resume the run"
            )
        case pg.InsufficientPrivilege() | pg.ReadOnlySqlTransaction():
            return StoreUnavailable(f"{url} cannot be written by this user: {said}")
        case pg.LockNotAvailable():
            return StoreUnavailable(
                f"{url}: a row was held by another transaction for {LOCK_TIMEOUT_S} s. See who"
                " holds it (`SELECT * FROM pg_stat_activity`), then try again"
            )
        case pg.QueryCanceled():
            return StoreUnavailable(
                f"{url}: reading took longer than {READ_TIMEOUT_S} s. Ask for less"
            )
        case psycopg.OperationalError() if missing := _MISSING.search(said):
            return StoreUnavailable(
                f"{url} is not there: {said}. Make it on that server:"
                f" `createdb {shlex.quote(missing[1])}`"
            )
        case _Dropped() | psycopg.OperationalError():
            return StoreUnavailable(
                f"{url} does not answer: {said}. Is it running, and may this host reach it?"
                " (`pg_isready`) What was committed before is safe"
            )
        case _:
            return StoreError(f"{url} cannot be used: {said}")
