"""One door to a database: what a store asks of it, and the errors that come out of it.

A store's method is a function of a transaction; the door opens it, commits it, and turns what the
driver raises into errors of ours. Behind the door are SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from perdure_storage.errors import PerdureError
from perdure_storage.leases import LeaseTerms
from perdure_storage.signing import KeyNames
from perdure_storage.statement import Statement
from perdure_storage.statement_book import StatementBook

if TYPE_CHECKING:
    from perdure_storage.statements import Statements

T = TypeVar("T")
KEY_NAMES = (
    "SELECT (SELECT value FROM setting WHERE name = 'key_id'),"
    " (SELECT value FROM setting WHERE name = 'key_id_before')"
)
"""Under which keys rows are signed, asked in each transaction that writes."""
Row = tuple[Any, ...]


class RowRefused(PerdureError):
    """The database will not take a row: its key is there, or its content has no place. Internal."""


class DriverConnection(Protocol):
    """What ``sqlite3`` and ``psycopg`` connections have in common."""

    def execute(self, sql: Any, arguments: Any = ..., /) -> Any:
        """Run one statement and return its cursor."""
        ...

    def cursor(self) -> Any:
        """Return a cursor."""
        ...


class Transaction:
    """An open transaction, or a read: the only way to run a statement."""

    __slots__ = ("_connection", "_savepoints", "_terms")

    def __init__(self, connection: DriverConnection, terms: LeaseTerms) -> None:
        self._connection = connection
        self._terms = terms
        self._savepoints = 0

    def texts(self, statement: Statement, /, **given: object) -> dict[str, str]:
        """Return rows of two texts as a mapping."""
        return {str(name): str(value) for name, value in self.rows(statement, **given)}

    def run(self, statement: Statement, /, **given: object) -> None:
        """Run a statement for its effect."""
        self._connection.execute(statement.sql, self._arguments(statement, given))

    def rows(self, statement: Statement, /, **given: object) -> list[Row]:
        """Return all rows."""
        cursor = self._connection.execute(statement.sql, self._arguments(statement, given))
        found: list[Row] = cursor.fetchall()
        return found

    def stream(
        self, statement: Statement, /, **given: object
    ) -> AbstractContextManager[Iterable[Row]]:
        """Return rows as the driver has them, for a ``with``: whoever refuses one reads no more."""
        return closing(self._connection.execute(statement.sql, self._arguments(statement, given)))

    def row(self, statement: Statement, /, **given: object) -> Row | None:
        """Return the first row, if there is one."""
        found = self.rows(statement, **given)
        return found[0] if found else None

    def insert(self, statement: Statement, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows that are in the order of their table's columns."""
        if len(rows) == 1:
            self._connection.execute(statement.sql, rows[0])
        elif rows:
            self._connection.cursor().executemany(statement.sql, rows)

    def ask(self, question: str) -> Any:
        """Return the one value that a question of one dialect without parameters has."""
        return self._connection.execute(question).fetchone()[0]

    def notify(self, command: str) -> None:
        """Run a command of one dialect that has no parameters."""
        self._connection.execute(command)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did if it raises."""
        self._savepoints += 1
        name = f"s{self._savepoints}"
        self._connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            self._connection.execute(f"ROLLBACK TO SAVEPOINT {name}")
            self._connection.execute(f"RELEASE SAVEPOINT {name}")
            raise
        self._connection.execute(f"RELEASE SAVEPOINT {name}")

    def _arguments(self, statement: Statement, given: dict[str, object]) -> tuple[Any, ...]:
        if statement.judges_leases:
            given |= self._terms.facts()
        return statement.arguments(given)


class Database(Protocol):
    """A database as a store needs it. Errors that leave it are perdure's, and name the store.

    Attributes:
        on_keys: told in each transaction that writes under which keys rows are signed, before it
            commits, and before ``work`` is called or called again where that is news; it says
            whether it is. So nobody commits a row that is signed with a key of before.
    """

    on_keys: Callable[[KeyNames], bool] | None

    @property
    def url(self) -> str:
        """Return where it is, without credentials."""
        ...

    @property
    def terms(self) -> LeaseTerms:
        """Return by what leases are judged."""
        ...

    @property
    def book(self) -> StatementBook:
        """Return all statements in its dialect."""
        ...

    @property
    def statements(self) -> Statements:
        """Return those about runs."""
        ...

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in one transaction, durable when this returns, and return its result.

        One at a time in this process. ``work`` may be called again if nothing of an earlier call
        was committed. Raises RowRefused if the database refuses a row, else StoreError.
        """
        ...

    def write_ahead(self, work: Callable[[Transaction], T]) -> T:
        """As ``write``, for work that can be undone as a whole whenever a row is refused.

        Its statements may be sent before earlier ones are answered, so a refusal may come late;
        it must not be caught inside ``work``.
        """
        ...

    def beat(self, work: Callable[[Transaction], T]) -> T:
        """Run a renewal: as ``write``, on a connection of its own, and not worth a disk sync."""
        ...

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work``, which reads only, on a connection that no writer uses."""
        ...

    def is_refusal(self, error: BaseException) -> bool:
        """Say whether the driver refused a row, rather than failed."""
        ...

    def changes(self) -> object:
        """Return a token that differs if another process may have written."""
        ...

    def announce(self, transaction: Transaction) -> None:
        """Wake whoever watches ``changes``, when this transaction commits."""
        ...

    def outlive(self) -> None:
        """Wait until every transaction has ended that is under way now, whoever began it."""
        ...

    def close(self) -> None:
        """Release every connection. Idempotent."""
        ...
