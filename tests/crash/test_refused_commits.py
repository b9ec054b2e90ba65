"""Commits that the store refuses while their coordinator lives: nothing hangs, nothing is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.crash import steps
from tests.crash.ledger import wait_until

from perdure.client import Perdure, open_store
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import Digest


@pytest.fixture
def client(tmp_path: Path) -> Perdure:
    return open_store(str(tmp_path / "store" / "perdure.db"), executor="inline")


def test_run_is_not_stuck_when_a_blob_that_it_makes_is_being_collected(client: Perdure) -> None:
    """The refused turn had steps to start; they once held their places for ever."""
    blob = Digest(integrity_digest([steps.bytes_of("2")]))
    with client:
        client.runtime.store.condemn([blob])
        run = client.start(steps.losing, run_id="collected")
        try:
            assert not threading.Event().wait(0.3)
            client.runtime.store.absolve([blob])
            wait_until(lambda: run.status == "SUCCEEDED", 10, "the run is stuck")
        finally:
            client.runtime.store.absolve([blob])

        assert run.result() == client.execute(steps.losing)
