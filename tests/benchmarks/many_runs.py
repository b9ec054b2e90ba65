"""A store with as many runs as a year leaves behind, made in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

import msgspec
import sqlalchemy as sa

import perdure
from perdure import task, workflow
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunRecord
from perdure_storage.tables import run

SEED = "seed"
_AT_ONCE = 5_000
_EVERY = timedelta(minutes=5)
_TOOK = timedelta(seconds=2)


@task
def answer() -> int:
    return 42


@workflow
def seed() -> int:
    return answer.bind()


def fill(store: str, blobs: str, count: int) -> None:
    """Make a run as users do, and copies of its row: other ids, times, workflows, ends and tags.

    The copies are signed as the store signs them, but written by thousands, not one by one.

    Args:
        store: URL of a store, which is made where it can be.
        blobs: where its values go.
        count: how many runs it holds then.
    """
    with perdure.open(store, blobs=blobs, executor="inline") as client:
        seed.run(run_id=SEED)
        runs = client.runtime.store
        copies = map(runs._runs.pack, _copies(runs.get_run(RunId(SEED)), count - 1))
        names = [column.name for column in run.c]
        engine = sa.create_engine(store.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            while rows := [dict(zip(names, row)) for row in islice(copies, _AT_ONCE)]:
                connection.execute(sa.insert(run), rows)
        engine.dispose()


def _copies(record: RunRecord, count: int) -> Iterator[RunRecord]:
    for number in range(count):
        made = record.created_at - (count - number) * _EVERY
        yield msgspec.structs.replace(
            record,
            id=RunId(f"run-{number:07}"),
            workflow=f"workflow-{number % 10}",
            status=RunStatus.SUCCEEDED if number % 50 else RunStatus.FAILED,
            tags={"team": "common" if number % 5_000 else "rare"},
            created_at=made,
            started_at=made,
            finished_at=made + _TOOK,
        )
