"""SQLAlchemy's engine on a SQLite file, for what migrates its tables."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from perdure_storage.sqlite_connections import BUSY_TIMEOUT_S, CONNECT, set_up


def sqlite_engine(path: Path) -> Engine:
    """Return an engine whose connections are durable and whose transactions begin IMMEDIATE.

    A hook begins them as writers, but for connections with the execution option ``reads_only``.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S, **CONNECT},
    )
    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "begin", _begin_as_writer)
    return engine


def _begin_as_writer(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
