"""What of a run's rows moves with it: every table and column is in a list, or the test says which.

A table or a column that is new has to be decided on here: whoever adds one is told.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract_imports import unset_fields
from perdure_storage.contract_samples import NOW, a_whole_run
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.tables import metadata

MOVES = {
    "run",
    "plan",
    "plan_ref",
    "step",
    "attempt",
    "save",
    "expansion",
    "wait",
    "message",
    "event",
    "blob_ref",
}
STAYS = {
    "setting": "the store's own",
    "queue": "has other limits here",
    "schedule": "makes runs",
    "concurrency": "of schedules",
    "tick": "of schedules; names runs that may be long gone",
    "trigger": "makes runs",
    "arrival": "of triggers; names runs that may be long gone",
    "run_end": "what triggers have not been told: it ended elsewhere",
    "condemned": "gc's",
    "coordinator": "who drives runs here",
    "tombstone": "of runs that are gone",
    "pin": "of backups",
}
LEFT_OUT = {
    "run.owner": "nobody drives it here",
    "run.owner_token": "nobody drives it here",
    "run.takeovers": "counts deaths here",
    "run.wake_at_us": "a live run is paused",
    "run.cancel_requested": "a live run is paused",
    "run.pause_requested": "only of a live run",
    "run.schedule": "another one may have its name here",
    "run.by_hand": "of schedules",
    "run.trigger": "another one may have its name here",
    "run.dedup_key": "another one may be live here",
}
READ_OFF = {"RunRecord.lease_live": "read off the owner's lease"}


def test_every_table_is_known_to_move_or_to_stay() -> None:
    assert set(metadata.tables) == MOVES | set(STAYS)


def test_every_field_of_a_record_moves_or_is_left_out_for_a_reason() -> None:
    left_out = {f"RunRecord.{name.partition('.')[2].removesuffix('_us')}" for name in LEFT_OUT}

    unset = set(unset_fields(a_whole_run()))

    assert unset == left_out - {"RunRecord.owner_token"} | set(READ_OFF)


@pytest.mark.parametrize("table", sorted(MOVES))
def test_every_column_is_filled_by_an_import(table: str, tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    store = open_run_store(tmp_path / "perdure.db", key=bytes(32), clock=clock)
    store.import_run(a_whole_run(), {"from": "elsewhere"})

    rows = _rows(store, table)

    empty = [
        f"{table}.{column}"
        for column in metadata.tables[table].columns.keys()  # noqa: SIM118
        if all(not row[column] for row in rows)
    ]
    assert empty == [name for name in LEFT_OUT if name.startswith(f"{table}.")]
    store.close()


def _rows(store: SqlRunStore, table: str) -> list[sa.RowMapping]:
    engine = sa.create_engine(store.url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.select(metadata.tables[table])).mappings())
    finally:
        engine.dispose()
