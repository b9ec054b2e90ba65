"""Commits that the store refuses: nothing hangs, nothing runs without need, nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.crash import steps
from tests.crash.ledger import VARIABLE, Ledger, Undisturbed, check
from tests.reliability.figures import tell_figures

from perdure import workflow
from perdure.client import Perdure, open_store
from perdure_storage.clock import SystemClock
from perdure_storage.collection import collect_garbage
from perdure_storage.hashing import integrity_digest
from perdure_storage.reclaiming import reclaiming
from perdure_storage.records import (
    CommitReport,
    Digest,
    Owner,
    Place,
    PlanRecord,
    RunCommit,
    RunId,
    RunRecord,
)

RUN = "collected"


@workflow
def ending_large(n: int = 1) -> bytes:
    """The commit that ends the run brings a large value."""
    return steps.make_blob.bind(steps.start.bind(n), steps.BLOB_BYTES)


@pytest.fixture
def client(tmp_path: Path) -> Perdure:
    return open_store(str(tmp_path / "store" / "perdure.db"), executor="inline")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    return Ledger(path)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Undisturbed:
    return come_to(steps.losing, tmp_path)


def come_to(definition: Any, folder: Path) -> Undisturbed:
    with open_store(str(folder / "undisturbed" / "perdure.db"), executor="inline") as client:
        client.run(definition, run_id=RUN)
        return Undisturbed.of(client, RUN)


def blobs_of(client: Perdure) -> int:
    """Return how many steps have values that lie beside the rows."""
    rows = client.runtime.store.list_steps(RunId(RUN))
    return sum(row.value is not None and row.value.place is Place.BLOB for row in rows)


def test_no_step_runs_twice_because_a_gc_that_died_left_a_mark(
    client: Perdure, undisturbed: Undisturbed, ledger: Ledger
) -> None:
    blob = Digest(integrity_digest([steps.bytes_of("2")]))
    with client:
        client.runtime.store.condemn([blob])

        client.run(steps.losing, run_id=RUN)

        check(ledger, client, RUN, undisturbed)
        assert client.runtime.store.list_condemned() == {}
        assert ledger.began() == ["start", "make_blob", "gated_size"]


class CollectedBetween:
    """A store before whose n-th reference to blobs gc takes whatever nothing refers to."""

    def __init__(self, client: Perdure, at: int) -> None:
        self._below = client.runtime.rows
        self._blobs = client.runtime.blobs
        self._at = at
        self.references = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def create_run(
        self, run: RunRecord, plan: PlanRecord, *, owner: Owner | None = None
    ) -> RunRecord | None:
        self._collect()
        return self._below.create_run(run, plan, owner=owner)

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        self._collect()
        return self._below.commit(batch)

    def _collect(self) -> None:
        self.references += 1
        if self.references == self._at:
            collect_garbage(self._below, self._blobs, SystemClock().now())


@pytest.mark.parametrize("definition", [steps.losing, ending_large])
def test_run_is_the_same_whichever_commit_gc_comes_before_without_a_grace(
    definition: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value lies there without a row for a moment; then it is gone, and made again."""
    undisturbed = come_to(definition, tmp_path)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    monkeypatch.setenv(VARIABLE, str(ledger.path))
    repeated = 0
    for at in range(1, 100):
        ledger.path.unlink(missing_ok=True)
        with open_store(str(tmp_path / f"{at}" / "perdure.db"), executor="inline") as client:
            between = CollectedBetween(client, at)
            client.runtime.store = reclaiming(between, client.runtime.blobs)  # type: ignore

            client.start(definition, run_id=RUN).result(timeout=60)

            check(ledger, client, RUN, undisturbed)
            made_again = blobs_of(client)
        repeated += len(ledger.began()) - len(undisturbed.digests)
        if between.references < at:
            break
    assert at > len(undisturbed.digests) + 1
    assert repeated == made_again > 0
    tell_figures(collections=at - 1)


def test_run_that_was_taken_over_as_it_fell_asleep_is_let_go(
    client: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody drives it here any more: what executors and spans hold for it is given back."""
    store, told = client.runtime.store, []
    commit = store.commit

    def robbed(batch: Sequence[RunCommit]) -> CommitReport:
        if any(part.waits for part in batch):
            run = store.get_run(RunId(RUN))
            assert run.owner is not None
            thief = msgspec.structs.replace(run.owner, token="thief", host="elsewhere", pid=1)
            store.register(thief, 60.0)
            assert store.claim_run(run.id, thief, seen_dead=run.owner.token) is not None
        return commit(batch)

    with client:
        client.submit(steps.sleeping, seconds=600, run_id=RUN)
        monkeypatch.setattr(store, "commit", robbed)
        coordinator = client.runtime.coordinator(on_change=told.append)
        coordinator.submit(RUN)

        while coordinator.drives(RUN):
            coordinator.turn(0.0)
        coordinator.close()

        assert told == [RUN]
