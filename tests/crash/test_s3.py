"""Runs whose values lie in a bucket: killed about each upload, and while the service fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import s3
from tests.contract.test_s3_blobs import age
from tests.crash import bucket_steps
from tests.crash.bucket_steps import RUN
from tests.crash.ledger import Undisturbed, check, check_nothing_is_left
from tests.crash.scenarios import RUN as EVERYTHING
from tests.crash.stage import ROOT, Stage
from tests.crash.test_crash_points import SCENARIO_OF, die_and_recover
from tests.prepared import python_path
from tests.s3 import FaultyS3

from perdure.client import Perdure, open_store
from perdure_storage.backups import back_up
from perdure_storage.checking import check_store
from perdure_storage.clock import SystemClock
from perdure_storage.faults import VARIABLE
from perdure_storage.records import Digest, PinRecord, RunId

WANTED = 16_800_000


class Bench:
    """A store beside a bucket, and what the steps of its run say."""

    def __init__(self, folder: Path, bucket: str, store: str = "") -> None:
        self.folder = folder
        self.store = store or str(folder / "store" / "perdure.db")
        self.blobs = f"{bucket}/values"
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def die(self, point: str) -> None:
        """Let a process run it until it is killed at a point."""
        words = [sys.executable, "-m", "tests.crash.bucket_steps", self.store, self.blobs]
        environment = {**os.environ, "PYTHONPATH": python_path(ROOT), VARIABLE: f"{point}:1:kill"}
        ended = subprocess.run(
            words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=90
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    def open(self) -> Perdure:
        return open_store(self.store, blobs=self.blobs, executor="inline")

    def calls(self) -> Counter[str]:
        return Counter(self.ledger.read_text().split())

    def path(self, client: Perdure, digest: Digest) -> str:
        name = digest.partition(":")[2]
        place = f"{self.blobs.removeprefix('s3://')}/{client.runtime.store.store_id}"
        return f"{place}/blobs/{name[:2]}/blake3-{name}"


@pytest.fixture
def bench(tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, s3_bucket)
    monkeypatch.setenv(bucket_steps.LEDGER, str(made.ledger))
    return made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    """The bucket beside each database: a team's store is PostgreSQL and S3."""
    is_team = request.param == "postgres"
    made = Bench(tmp_path, s3_bucket, request.getfixturevalue("postgres_url") if is_team else "")
    monkeypatch.setenv(bucket_steps.LEDGER, str(made.ledger))
    return made


@pytest.fixture
def faulty_bench(tmp_path: Path, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, s3.make_bucket(faulty_s3.url, monkeypatch))
    monkeypatch.setenv(bucket_steps.LEDGER, str(made.ledger))
    return made


def value_of(client: Perdure, step: str) -> Digest:
    history = client.runtime.store.whole_run(RunId(RUN)).history
    return next(
        each.value.integrity for each in history.steps if each.step_id == step and each.value
    )


@pytest.mark.parametrize(
    "point",
    [
        *("blob.opened", "blob.first-byte", "blob.mid-write", "blob.before-close"),
        *("blob.after-rename", "blob.already-there", "worker.after-encode", "commit.before"),
    ],
)
def test_run_goes_on_when_killed_at(point: str, bench: Bench) -> None:
    bench.die(point)
    before = bench.calls()

    with bench.open() as client:
        result = client.run(bucket_steps.sizes, run_id=RUN)
        found = check_store(client.runtime.rows, client.runtime.blobs, deep=True)

    assert result == WANTED
    assert found.problems == ()
    assert sum((bench.calls() - before).values()) <= 3
    assert set(bench.calls()) == {"make", "again", "count"}


@pytest.mark.slow
def test_run_in_processes_goes_on_when_a_worker_s_upload_is_cut_off_by_a_kill(
    tmp_path: Path, s3_bucket: str, undisturbed: Callable[[str], Undisturbed]
) -> None:
    wanted = undisturbed(SCENARIO_OF["blob.mid-write"])
    stage = Stage(tmp_path / "stage")
    stage.blobs = f"{s3_bucket}/values"

    try:
        die_and_recover(stage, "blob.mid-write", 1)

        with stage.open() as client:
            check(stage.ledger, client, EVERYTHING, wanted)
        check_nothing_is_left(stage.ledger)
    finally:
        stage.end()


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "partNumber"), ("POST", "uploads"), ("GET", "/blobs/")]
)
def test_a_service_that_is_away_for_a_while_is_waited_for_and_charges_no_attempt(
    faulty_bench: Bench, faulty_s3: FaultyS3, method: str, path: str
) -> None:
    with faulty_bench.open() as client:
        away = s3.refuses(503, "ServiceUnavailable")
        faulty_s3.inject(away, method=method, path=path, times=4)

        assert client.run(bucket_steps.sizes, run_id=RUN) == WANTED

    assert faulty_bench.calls()["count"] == 1


