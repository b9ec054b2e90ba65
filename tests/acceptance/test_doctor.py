"""``perdure doctor``: each thing is broken for real, found, and the way to mend it is named."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.acceptance.conftest import CommandLine

from perdure.client import open_store
from perdure.doctor import disks, machine
from perdure.doctor.blob_root import judge_cache, judge_service
from perdure.doctor.clocks import judge_skew
from perdure.doctor.examination import examine
from perdure.doctor.finding import Finding, Verdict
from perdure.settings import load_settings
from perdure.task import task
from perdure_storage.blobs import open_blobs
from perdure_storage.clock import Clock, ManualClock, SystemClock
from perdure_storage.connect import open_run_store
from perdure_storage.records import CacheTerms, RunId
from perdure_storage.schema import CURRENT, Schema


@task
def large(n: int) -> bytes:
    return b"x" * n


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run and a blob."""
    folder = tmp_path_factory.mktemp("made")
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.run(large.bind(100_000), run_id="big")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be broken."""
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files in which nothing is left of what other tests killed."""
    folder = tmp_path.parent / f"{tmp_path.name}-temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def examined(folder: Path, clock: Clock | None = None, **settings: str) -> list[Finding]:
    return list(examine(lambda: load_settings(store=str(folder / "perdure.db"), **settings), clock))


def of(findings: list[Finding], check: str) -> Finding:
    """Return the worst finding of a check."""
    found = [each for each in findings if each.check == check]
    assert found, [each.check for each in findings]
    return max(found, key=lambda each: list(Verdict).index(each.verdict))


def sql(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "perdure.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file with its bytes; what SQLite keeps beside its file while it is open is not
    the store's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


# --- all is well ----------------------------------------------------------------------------
def test_sound_store_has_nothing_to_be_mended_and_stays_as_it_is(folder: Path) -> None:
    before = snapshot(folder)

    findings = examined(folder)

    assert [each for each in findings if each.verdict is not Verdict.OK] == []
    assert {"versions", "cores", "memory", "open files", "temporary files", "settings"} <= {
        each.check for each in findings
    }
    assert snapshot(folder) == before


def test_folder_that_a_killed_step_left_is_told_of(folder: Path, own_temporary_files: Path) -> None:
    left = own_temporary_files / "perdure-folder-x"
    left.mkdir()
    (left / "state.bin").write_bytes(b"x" * 2048)

    found = of(examined(folder), "folders left")

    assert found.said == f"1 of a dead process, 2.0 KiB, in {own_temporary_files}"
    assert "perdure gc" in found.remedy


def test_folder_without_a_store_is_no_problem_and_none_is_made(tmp_path: Path) -> None:
    findings = examined(tmp_path)

    assert "`perdure run TARGET` makes it" in of(findings, "store").said
    assert list(tmp_path.iterdir()) == []


def test_doctor_is_safe_beside_a_live_run(folder: Path) -> None:
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        run = client.start(large.bind(200_000), run_id="live")
        verdicts = {each.verdict for each in examined(folder)}

        assert len(run.result(30)) == 200_000
    assert Verdict.PROBLEM not in verdicts


# --- the store ------------------------------------------------------------------------------
def test_store_that_is_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "perdure.db").mkdir()

    finding = of(examined(tmp_path), "store")

    assert finding.verdict is Verdict.PROBLEM
    assert finding.remedy == f"name the file in it: --store {tmp_path}/perdure.db/perdure.db"


