"""SQLite as a store's database: WAL, every commit on disk, one writer connection a process."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from perdure_storage.database import KEY_NAMES, RowRefused, Transaction
from perdure_storage.errors import StoreError, StoreUnavailable
from perdure_storage.leases import LeaseTerms
from perdure_storage.signing import KeyNames
from perdure_storage.sqlite_connections import BUSY_TIMEOUT_S, SqliteConnections
from perdure_storage.statement_book import SqliteBook

if TYPE_CHECKING:
    from perdure_storage.statements import Statements

T = TypeVar("T")

_SAFE = "What was committed before is safe"


class SqliteDatabase:
    """A ``Database`` in one local file.

    Args:
        path: the file, which is there already unless it is made by opening it.
        terms: how leases are judged.
        busy_timeout_s: how long to wait for another writer.
    """

    def __init__(
        self, path: Path, terms: LeaseTerms, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        self._path = path
        self._file = os.fspath(path)
        self._terms = terms
        self._book = SqliteBook(terms)
        self._connections = SqliteConnections(path, busy_timeout_s=busy_timeout_s)
        self._busy_timeout_s = busy_timeout_s
        self._writing = threading.Lock()
        self._beating = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._beater: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self.on_keys: Callable[[KeyNames], bool] | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    @property
    def terms(self) -> LeaseTerms:
        return self._terms

    @property
    def book(self) -> SqliteBook:
        return self._book

    @property
    def statements(self) -> Statements:
        return self._book.runs

    @property
    def connections(self) -> SqliteConnections:
        """Return the connections, for what copies the file as it is."""
        return self._connections

    def write(self, work: Callable[[Transaction], T]) -> T:
        with self._writing:
            try:
                return self._transact(self._open_writer(), work)
            except _DRIVER_ERRORS as error:
                self._reraise(error)

    def write_ahead(self, work: Callable[[Transaction], T]) -> T:
        return self.write(work)

    def beat(self, work: Callable[[Transaction], T]) -> T:
        with self._beating:
            try:
                return self._transact(self._open_beater(), work)
            except _DRIVER_ERRORS as error:
                self._reraise(error)

    def read(self, work: Callable[[Transaction], T]) -> T:
        try:
            self._require_file()
            with self._connections.lent() as connection:
                return work(Transaction(connection, self._terms))
        except _DRIVER_ERRORS as error:
            self._reraise(error)

    def is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, _REFUSALS)

    def changes(self) -> object:
        # data_version moves when *another* connection commits; so it must be asked where we
        # write, or each commit of ours would look like somebody else's.
        with self._writing:
            self._require_file()
            try:
                return self._open_writer().execute("PRAGMA data_version").fetchone()[0]
            except _DRIVER_ERRORS as error:
                self._reraise(error)

    def outlive(self) -> None:
        """Return: nobody writes while another does, and no reader holds a key."""

    def announce(self, transaction: Transaction) -> None:
        """Do nothing: other processes see the file change."""

    def close(self) -> None:
        with self._writing, self._beating:
            for connection in (self._writer, self._beater):
                if connection is not None:
                    connection.close()
            self._writer = self._beater = None
        self._connections.close()

    def _transact(self, connection: sqlite3.Connection, work: Callable[[Transaction], T]) -> T:
        self._require_file()
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self.on_keys is not None:
                current, before = connection.execute(KEY_NAMES).fetchone()
                self.on_keys(KeyNames(current, before))
            result = work(Transaction(connection, self._terms))
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already; then there is nothing to undo.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _require_file(self) -> None:
        """Refuse to write into a file that nobody can open again: it was deleted or replaced.

        SQLite goes on happily in a deleted file; what it commits there is lost.
        """
        try:
            found = os.stat(self._file)
        except OSError as error:
            raise StoreUnavailable(
                f"the store {self.url} went away while it was open ({error.strerror})."
                " Put it back, and `perdure resume ID` goes on; else `perdure run TARGET` begins"
                " again, in a new one",
                is_gone=True,
            ) from error
        identity = (found.st_dev, found.st_ino)
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise StoreUnavailable(
                f"the store {self.url} was replaced by another file while it was open:"
                " close it and open it again"
            )

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._connections.new()
        return self._writer

    def _open_beater(self) -> sqlite3.Connection:
        if self._beater is None:
            self._beater = self._connections.new()
            # A renewal that a power cut forgets is a lease that ends with the boot anyway.
            self._beater.execute("PRAGMA synchronous=NORMAL")
        return self._beater

    def _reraise(self, error: Exception) -> NoReturn:
        """Raise what the driver's error means."""
        if isinstance(error, sqlite3.Error) and not isinstance(error, _REFUSALS):
            raise explain(error, self._path, self._busy_timeout_s) from error
        raise RowRefused(f"{self.url} refused a row: {error}") from error


_REFUSALS: tuple[type[Exception], ...] = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    OverflowError,
    UnicodeEncodeError,
)


_DRIVER_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, *_REFUSALS)


def explain(error: sqlite3.Error, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> StoreError:
    """Return what the driver's error means: what happened, where, and what to type."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    where = f"the store {path}"
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(
                f"{where} was held by another process for {busy_timeout_s:g} s."
                f" See who holds it (`lsof {path}`), then try again. {_SAFE}"
            )
        case sqlite3.SQLITE_FULL:
            return StoreUnavailable(
                f"the disk of {where} is full: nothing of this commit was kept. {_SAFE}."
                " Free some space, then resume the run"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreUnavailable(
                f"{where} cannot be written: {error}. Its file and its folder must be writable by"
                f" this user: `ls -ld {path.parent} {path}`"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreError(
                f"{where} is damaged, or is no perdure store: {error}. Restore it from a backup,"
                f" or save what is readable: `sqlite3 {path} .recover`"
            )
        case sqlite3.SQLITE_CANTOPEN if path.exists() and not os.access(path.parent, os.W_OK):
            return StoreUnavailable(
                f"{where} cannot be opened: {path.parent} is read-only, and SQLite writes beside"
                f" its file even to look. Make it writable, or copy the folder to a disk that is:"
                f" `cp -r {path.parent} ELSEWHERE`"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(
                f"{where} cannot be opened: {error}. Does its folder exist, and may this user"
                f" write to it? `ls -ld {path.parent}`"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(
                f"reading or writing {where} failed: {error}. Look at the disk (`dmesg`),"
                f" then try again. {_SAFE}"
            )
        case _:
            return StoreError(f"{where} cannot be used: {error}")
