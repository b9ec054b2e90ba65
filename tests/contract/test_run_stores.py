"""Every run store against the one contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure_storage.boots import boot_id
from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract import RunStoreContract
from perdure_storage.memory import MemoryRunStore
from perdure_storage.sql_runs import SqlRunStore

KEY = bytes(range(32))


class TestMemoryStore(RunStoreContract):
    @pytest.fixture
    def store(self, clock: ManualClock) -> MemoryRunStore:
        return MemoryRunStore(clock, boot_id=boot_id())


class TestSqliteStore(RunStoreContract):
    @pytest.fixture
    def store(self, clock: ManualClock, tmp_path: Path) -> Iterator[SqlRunStore]:
        path = tmp_path / "perdure.db"
        store = open_run_store(path, key=KEY, clock=clock, lease_clock=clock)
        yield store
        store.close()


class TestUnsignedSqliteStore(TestSqliteStore):
    @pytest.fixture
    def store(self, clock: ManualClock, tmp_path: Path) -> Iterator[SqlRunStore]:
        store = open_run_store(tmp_path / "perdure.db", clock=clock, lease_clock=clock)
        yield store
        store.close()


@pytest.mark.postgres
class TestPostgresStore(RunStoreContract):
    @pytest.fixture
    def store(self, clock: ManualClock, postgres_url: str) -> Iterator[SqlRunStore]:
        store = open_run_store(postgres_url, key=KEY, clock=clock, lease_clock=clock)
        yield store
        store.close()
