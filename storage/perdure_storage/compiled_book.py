"""All statements of a store, by room, each compiled when it is first used."""

from __future__ import annotations

from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import Dialect

from perdure_storage.leases import LeaseTerms
from perdure_storage.queue_statements import QueueStatements
from perdure_storage.schedule_statements import ScheduleStatements
from perdure_storage.statements import Statements
from perdure_storage.trigger_statements import TriggerStatements


class CompiledBook:
    """A ``StatementBook`` of any dialect.

    Args:
        dialect: with a positional parameter style.
        terms: how leases are judged.
    """

    def __init__(self, dialect: Dialect, terms: LeaseTerms) -> None:
        self.runs = Statements(dialect, terms)
        self.queues = QueueStatements(self.runs)
        self.schedules = ScheduleStatements(self.runs)
        self.triggers = TriggerStatements(self.runs)


def sqlite_book(terms: LeaseTerms) -> CompiledBook:
    """Return the statements for SQLite."""
    return CompiledBook(pysqlite.dialect(), terms)
