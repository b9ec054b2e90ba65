"""Which tables a store has: the line of revisions, and how a fresh store begins.

A fresh store is made from DDL in one transaction, stamped with the newest revision: Alembic is
imported only where an older store has to change. That both ways lead to the same tables is a test.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from perdure_storage.errors import SchemaMismatch, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.written_out import WRITTEN


@dataclass(frozen=True, slots=True)
class Schema:
    """A line of revisions.

    Attributes:
        location: folder of the Alembic environment.
        revisions: oldest first; the last one is what this code works with.
    """

    location: Path
    revisions: tuple[str, ...]

    @property
    def head(self) -> str:
        """Return the revision that this code works with."""
        return self.revisions[-1]

    def pending(self, revision: str | None, url: str) -> tuple[str, ...]:
        """Return the revisions that a store lacks; all of them if it has none.

        Raises:
            SchemaMismatch: the store is newer than this code.
        """
        if revision is None:
            return self.revisions
        if revision not in self.revisions:
            raise SchemaMismatch(
                f"{url} was written by a newer perdure: its schema is {revision}, this one knows"
                f" {self.head}. Upgrade with `pip install -U perdure`"
            )
        return self.revisions[self.revisions.index(revision) + 1 :]


CURRENT = Schema(
    Path(__file__).parent / "migrations",
    tuple(f"{number:04}" for number in range(1, 15)),
)

KeyMaker = Callable[[], str | None]

REVISION = "SELECT version_num FROM alembic_version"
STAMP = "alembic_version"


def stamped(names: Collection[str], found: str | None, url: str) -> str | None:
    """Return the revision of a database that has these tables, or None if it has none of ours.

    Args:
        names: of all its tables.
        found: what the table of revisions says, if it is there.
        url: for errors.

    Raises:
        StoreError: it holds some of our tables, or of their names, and is no store.
    """
    if is_stamped(names):
        if found is None:
            raise StoreError(
                "the store does not say which version its tables are of: its table"
                " alembic_version is empty. Restore it from a backup"
            )
        return found
    if names:
        listed = ", ".join(sorted(names)[:3])
        raise StoreError(
            f"{url} is no perdure store: it holds other tables ({listed}). Name another place"
        )
    return None


def is_stamped(names: Collection[str]) -> bool:
    """Say whether a database with these tables says of which revision they are."""
    return STAMP in names and "setting" in names


def first_settings(make_key: KeyMaker) -> dict[str, str]:
    """Return what a fresh store says of itself.

    Args:
        make_key: makes the key if there is none, and returns its id, or None for a store whose
            rows are not signed. Called here, so that only who makes the store makes a key.
    """
    settings = {"store_id": secrets.token_hex(8)}
    key_id = make_key()
    if key_id is not None:
        settings["key_id"] = key_id
    return settings


def revision_of_sqlite(connection: sqlite3.Connection, url: str) -> str | None:
    """Return the revision of a file, or None if it is empty.

    Raises:
        StoreError: it holds tables of something else.
    """
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    names = {name for (name,) in found if not name.startswith("sqlite_")}
    revision = connection.execute(REVISION).fetchone() if is_stamped(names) else None
    return stamped(names, None if revision is None else str(revision[0]), url)


def create_sqlite(connection: sqlite3.Connection, schema: Schema, make_key: KeyMaker) -> None:
    """Make the tables of a fresh store, in the caller's transaction, on an empty file."""
    for each in WRITTEN.ddl:
        connection.execute(each)
    connection.execute(f"INSERT INTO {STAMP} (version_num) VALUES (?)", [schema.head])
    rows = list(first_settings(make_key).items())
    connection.executemany("INSERT INTO setting (name, value) VALUES (?, ?)", rows)
    crash_point("store.creating")
