"""Log stores under their contract."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from tests.s3 import FaultyS3, make_bucket

from perdure_storage.blobs import open_blobs
from perdure_storage.contract_blobs import LogArea, LogStoreContract
from perdure_storage.errors import StoreError
from perdure_storage.logs import open_logs
from perdure_storage.protocols import LogStore
from perdure_storage.records import RunId, StepId

_STORE = "store-1"


class Area:
    """Logs under a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        open_blobs(url, _STORE, bind=True)

    def open(self) -> LogStore:
        return open_logs(self.url, _STORE)


class TestLocalLogs(LogStoreContract):
    @pytest.fixture
    def log_area(self, tmp_path: Path) -> LogArea:
        return Area(str(tmp_path / "data"))


class TestRemoteLogs(LogStoreContract):
    @pytest.fixture
    def log_area(self) -> LogArea:
        return Area(f"memory://logs-{secrets.token_hex(4)}")


class TestS3Logs(LogStoreContract):
    @pytest.fixture
    def log_area(self, s3_bucket: str) -> LogArea:
        return Area(f"{s3_bucket}/team")

    def test_looking_for_logs_of_a_run_that_has_none_is_one_request(
        self, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs = Area(f"{make_bucket(faulty_s3.url, monkeypatch)}/team").open()
        del faulty_s3.seen[:]

        logs.delete(RunId("r"))

        assert len(faulty_s3.seen) == 1


def test_long_local_log_is_cut_into_segments_and_read_whole(tmp_path: Path) -> None:
    logs = Area(str(tmp_path)).open()
    part = b"x" * (5 << 20)

    for _ in range(4):
        logs.append(RunId("r"), StepId("s"), 1, 1, part)

    assert len(list(tmp_path.glob("store-1/logs/*/*/*.log"))) == 2
    assert logs.read(RunId("r"), StepId("s"), 1, 1) == part * 4
    for offset in (len(part), 2 * len(part), 3 * len(part) + 7, -len(part) - 7, -1):
        assert logs.read(RunId("r"), StepId("s"), 1, 1, offset=offset) == (part * 4)[offset:]


def test_local_logs_of_an_unbound_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="marker is missing"):
        open_logs(str(tmp_path), _STORE)


def test_nothing_is_written_when_nothing_was_printed(tmp_path: Path) -> None:
    Area(str(tmp_path)).open().append(RunId("r"), StepId("s"), 1, 1, b"")

    assert not (tmp_path / "store-1" / "logs").exists()
