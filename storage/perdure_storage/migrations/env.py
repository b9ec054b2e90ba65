"""What Alembic runs: on the connection that it is handed, in the transaction that it finds."""

from __future__ import annotations

from alembic import context

from perdure_storage.tables import metadata

connection = context.config.attributes["connection"]

if connection is None:
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        target_metadata=metadata,
        literal_binds=True,
    )
else:
    # SQLite cannot alter most of a table: Alembic then copies it, which it calls a batch.
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )

with context.begin_transaction():
    context.run_migrations()
