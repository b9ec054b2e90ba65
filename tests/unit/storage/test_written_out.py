"""What is written out of SQLAlchemy's words, so that SQLite does without it."""

from __future__ import annotations

from perdure_storage.clock import SystemClock
from perdure_storage.compiled_book import sqlite_book
from perdure_storage.leases import LeaseTerms
from perdure_storage.statement_book import SqliteBook
from perdure_storage.writing_out import write_out
from perdure_storage.written_out import WRITTEN

TERMS = LeaseTerms(clock=SystemClock(), boot_id="boot", ends_with_boot=True)
TYPE = "python -m perdure_storage.writing_out"


def test_what_is_written_out_is_what_would_be_compiled_now() -> None:
    now = write_out()

    assert now.ddl == WRITTEN.ddl, TYPE
    assert now.columns == WRITTEN.columns, TYPE
    assert now.statements == WRITTEN.statements, TYPE


def test_statement_that_is_not_written_out_is_compiled_when_it_is_asked_for() -> None:
    written, compiled = SqliteBook(TERMS).runs, sqlite_book(TERMS).runs
    filters = frozenset({"since", "tag0"})

    shaped = written.list_runs(statuses=2, filters=filters)
    by_hand = written.compile(written.insert_or_keep(_table("pin")))

    assert shaped == compiled.list_runs(statuses=2, filters=filters)
    assert by_hand == compiled.compile(compiled.insert_or_keep(_table("pin")))


def test_shape_is_found_however_its_call_is_written() -> None:
    book = SqliteBook(TERMS).runs

    one, other = book.claimable(fits=True, queues=False), book.claimable(queues=False, fits=True)

    assert one == other
    assert one != book.claimable(fits=True, queues=True)


def _table(name: str):  # type: ignore[no-untyped-def]
    from perdure_storage.tables import metadata

    return metadata.tables[name]
