"""What must not happen at once on PostgreSQL: pinning and condemning, taking over and deleting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    NOW,
    a_plan,
    a_run,
    by,
    claimed,
    created,
    digest,
    ended,
)
from perdure_storage.errors import PerdureError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import PinRecord, RunEnd, RunId
from perdure_storage.sql_runs import SqlRunStore

pytestmark = pytest.mark.postgres
ROUNDS = 20


@pytest.fixture
def stores(postgres_url: str) -> Iterator[tuple[SqlRunStore, SqlRunStore]]:
    first, second = open_run_store(postgres_url), open_run_store(postgres_url)
    yield first, second
    first.close()
    second.close()


def at_once(*works: Callable[[], object]) -> list[object]:
    """Do all of it at the same time; return the answers, an error being one too."""
    barrier = threading.Barrier(len(works))
    answers: list[object] = [None] * len(works)

    def do(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = works[number]()
        except PerdureError as error:
            answers[number] = error

    threads = [threading.Thread(target=do, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_no_blob_is_both_pinned_and_condemned(stores: tuple[SqlRunStore, SqlRunStore]) -> None:
    first, second = stores
    for number in range(ROUNDS):
        name, blob = f"run-{number}", digest(f"b{number}")
        run = claimed(first, name, plan=a_plan(f"p{number}", f"b{number}"))
        first.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))])
        pin = PinRecord(id=name, at=NOW)

        def delete_and_condemn(run_id: RunId = run.id, blob: str = blob) -> object:
            second.delete_run(run_id)
            return second.condemn([digest(blob.removeprefix("blake3:"))])

        _, condemned = at_once(lambda pin=pin: first.pin(pin), delete_and_condemn)

        pinned = first.unreferenced([blob]) == []
        assert pinned != bool(condemned)
        first.unpin(name)


def test_no_run_is_deleted_while_another_begins_to_take_it_over(
    stores: tuple[SqlRunStore, SqlRunStore],
) -> None:
    """Whoever is second sees the first: the taker, or that there is nothing to take."""
    first, second = stores
    created(first, "unrelated")
    for number in range(ROUNDS):
        donor, taker = f"donor-{number}", f"taker-{number}"
        ended(first, donor)
        record = a_run(taker, reuse_from=RunId(donor))

        _, deleted = at_once(
            lambda record=record: first.create_run(record, a_plan()),
            lambda donor=donor: second.delete_run(RunId(donor)),
        )

        is_there = first.find_run(RunId(donor)) is not None
        assert is_there == isinstance(deleted, PerdureError)
        assert first.get_run(RunId(taker)).reuse_from == donor
