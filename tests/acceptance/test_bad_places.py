"""Stores that were moved, emptied or mixed up: a clear error, and nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from perdure.cli import main
from perdure.cli.endings import ExitCode, exit_code
from perdure.client import open_store
from perdure.errors import PerdureError, StoreError, ValueDamaged, ValueUnavailable
from perdure.task import task
from perdure.workflow import workflow
from perdure_storage.connect import open_run_store


@task
def large(n: int) -> bytes:
    return b"x" * n


@task
def length(data: bytes) -> int:
    return len(data)


def make(folder: Path) -> None:
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.run(large.bind(100_000), run_id="big")


def read(folder: Path) -> bytes:
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        value: bytes = client.get_run("big").result()
        return value


def test_store_folder_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    make(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")

    assert len(read(tmp_path / "there")) == 100_000


def test_emptied_blob_root_is_said_and_nothing_is_taken_for_lost(tmp_path: Path) -> None:
    make(tmp_path)
    shutil.rmtree(tmp_path / "blobs")

    with pytest.raises(PerdureError, match="blobs"):
        read(tmp_path)


def test_blob_root_of_another_store_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "blobs")
    shutil.copytree(tmp_path / "two" / "blobs", tmp_path / "one" / "blobs")

    with pytest.raises(PerdureError, match="blobs"):
        read(tmp_path / "one")


def test_lost_key_names_where_it_should_be(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "key").unlink()

    with pytest.raises(StoreError, match=str(tmp_path / "key")):
        read(tmp_path)


def test_key_of_another_store_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "key", tmp_path / "one" / "key")

    with pytest.raises(StoreError):
        read(tmp_path / "one")


def test_lost_values_of_a_finished_run_are_rebuilt_by_resume_and_by_the_same_id(
    tmp_path: Path,
) -> None:
    @workflow
    def two() -> int:
        return length.bind(large.bind(100_000))

    with open_store(str(tmp_path / "perdure.db"), executor="inline") as client:
        client.run(two, run_id="t")
        for again in (lambda: client.resume("t").result(30), lambda: client.run(two, run_id="t")):
            for blob in (tmp_path / "blobs").glob("*/blobs/*/*"):
                blob.unlink()
            with pytest.raises(ValueDamaged, match="perdure resume t"):
                client.get_run("t")["large"].result()

            assert again() == 100_000

            assert len(client.get_run("t")["large"].result()) == 100_000
            assert client.get_run("t")["length"].generation == 1


def opened_with(blobs: str, folder: Path) -> int:
    """Open a new store with its values there, run something large; return how much came of it."""
    with open_store(str(folder / "perdure.db"), blobs=blobs, executor="inline") as client:
        return len(client.run(large.bind(100_000), run_id="big"))


def test_blob_root_that_never_worked_is_not_the_stores_for_ever(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ValueUnavailable):
        opened_with(str(tmp_path / "file" / "values"), tmp_path)

    assert opened_with(str(tmp_path / "values"), tmp_path) == 100_000


def test_misspelt_bucket_is_not_the_stores_for_ever(tmp_path: Path, s3_bucket: str) -> None:
    with pytest.raises(ValueUnavailable, match="make the bucket, or name another"):
        opened_with(f"{s3_bucket}-misspelt/values", tmp_path)

    assert opened_with(f"{s3_bucket}/values", tmp_path) == 100_000


@pytest.mark.parametrize("then", ["one", "two"])
def test_any_root_can_be_bound_after_a_death_between_marker_and_binding(
    tmp_path: Path, then: str
) -> None:
    code = (
        "from perdure.client import open_store\n"
        f"open_store({str(tmp_path / 'perdure.db')!r}, blobs={str(tmp_path / 'one')!r}).list_runs()"
    )
    died = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PERDURE_CRASH_POINTS": "bind.before:1:kill"},
        check=False,
    )
    assert died.returncode == -9
    assert list(tmp_path.glob("one/*/marker.json"))

    assert opened_with(str(tmp_path / then), tmp_path) == 100_000


def test_one_root_is_bound_when_two_open_a_new_store_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def faster(point: str) -> None:
        if point == "bind.before":
            monkeypatch.undo()
            made.append(opened_with(str(tmp_path / "two"), tmp_path))

    monkeypatch.setattr("perdure_storage.sql_runs.crash_point", faster)

    with pytest.raises(StoreError, match="keeps its values in two/"):
        opened_with(str(tmp_path / "one"), tmp_path)

    assert made == [100_000]
    assert opened_with(str(tmp_path / "two"), tmp_path) == 100_000


@pytest.mark.parametrize("name", [".perdure", "runs"])
def test_place_where_no_store_can_be_made_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / name

    with open_store(str(folder / "perdure.db")) as client, pytest.raises(StoreError) as caught:
        client.list_runs()

    assert f"cannot make a store in {folder}: Not a directory" in str(caught.value)
    assert "Name another place" in str(caught.value)
    assert exit_code(caught.value) == ExitCode.USAGE


def test_looking_at_an_empty_file_makes_no_store_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "perdure.db"
    cut.touch()

    codes = [main(["ls", "--store", str(cut)]), main(["show", "--store", str(cut), "a"])]

    assert codes == [0, 2]
    assert "there is no store at" in capsys.readouterr().err
    assert cut.stat().st_size == 0


def test_store_that_does_not_say_its_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "perdure.db"
    open_run_store(path, key=None).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.commit()

    code = main(["ls", "--store", str(path)])

    assert code == 2
    assert "alembic_version is empty" in capsys.readouterr().err
