"""A disk that is really full, under the database, the blobs and the temporary files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.crash import ledger, steps
from tests.crash.ledger import Ledger, Undisturbed, check, executing, wait_until
from tests.crash.stage import Stage

from perdure import Static, task, workflow
from perdure.client import Perdure, open_store
from perdure_storage.errors import StoreUnavailable
from perdure_storage.records import RunId

RUN = "cramped"
SIZE = "4m"


@dataclass(frozen=True)
class SmallDisk:
    """A file system of a few MB."""

    folder: Path

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (65536, 4096, 256, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused: {done.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger.jsonl"))
    return Ledger(tmp_path / "ledger.jsonl")


@task
def fill_at(number: int, at: int, disk: str, before: object) -> int:
    """Fill the disk in the first attempt of step ``at``."""
    with executing():
        if number == at and steps.current_attempt() == 1:
            SmallDisk(Path(disk)).fill()
        return number


@task
def large(number: int) -> bytes:
    with executing():
        return steps.bytes_of(str(number))


@task
def wide_row(number: int) -> str:
    """Return what is kept in the row itself."""
    with executing():
        return steps.bytes_of(str(number), 20_000).hex()[:20_000]


@workflow
def cramped(kind: Static[str], at: int, disk: str) -> list[object]:
    """Six steps in a row, one of which fills the disk; each followed by one that needs room."""
    made, before = [], None
    make = {"rows": wide_row, "blobs": large}[kind]
    for number in range(6):
        before = fill_at.bind(number, at, disk, before)
        made.append(make.bind(before))
    return [before, *(steps.unwrap.bind(each) for each in made)]


def undisturbed(kind: str, folder: Path, at: int) -> Undisturbed:
    """Run it where there is room for everything; nothing is filled after the last step."""
    with open_store(str(folder / "roomy" / "perdure.db"), executor="inline") as client:
        path = os.environ.pop(ledger.VARIABLE)
        client.run(cramped, run_id=RUN, kind=kind, at=at, disk=str(folder / "nowhere"))
        os.environ[ledger.VARIABLE] = path
        found = Undisturbed.of(client, RUN)
    return found


_RUN = """
import sys
from perdure.engine import commits
from tests.crash.test_disk_full import RUN, cramped, open_store

commits.PATIENCE_S = 0.5
store, blobs, at, disk = sys.argv[1:]
with open_store(store, blobs=blobs, executor="inline") as client:
    client.run(cramped, run_id=RUN, kind="rows", at=int(at), disk=disk)
"""


@pytest.mark.parametrize("at", [0, 3, 5])
def test_full_disk_under_the_database_is_a_clean_error_and_the_run_is_resumed(
    disk: SmallDisk, record: Ledger, tmp_path: Path, at: int
) -> None:
    stage = Stage(tmp_path, str(disk.folder / "store" / "perdure.db"))
    expected = undisturbed("rows", tmp_path, at)
    words = ("-c", _RUN, stage.store, stage.blobs, str(at), str(disk.folder))

    code, said = stage.finish(stage.start(*words))

    assert code == 1
    assert "StoreUnavailable" in said
    assert "full" in said
    disk.make_room()
    with stage.open() as client:
        record.note_committed(client, RUN)
        client.resume(RUN).result()
        check(record, client, RUN, expected)


@pytest.mark.parametrize("at", [0, 3, 5])
def test_full_disk_under_the_blobs_is_waited_for_until_there_is_room(
    disk: SmallDisk, record: Ledger, tmp_path: Path, at: int
) -> None:
    store, blobs = str(tmp_path / "store" / "perdure.db"), str(disk.folder / "blobs")
    expected = undisturbed("blobs", tmp_path, at)
    with open_store(store, blobs=blobs, executor="inline") as client:
        run = client.start(cramped, run_id=RUN, kind="blobs", at=at, disk=str(disk.folder))
        wait_until(lambda: "make room" in said_by_attempts(client), 20, "nobody noticed")

        assert run.status == "RUNNING"
        disk.make_room()
        run.result(timeout=40)

        check(record, client, RUN, expected)


def said_by_attempts(client: Perdure) -> str:
    attempts = client.runtime.store.list_attempts(RunId(RUN))
    return " ".join(attempt.error.message for attempt in attempts if attempt.error)


def test_full_disk_under_the_temporary_files_loses_nothing(
    disk: SmallDisk, stage: Stage, record: Ledger
) -> None:
    disk.fill()
    words = ("-m", "tests.crash.scenarios", "busy", "act", stage.store, "--blobs", stage.blobs)
    code, said = stage.finish(stage.start(*words, TMPDIR=str(disk.folder)))
    disk.make_room()
    if code != 0:
        code, said = stage.play("busy", "recover")

    assert code == 0, said
    with stage.open() as client:
        assert client.get_run("victim").status == "SUCCEEDED"


def test_store_on_a_disk_that_became_read_only_says_so_and_loses_nothing(disk: SmallDisk) -> None:
    store = str(disk.folder / "store" / "perdure.db")
    with open_store(store, executor="inline") as client:
        client.run(wide_row.bind(1), run_id=RUN)
    remount = ["mount", "-o", "remount,ro", str(disk.folder)]
    subprocess.run(remount, check=True)

    with pytest.raises(StoreUnavailable, match="is read-only"), open_store(store) as client:
        client.get_run(RUN)
    subprocess.run([*remount[:2], "remount,rw", remount[-1]], check=True)

    with open_store(store) as client:
        assert client.get_run(RUN).status == "SUCCEEDED"
