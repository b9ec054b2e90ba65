"""Making the tables of a store with SQLAlchemy, and bringing older ones up to date with Alembic."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import sqlalchemy as sa

from perdure_storage.faults import crash_point
from perdure_storage.schema import (
    REVISION,
    STAMP,
    KeyMaker,
    Schema,
    first_settings,
    is_stamped,
    stamped,
)
from perdure_storage.tables import metadata, setting

if TYPE_CHECKING:
    from alembic.config import Config

VERSION = sa.Table(
    STAMP,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def revision_of(connection: sa.Connection, url: str) -> str | None:
    """Return the revision of a database, or None if it is empty.

    Raises:
        StoreError: it holds tables of something else.
    """
    names = set(sa.inspect(connection).get_table_names())
    found = None
    if is_stamped(names):
        found = connection.exec_driver_sql(REVISION).scalar_one_or_none()
    elif connection.dialect.name != "sqlite":
        names &= metadata.tables.keys()  # a database on a server may have tables of others
    return stamped(names, found, url)


def create(connection: sa.Connection, schema: Schema, make_key: KeyMaker) -> None:
    """Make the tables of a fresh store, in the caller's transaction, in an empty database."""
    metadata.create_all(connection, checkfirst=False)
    VERSION.create(connection)
    connection.execute(sa.insert(VERSION).values(version_num=schema.head))
    settings = first_settings(make_key)
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
