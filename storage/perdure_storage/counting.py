"""How many runs go on in a store: few rows of an index, however many have ended."""

from __future__ import annotations

from perdure_storage.lifecycle import RunStatus
from perdure_storage.sql_runs import SqlRunStore


def count_live(store: SqlRunStore) -> dict[tuple[RunStatus, str | None], int]:
    """Return how many runs there are that are not over, by status and queue."""
    statement = store.database.statements.count_live
    rows = store.database.read(lambda transaction: transaction.rows(statement))
    return {(RunStatus(status), queue): count for status, queue, count in rows}
