"""Writes out what ``written_out`` has: ``python -m perdure_storage.writing_out``.

To be done whenever a table or a statement has changed; a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import product
from typing import Any

import msgspec
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from perdure_storage.clock import SystemClock
from perdure_storage.compiled_book import sqlite_book
from perdure_storage.leases import LeaseTerms
from perdure_storage.migrating import VERSION
from perdure_storage.sql_claims import BUILDING, CLAIMING, RELEASING
from perdure_storage.sql_commits import COUNTING, ENDING
from perdure_storage.sql_runs import REOPENING
from perdure_storage.statement_book import ROOMS
from perdure_storage.tables import metadata
from perdure_storage.written_out import PLACE, Words, WrittenOut, spelled

_NO_FILTER: frozenset[str] = frozenset()
_FILTERS = ("prefix", "workflow", "after", "tag0")
_YES_AND_NO = (False, True)
_FITS = tuple({"fits": fits} for fits in _YES_AND_NO)

_SHAPES: dict[str, tuple[tuple[Any, ...] | dict[str, Any], ...]] = {
    "claimable": tuple({"fits": f, "queues": q} for f, q in product(_YES_AND_NO, _YES_AND_NO)),
    "next_wake": _FITS,
    "lines": _FITS,
    "line": _FITS,
    "woken": _FITS,
    "advance_run": tuple({"with_steps": each} for each in _YES_AND_NO),
    "update_run": (
        *(CLAIMING, BUILDING, RELEASING, COUNTING, ENDING, REOPENING),
        *(("takeovers",), ("seq",), ("cancel_requested", "seq"), ("pause_requested", "seq")),
        ("status", "owner", "owner_token"),
    ),
    "list_runs": tuple(
        {"statuses": statuses, "filters": filters}
        for statuses in range(5)
        for filters in (_NO_FILTER, *(frozenset({each}) for each in _FILTERS))
    ),
    "list_schedules": ((_NO_FILTER,),),
    "list_ticks": ((_NO_FILTER,),),
    "list_triggers": ((_NO_FILTER,), (frozenset({"listens", "paused"}),)),
    "list_arrivals": ((_NO_FILTER,),),
}
"""The calls whose statement is written out; any other one is compiled when it comes."""


def write_out() -> WrittenOut:
    """Return what there is to write out now."""
    book = sqlite_book(LeaseTerms(clock=SystemClock(), boot_id="", ends_with_boot=True))
    return WrittenOut(
        ddl=tuple(_ddl()),
        columns={
            str(name): tuple(map(str, table.c.keys())) for name, table in metadata.tables.items()
        },
        statements={name: dict(_words(getattr(book, name))) for name in ROOMS},
    )


def _ddl() -> Iterator[str]:
    dialect = pysqlite.dialect()
    for table in (*metadata.sorted_tables, VERSION):
        yield str(CreateTable(table).compile(dialect=dialect)).strip()
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            yield str(CreateIndex(index).compile(dialect=dialect)).strip()


def _words(room: object) -> Iterator[tuple[str, Words]]:
    for name, member in sorted(vars(type(room)).items()):
        if isinstance(member, cached_property):
            yield name, getattr(room, name)
        for call in _SHAPES.get(name, ()):
            positional, named = ((), call) if isinstance(call, dict) else (call, {})
            ask: Callable[[], Words] = partial(getattr(room, name), *positional, **named)
            yield spelled(name, positional, named), ask()


def main() -> None:
    """Write it."""
    text = msgspec.json.format(msgspec.json.encode(write_out()), indent=1)
    PLACE.write_bytes(text + b"\n")


if __name__ == "__main__":
    main()