def test_a_value_that_is_gone_from_the_bucket_is_made_again(bench: Bench) -> None:
    with bench.open() as client:
        client.run(bucket_steps.sizes, run_id=RUN)
        fs = client.runtime.blobs.root.fs  # type: ignore[attr-defined]
        fs.rm_file(bench.path(client, value_of(client, "make")))

        assert client.resume(RUN).result() == WANTED

    assert bench.calls() == {"make": 2, "again": 2, "count": 1}, "those two have one blob"


def test_a_value_that_is_damaged_in_the_bucket_is_put_aside_and_made_again(
    any_bench: Bench,
) -> None:
    with any_bench.open() as client:
        client.run(bucket_steps.sizes, run_id=RUN)
        root = client.runtime.blobs.root  # type: ignore[attr-defined]
        root.fs.pipe_file(any_bench.path(client, value_of(client, "make")), b"other bytes")

        assert client.resume(RUN).result() == WANTED

        assert len(root.fs.ls(f"{root.folder}/quarantine")) == 1
    assert any_bench.calls() == {"make": 2, "again": 2, "count": 1}, "those two have one blob"


def test_gc_takes_old_values_of_a_deleted_run_and_uploads_that_died(any_bench: Bench) -> None:
    with any_bench.open() as client:
        client.run(bucket_steps.sizes, run_id=RUN)
        blobs = client.runtime.blobs
        client.delete(RUN)
        for digest in list(blobs.list_digests()):
            age(any_bench.path(client, digest))
        bucket, _, key = any_bench.path(client, Digest("blake3:" + "0" * 64)).partition("/")
        blobs.root.fs.call_s3(  # type: ignore[attr-defined]
            "create_multipart_upload", Bucket=bucket, Key=key
        )

        report = client.gc(grace="1h")

        assert report.blobs >= 1
        assert report.files == 1
        assert list(blobs.list_digests()) == []


def test_gc_leaves_what_a_pin_keeps(any_bench: Bench) -> None:
    with any_bench.open() as client:
        client.run(bucket_steps.sizes, run_id=RUN)
        kept = value_of(client, "make")
        client.runtime.store.pin(PinRecord(id="backup", at=SystemClock().now()))
        client.delete(RUN)
        age(any_bench.path(client, kept))

        client.gc(grace="1h")

        assert kept in set(client.runtime.blobs.list_digests())


def test_a_run_goes_from_a_folder_to_a_bucket_and_back(any_bench: Bench, tmp_path: Path) -> None:
    home = open_store(str(tmp_path / "home" / "perdure.db"), executor="inline")
    with home, any_bench.open() as team:
        home.run(bucket_steps.sizes, run_id=RUN)
        home.export_run(RUN, tmp_path / "there.perdure")
        team.import_run(tmp_path / "there.perdure", trust=True)
        assert team.get_run(RUN)["make"].result() == bytes([7]) * 8_400_000
        team.export_run(RUN, tmp_path / "back.perdure")
        home.delete(RUN)
        home.import_run(tmp_path / "back.perdure", trust=True)

        assert home.get_run(RUN).result() == WANTED
        assert check_store(home.runtime.rows, home.runtime.blobs, deep=True).problems == ()
    assert any_bench.calls() == {"make": 1, "again": 1, "count": 1}


def test_a_run_of_a_team_s_store_is_gone_on_with_and_whole(any_bench: Bench) -> None:
    any_bench.die("commit.before")

    with any_bench.open() as client:
        assert client.resume(RUN).result() == WANTED
        report = check_store(client.runtime.rows, client.runtime.blobs, deep=True)

    assert report.problems == ()
    assert report.blobs > 0


def test_a_backup_of_a_database_beside_a_bucket_can_be_put_in_its_place(bench: Bench) -> None:
    folder = Path(bench.store).parent
    with bench.open() as client:
        client.run(bucket_steps.sizes, run_id=RUN)
        kept = value_of(client, "make")
        back_up(client.runtime.rows, folder / "copy.db", SystemClock().now())
        client.delete(RUN)
        age(bench.path(client, kept))
        client.gc(grace="1h")
    for file in folder.glob("perdure.db*"):
        file.unlink()
    (folder / "copy.db").rename(bench.store)

    with bench.open() as client:
        assert client.get_run(RUN)["make"].result() == bytes([7]) * 8_400_000