def test_overwritten_pages_are_found(folder: Path) -> None:
    with (folder / "perdure.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(2 * 4096))

    finding = of(examined(folder), "integrity")

    assert finding.verdict is Verdict.PROBLEM
    assert "backup" in finding.remedy


def test_file_that_is_no_database_is_found(folder: Path) -> None:
    (folder / "perdure.db").write_text("Dear diary\n" * 1000)

    finding = of(examined(folder), "integrity")

    assert finding.verdict is Verdict.PROBLEM
    assert "not a database" in finding.said


def test_database_of_another_program_is_found(tmp_path: Path) -> None:
    sql(tmp_path, "CREATE TABLE recipe (name TEXT)")

    finding = of(examined(tmp_path), "store")

    assert finding.verdict is Verdict.PROBLEM
    assert "recipe" in finding.said


def test_store_of_an_older_perdure_is_to_be_upgraded(tmp_path: Path) -> None:
    older = Schema(CURRENT.location, CURRENT.revisions[:1])
    open_run_store(tmp_path / "perdure.db", schema=older).close()

    finding = of(examined(tmp_path), "schema")

    assert finding.verdict is Verdict.WARNING
    assert finding.remedy == f"perdure db upgrade --store {tmp_path / 'perdure.db'}"


def test_store_of_a_newer_perdure_says_what_to_upgrade(folder: Path) -> None:
    sql(folder, "UPDATE alembic_version SET version_num = '9999'")

    finding = of(examined(folder), "store")

    assert finding.verdict is Verdict.PROBLEM
    assert "pip install -U perdure" in finding.said


def test_journal_without_a_log_is_found(folder: Path) -> None:
    sql(folder, "PRAGMA journal_mode=DELETE")

    finding = of(examined(folder), "journal")

    assert finding.verdict is Verdict.WARNING
    assert "journal_mode=WAL" in finding.remedy


def test_network_file_system_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No test machine mounts one; what lies on which mount is tested beside the table of mounts.
    monkeypatch.setattr("perdure.doctor.stores.network_type_of", lambda path: "nfs4")

    finding = of(examined(folder), "store")

    assert finding.verdict is Verdict.PROBLEM
    assert "nfs4" in finding.said


def test_folder_that_cannot_be_written_is_found() -> None:
    finding = disks.check_writing("writing to the store", Path("/proc"), SystemClock())

    assert finding.verdict is Verdict.PROBLEM
    assert finding.remedy == "ls -ld /proc"


@pytest.mark.parametrize(
    ("free_bytes", "verdict"),
    [(10 << 20, Verdict.PROBLEM), (500 << 20, Verdict.WARNING), (5 << 30, Verdict.OK)],
)
def test_room_on_a_disk_is_judged(free_bytes: int, verdict: Verdict) -> None:
    assert disks.judge_room("disk", Path("/data"), free_bytes).verdict is verdict


def test_slow_disk_is_told_of() -> None:
    assert disks.judge_writing("writing", Path("/data"), 0.5).verdict is Verdict.WARNING


# --- the key --------------------------------------------------------------------------------
def test_lost_key_is_found_and_not_made(folder: Path) -> None:
    (folder / "key").unlink()

    finding = of(examined(folder), "key")

    assert finding.verdict is Verdict.PROBLEM
    assert str(folder / "key") in finding.said
    assert not (folder / "key").exists()


def test_key_of_another_store_is_found(folder: Path) -> None:
    (folder / "key").write_text("ab" * 32)

    assert of(examined(folder), "store").verdict is Verdict.PROBLEM


def test_key_that_others_may_read_is_found(folder: Path) -> None:
    (folder / "key").chmod(0o644)

    finding = of(examined(folder), "key")

    assert finding.verdict is Verdict.WARNING
    assert finding.remedy == f"chmod 600 {folder / 'key'}"


def test_row_that_was_tampered_with_is_found(folder: Path) -> None:
    sql(folder, "UPDATE step SET codec = 'pickle/1'")

    finding = of(examined(folder), "rows")

    assert finding.verdict is Verdict.PROBLEM
    assert "tampered" in finding.said


# --- the blobs ------------------------------------------------------------------------------
def test_blob_root_without_its_marker_is_found(folder: Path) -> None:
    (marker,) = (folder / "blobs").glob("*/marker.json")
    marker.unlink()

    finding = of(examined(folder), "blobs")

    assert finding.verdict is Verdict.PROBLEM
    assert "marker is missing" in finding.said


def test_blob_root_that_is_not_mounted_is_found(folder: Path) -> None:
    shutil.rmtree(folder / "blobs")

    assert of(examined(folder), "blobs").verdict is Verdict.PROBLEM


def test_blob_root_that_is_not_the_stores_is_found(folder: Path, tmp_path: Path) -> None:
    finding = of(examined(folder, blobs=str(tmp_path / "elsewhere")), "blobs")

    assert finding.verdict is Verdict.PROBLEM
    assert not (tmp_path / "elsewhere").exists()


def test_blob_root_that_takes_no_writing_is_found(folder: Path) -> None:
    (incoming,) = (folder / "blobs").glob("*/incoming")
    shutil.rmtree(incoming)
    incoming.write_text("in the way")

    finding = of(examined(folder), "writing of blobs")

    assert finding.verdict is Verdict.PROBLEM


def test_damaged_blob_that_was_put_aside_is_told_of(folder: Path) -> None:
    (marker,) = (folder / "blobs").glob("*/marker.json")
    blobs = open_blobs(folder / "blobs", marker.parent.name)
    blobs.quarantine(next(iter(blobs.list_digests())))

    finding = of(examined(folder), "damaged blobs")

    assert finding.verdict is Verdict.WARNING
    assert f"perdure gc --store {folder / 'perdure.db'}" in finding.remedy


def test_cache_of_a_bucket_is_told_of_with_its_size(tmp_path: Path) -> None:
    terms = CacheTerms(folder=str(tmp_path / "cache"), limit_bytes=1 << 20)

    finding = judge_cache(terms)

    assert finding.verdict is Verdict.OK
    assert "of at most" in finding.said


def test_cache_that_its_disk_has_no_room_for_is_told_of(tmp_path: Path) -> None:
    finding = judge_cache(CacheTerms(folder=str(tmp_path / "cache"), limit_bytes=1 << 60))

    assert finding.verdict is Verdict.WARNING
    assert "PERDURE_BLOBS_CACHE_SIZE" in finding.remedy


def test_cache_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")

    finding = judge_cache(CacheTerms(folder=str(tmp_path / "cache"), limit_bytes=1 << 20))

    assert finding.verdict is Verdict.WARNING
    assert "PERDURE_BLOBS_CACHE" in finding.remedy


def test_service_that_is_slow_is_told_of() -> None:
    assert judge_service("s3://bucket", 0.2).verdict is Verdict.OK
    assert "region" in judge_service("s3://bucket", 3.0).remedy


def test_deletion_that_was_cut_off_is_told_of(folder: Path) -> None:
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.runtime.store.delete_run(RunId("big"))  # and the process dies before the rest
    later = ManualClock(SystemClock().now() + timedelta(hours=1))

    finding = of(examined(folder, later), "deleted runs")

    assert finding.verdict is Verdict.WARNING
    assert "1 run deleted" in finding.said


# --- runs -----------------------------------------------------------------------------------
DIES = """
import os, signal
from perdure import task, workflow

@task
def dies() -> int:
    os.kill(os.getpid(), signal.SIGKILL)

@workflow
def doomed() -> int:
    return dies.bind()
"""


def test_interrupted_run_is_named_with_what_resumes_it(perdure: CommandLine) -> None:
    script = perdure.write("doomed.py", DIES)
    assert perdure("run", "--executor", "inline", "--id", "gone", script).code == 137

    ended = perdure("doctor")

    assert ended.code == 0
    assert "1 run whose process is gone: gone" in ended.out
    assert "`perdure resume gone`" in ended.out


def test_queued_run_that_nobody_takes_is_named(folder: Path) -> None:
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.submit(large.bind(1), run_id="waits")

    finding = of(examined(folder), "queued runs")

    assert finding.verdict is Verdict.WARNING
    assert "waits" in finding.said
    assert finding.remedy == f"start `perdure up --store {folder / 'perdure.db'}`"


# --- the clock ------------------------------------------------------------------------------
def test_clock_that_was_set_back_is_found(folder: Path) -> None:
    yesterday = ManualClock(SystemClock().now() - timedelta(days=1))

    finding = of(examined(folder, yesterday), "clock")

    assert finding.verdict is Verdict.WARNING
    assert "timedatectl" in finding.remedy


@pytest.mark.parametrize(("apart_s", "verdict"), [(-90, Verdict.WARNING), (1, Verdict.OK)])
def test_clock_of_the_database_is_compared(apart_s: int, verdict: Verdict) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert judge_skew(now + timedelta(seconds=apart_s), now).verdict is verdict


@pytest.mark.postgres
def test_store_on_a_server_is_looked_at_with_its_clock(postgres_url: str, tmp_path: Path) -> None:
    places = {"store": postgres_url, "blobs": str(tmp_path / "blobs")}
    with open_store(**places, executor="inline") as client:
        client.run(large.bind(10))

    findings = list(examine(lambda: load_settings(**places)))

    assert [each for each in findings if each.verdict is not Verdict.OK] == []
    assert of(findings, "clock of the database").verdict is Verdict.OK


def test_server_that_does_not_answer_is_found(tmp_path: Path) -> None:
    places = {"store": "postgresql://localhost:1/nothing", "blobs": str(tmp_path)}

    finding = of(list(examine(lambda: load_settings(**places))), "store")

    assert finding.verdict is Verdict.PROBLEM
    assert "pg_isready" in finding.said


# --- settings and the machine ---------------------------------------------------------------
def test_misspelt_variable_is_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_STROE", "x.db")

    finding = of(examined(folder), "settings")

    assert finding.verdict is Verdict.WARNING
    assert "did you mean 'PERDURE_STORE'?" in finding.said


def test_settings_that_cannot_be_read_are_a_problem(perdure: CommandLine) -> None:
    perdure.write("pyproject.toml", "[tool.perdure]\nworkerz = 3\n")

    ended = perdure("doctor", "--json")

    assert ended.code == 1
    findings = json.loads(ended.out)
    assert findings[-1]["verdict"] == "problem"
    assert "did you mean 'workers'?" in findings[-1]["said"]


def test_few_descriptors_are_told_of_by_the_command_itself(tmp_path: Path) -> None:
    command = f"ulimit -n 256; exec {sys.executable} -m perdure doctor"

    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert (
        "warning  open files: 256 may be open at a time\n         type `ulimit -n" in ended.stdout
    )


@pytest.mark.parametrize(
    ("judge", "little", "enough"),
    [
        (machine.judge_cores, 0.5, 2.0),
        (machine.judge_memory, 100 << 20, 8 << 30),
        (machine.judge_descriptors, 256, resource.RLIM_INFINITY),
        (lambda free: machine.judge_shm(Path("/dev/shm"), free), 1 << 20, 1 << 30),
    ],
)
def test_machine_is_judged(judge: Callable[[float], Finding], little: float, enough: float) -> None:
    assert judge(little).verdict is Verdict.WARNING
    assert judge(little).remedy
    assert judge(enough).verdict is Verdict.OK


def test_folder_in_which_no_probe_can_be_written_or_removed_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    found = disks.check_writing("writing", tmp_path / "file" / "store", SystemClock())

    assert found.verdict is Verdict.PROBLEM
    assert "cannot be written: Not a directory" in found.said
