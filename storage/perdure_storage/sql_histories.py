"""What runs did, read from a SQL database: a query a table, however many runs there are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import TypeVar

from perdure_storage.database import Database, Row, Transaction
from perdure_storage.records import History, RunId
from perdure_storage.rows import (
    AttemptRows,
    ExpansionRows,
    SaveRows,
    StepRows,
    WaitRows,
    unpack_event,
)
from perdure_storage.signing import Signer
from perdure_storage.statement import Statement

T = TypeVar("T")


class Histories:
    """Histories of the runs of one database.

    Args:
        database: SQLite or PostgreSQL.
        signer: checks rows, or None.
    """

    def __init__(self, database: Database, signer: Signer | None) -> None:
        self._database = database
        self._statements = database.statements
        self._steps = StepRows(signer)
        self._attempts = AttemptRows(signer)
        self._expansions = ExpansionRows(signer)
        self._waits = WaitRows(signer)
        self._saves = SaveRows(signer)

    def read(self, run_ids: Collection[RunId]) -> dict[RunId, History]:
        """Return histories, as ``RunStore.histories`` says."""
        if not run_ids:
            return {}
        return self._database.read(lambda transaction: self.within(transaction, run_ids))

    def within(self, transaction: Transaction, run_ids: Collection[RunId]) -> dict[RunId, History]:
        """Return histories as a transaction sees them."""
        ids = self._statements.id_list(list(run_ids))

        def by_run(statement: Statement, unpack: Callable[[Row], T]) -> dict[RunId, list[T]]:
            found: dict[RunId, list[T]] = {run_id: [] for run_id in run_ids}
            with transaction.stream(statement, ids=ids) as rows:
                for row in rows:
                    found[row[0]].append(unpack(row))
            return found

        statements = self._statements
        steps = by_run(statements.steps_of_runs, self._steps.unpack)
        attempts = by_run(statements.attempts_of_runs, self._attempts.unpack)
        expansions = by_run(statements.expansions_of_runs, self._expansions.unpack)
        waits = by_run(statements.waits_of_runs, self._waits.unpack)
        saves = by_run(statements.saves_of_runs, self._saves.unpack)
        events = by_run(statements.events_of_runs, unpack_event)
        return {
            run_id: History(
                steps=tuple(sorted(steps[run_id], key=_by_seq)),
                attempts=tuple(attempts[run_id]),
                expansions=tuple(expansions[run_id]),
                waits=tuple(waits[run_id]),
                saves=tuple(saves[run_id]),
                events=tuple(events[run_id]),
            )
            for run_id in run_ids
        }


_by_seq = attrgetter("seq")
