"""Making a store's tables, and bringing older ones up to date.

A fresh store is made from the DDL of ``tables.py`` in one transaction, stamped with the newest
revision: Alembic is imported only where an older store has to change. That both ways lead to the
same tables is a test.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from perdure_storage.errors import SchemaMismatch, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.tables import metadata, setting


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
    tuple(f"{number:04}" for number in range(1, 14)),
)

_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

if TYPE_CHECKING:
    from alembic.config import Config

KeyMaker = Callable[[], str | None]


def revision_of(connection: sa.Connection, url: str) -> str | None:
    """Return the revision of a database, or None if it is empty.

    Raises:
        StoreError: it holds tables of something else.
    """
    names = set(sa.inspect(connection).get_table_names())
    if _VERSION.name in names and setting.name in names:
        found = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
        if found is None:
            raise StoreError(
                "the store does not say which version its tables are of: its table"
                " alembic_version is empty. Restore it from a backup"
            )
        return str(found)
    ours = names & metadata.tables.keys()
    if names and (connection.dialect.name == "sqlite" or ours):
        found = ", ".join(sorted(names)[:3])
        raise StoreError(
            f"{url} is no perdure store: it holds other tables ({found}). Name another place"
        )
    return None


def create(connection: sa.Connection, schema: Schema, make_key: KeyMaker) -> None:
    """Make the tables of a fresh store, in the caller's transaction.

    Args:
        connection: on an empty database.
        schema: the line of revisions whose newest one is stamped.
        make_key: makes the key if there is none, and returns its id, or None for a store whose
            rows are not signed. Called here, so that only who makes the store makes a key.
    """
    metadata.create_all(connection, checkfirst=False)
    _VERSION.create(connection)
    connection.execute(sa.insert(_VERSION).values(version_num=schema.head))
    settings = {"store_id": secrets.token_hex(8)}
    key_id = make_key()
    if key_id is not None:
        settings["key_id"] = key_id
    rows = [{"name": name, "value": value} for name, value in settings.items()]
    connection.execute(sa.insert(setting), rows)
    crash_point("store.creating")


def migrate(connection: sa.Connection, schema: Schema) -> None:
    """Bring a store's tables up to date, in the caller's transaction and under its lock."""
    from alembic import command

    command.upgrade(_config(schema, connection), schema.head)
    crash_point("migration.in-transaction")


def migration_sql(dialect: str, schema: Schema, revision: str) -> str:
    """Return the SQL that brings a store of ``revision`` up to date, for people to read and run."""
    from alembic import command

    text = io.StringIO()
    config = _config(schema, None)
    config.output_buffer = text
    config.attributes["dialect"] = dialect
    command.upgrade(config, f"{revision}:{schema.head}", sql=True)
    return text.getvalue()


def _config(schema: Schema, connection: sa.Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    # A percent sign in a path would be taken for an interpolation.
    config.set_main_option("script_location", str(schema.location).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
