"""``perdure db check``, ``db backup`` and ``db upgrade``: a whole store, looked after by hand."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.crash.ledger import wait_until

from perdure_storage.connect import open_run_store
from perdure_storage.migrating import migrate
from perdure_storage.schema import CURRENT, Schema
from perdure_storage.sqlite_engine import sqlite_engine

FLOW = """
from perdure import task, workflow

@task
def make(n: int) -> bytes:
    return bytes([n]) * 50_000

@task
def measure(data: bytes) -> int:
    return len(data)

@workflow
def sized(n: int = 1) -> int:
    return measure.bind(make.bind(n))
"""


@pytest.fixture(scope="module")
def prepared(
    command_line_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A finished run with a blob, made once; tests that change it take a copy."""
    cli = command_line_in(tmp_path_factory.mktemp("db"))
    cli.write("flow.py", FLOW)
    assert cli("run", "--id", "one", "flow.py").code == 0
    return cli


@pytest.fixture
def copied(prepared: Any, command_line_in: Callable[[Path], Any], tmp_path: Path) -> Iterator[Any]:
    shutil.copytree(prepared.folder, tmp_path / "copy")
    command_line = command_line_in(tmp_path / "copy")
    yield command_line
    command_line.end()


def database(cli: Any) -> Path:
    return Path(cli.folder / ".perdure" / "perdure.db")


def blob(cli: Any) -> Path:
    """Return the file of the one value that is large."""
    (path,) = [p for p in cli.folder.rglob("blake3-*") if p.stat().st_size >= 50_000]
    return Path(path)


def change(cli: Any, sql: str) -> None:
    with closing(sqlite3.connect(database(cli))) as connection:
        connection.execute(sql)
        connection.commit()


# --- check ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_check_of_a_whole_store_says_so(prepared: Any, deep: tuple[str, ...]) -> None:
    ended = prepared("db", "check", *deep)

    assert ended.code == 0
    assert "1 run read" in ended.out
    assert "all is well" in ended.out


def test_check_prints_json(prepared: Any) -> None:
    report = json.loads(prepared("db", "check", "--json").out)

    assert (report["runs"], report["problems"]) == (1, [])
    assert report["blobs"] >= 1


def test_check_names_the_step_whose_blob_is_missing(copied: Any) -> None:
    blob(copied).unlink()

    ended = copied("db", "check")

    assert ended.code == 1
    assert "step 'make' of run 'one'" in ended.out
    assert "is missing" in ended.out
    assert "perdure resume" in ended.out


ACTOR = """
from perdure import Actor, method, workflow

class Counter(Actor):
    def __init__(self):
        self.kept = b"k" * 60_000
        self.count = 0

    @method
    def add(self, n: int) -> int:
        self.count += n
        return self.count

@workflow
def counted(n: int = 1) -> int:
    counter = Counter.bind()
    counter.add.bind(n)
    return counter.add.bind(n)
"""


def test_state_of_an_actor_that_is_gone_leaves_a_finished_run_whole(perdure: Any) -> None:
    perdure.write("flow.py", ACTOR)
    assert perdure("run", "--id", "one", "flow.py").out == "2\n"
    for path in perdure.folder.rglob("blake3-*"):
        if path.stat().st_size > 60_000:
            path.unlink()

    checked = perdure("db", "check")

    assert checked.code == 0
    assert "all is well" in checked.out
    assert "gone: the state after step 'Counter.add#2' of run 'one'" in checked.err
    forked = perdure("fork", "one", "--new-id", "two", "--from", "Counter.add#2")
    assert (forked.code, forked.out) == (0, "2\n")


def test_check_finds_a_blob_that_was_cut_short(copied: Any) -> None:
    blob(copied).write_bytes(b"short")

    ended = copied("db", "check", "--json")

    (problem,) = json.loads(ended.out)["problems"]
    assert ended.code == 1
    assert problem["kind"] == "blob"
    assert "has 5 bytes and should have" in problem["message"]


def test_only_a_deep_check_finds_a_flipped_bit(copied: Any) -> None:
    data = bytearray(blob(copied).read_bytes())
    data[1000] ^= 1
    blob(copied).write_bytes(data)

    assert copied("db", "check").code == 0
    deep = copied("db", "check", "--deep")

    assert deep.code == 1
    assert "other bytes" in deep.out


def test_check_finds_a_row_that_was_tampered_with_and_the_others(copied: Any) -> None:
    assert copied("run", "--id", "two", "flow.py", "--n", "2").code == 0
    change(copied, "UPDATE step SET value_digest = 'v1:0' WHERE run_id = 'one'")

    report = json.loads(copied("db", "check", "--json").out)

    (problem,) = report["problems"]
    assert (problem["kind"], problem["run_id"]) == ("row", "one")
    assert "tampered with" in problem["message"]
    assert report["runs"] == 2


def test_check_finds_a_row_without_its_reference(copied: Any) -> None:
    change(copied, "DELETE FROM blob_ref WHERE holder = 'step'")

    ended = copied("db", "check")

    assert ended.code == 1
    assert "has no reference" in ended.out


def test_repair_refers_again_to_a_blob_that_gc_would_take(copied: Any) -> None:
    change(copied, "DELETE FROM blob_ref WHERE holder = 'step'")

    mended = copied("db", "check", "--repair")

    assert mended.code == 0
    assert "mended: step 'make' of run 'one'" in mended.err
    assert copied("gc", "--grace", "0s").code == 0
    assert copied("db", "check", "--deep").code == 0


def test_repair_removes_references_of_runs_that_are_not_there(copied: Any) -> None:
    digest = f"blake3:{64 * '0'}"
    change(copied, f"INSERT INTO blob_ref VALUES ('run', 'gone', '', 0, '{digest}')")

    found = copied("db", "check")
    mended = copied("db", "check", "--repair")

    assert found.code == 1
    assert "run 'gone' is not there" in found.out
    assert mended.code == 0


def test_a_value_with_other_bytes_is_moved_aside_and_made_again_by_a_resume(copied: Any) -> None:
    blob(copied).write_bytes(b"\0" * blob(copied).stat().st_size)

    mended = copied("db", "check", "--deep", "--repair")
    resumed = copied("resume", "one")

    assert mended.code == 1  # it is missing now: the resume is still to come
    assert "is missing" in mended.out
    assert resumed.code == 0
    assert copied("db", "check", "--deep").code == 0


def test_check_counts_what_nothing_refers_to(copied: Any) -> None:
    assert copied("delete", "--yes", "one").code == 0

    report = json.loads(copied("db", "check", "--json").out)

    assert report["orphans"] >= 1
    assert report["orphan_bytes"] > 1000


def test_check_finds_rows_that_refer_to_nothing(copied: Any) -> None:
    change(copied, "UPDATE step SET run_id = 'nobody'")

    ended = copied("db", "check")

    assert ended.code == 1
    assert ended.out.startswith("database:")


def test_check_tells_once_and_in_words_of_a_run_whose_row_is_lost(copied: Any) -> None:
    change(copied, "DELETE FROM run")

    ended = copied("db", "check")

    (said,) = [line for line in ended.out.splitlines() if line.startswith("database:")]
    assert ended.code == 1
    assert "step) are of runs that are not there: 'one'. Restore it from a backup" in said


def test_check_says_what_is_wrong_with_a_root_without_its_marker(copied: Any) -> None:
    next(copied.folder.rglob("marker.json")).unlink()

    ended = copied("db", "check")

    assert ended.code == 2
    assert "marker is missing" in ended.err


def test_check_finds_a_run_that_has_succeeded_and_lacks_a_step_of_its_result(copied: Any) -> None:
    change(copied, "DELETE FROM step WHERE step_id = 'measure'")

    ended = copied("db", "check")
    forked = copied("fork", "one", "--new-id", "two")

    assert ended.code == 1
    assert "of steps that its result needs: measure." in ended.out
    assert (forked.code, forked.out) == (0, "50000\n")


def test_check_ends_with_another_code_where_a_database_cannot_be_read(copied: Any) -> None:
    data = bytearray(database(copied).read_bytes())
    data[4096 : 30 * 4096] = b"\xff" * (29 * 4096)
    database(copied).write_bytes(data)

    ended = copied("db", "check")

    assert ended.code == 2
    assert "is damaged" in ended.err
    assert "Exit code 2" in copied("db", "check", "--help").out


# --- keys ----------------------------------------------------------------------------------------
def test_another_key_takes_over_under_a_coordinator_that_serves(copied: Any) -> None:
    up = copied.start("up", "--no-http", "--json")
    assert up.stdout is not None
    line = ""
    while "serving" not in line:
        line = up.stdout.readline()

    rotated = copied("db", "rotate-key", "--json")
    begun = copied("run", "--detach", "--id", "two", "flow.py", "--n", "2")

    report = json.loads(rotated.out)
    assert report["renewed"] > 1
    assert report["problems"] == []
    assert begun.code == 3
    wait_until(lambda: "SUCCEEDED" in copied("show", "two", "--json").out, 60, "nobody drives it")
    assert copied("db", "check").code == 0
    assert len((copied.folder / ".perdure" / "key").read_text().split()) == 1


# --- backup --------------------------------------------------------------------------------------
def test_a_backup_can_be_put_in_the_place_of_its_store(copied: Any) -> None:
    made = copied("db", "backup", "copy.db", "--json")
    pin = json.loads(made.out)
    assert copied("delete", "one", "--yes").code == 0
    assert copied("gc", "--grace", "0s").code == 0

    database(copied).with_name("perdure.db-wal").unlink(missing_ok=True)
    shutil.copy(copied.folder / "copy.db", database(copied))

    assert pin["note"] == str(copied.folder / "copy.db")
    assert copied("db", "check", "--deep").code == 0
    assert copied("run", "--id", "one", "flow.py").out == "50000\n"


def test_a_backup_keeps_its_blobs_until_it_is_released(copied: Any) -> None:
    pin_id = copied("db", "backup", "copy.db").out.strip()
    value = blob(copied)
    copied("delete", "one", "--yes")
    age(copied)
    copied("gc")
    assert value.exists()

    listed = copied("db", "backup", "--list")
    released = copied("db", "backup", "--release", pin_id)
    copied("gc")

    assert pin_id in listed.out
    assert str(copied.folder / "copy.db") in listed.out
    assert released.code == 0
    assert not value.exists()
    assert copied("db", "backup", "--list", "--json").out.strip() == "[]"


def age(cli: Any) -> None:
    for path in cli.folder.rglob("blake3-*"):
        os.utime(path, (0, 0))


def test_a_backup_of_a_live_store_is_what_it_was_in_one_moment(tmp_path: Path) -> None:
    from perdure_storage.backups import back_up
    from perdure_storage.clock import SystemClock
    from perdure_storage.contract_samples import created

    store = open_run_store(tmp_path / "perdure.db")
    other = open_run_store(tmp_path / "perdure.db")
    created(store, "before")
    copy_is_pinned = store.pin

    def pin_then_write(pin: Any, **more: Any) -> None:
        copy_is_pinned(pin, **more)
        created(other, "after")

    store.pin = pin_then_write  # type: ignore[method-assign]
    back_up(store, tmp_path / "copy.db", SystemClock().now())

    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT id FROM run").fetchall() == [("before",)]
        assert copy.execute("SELECT id FROM pin").fetchall() == []
    assert len(store.list_pins()) == 1
    store.close()
    other.close()


def test_a_backup_is_of_the_moment_of_the_pin_that_stands(tmp_path: Path) -> None:
    """A transaction may be done again where nothing of it was committed."""
    from perdure_storage.backups import back_up
    from perdure_storage.clock import SystemClock
    from perdure_storage.contract_samples import created

    store = open_run_store(tmp_path / "perdure.db")
    other = open_run_store(tmp_path / "perdure.db")
    created(store, "before")
    write = store.database.write

    def write_again(work: Any) -> Any:
        def undone(transaction: Any) -> None:
            work(transaction)
            raise RuntimeError("not committed")

        with pytest.raises(RuntimeError, match="not committed"):
            write(undone)
        created(other, "between")
        return write(work)

    store.database.write = write_again  # type: ignore[method-assign]
    back_up(store, tmp_path / "copy.db", SystemClock().now())

    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT id FROM run").fetchall() == [("before",), ("between",)]
    assert len(store.list_pins()) == 1
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "say one of FILE"),
        (("x.db", "--list"), 2, "say one of FILE"),
        (("flow.py",), 2, "is there already"),
        (("no/such/folder/x.db",), 2, "no folder"),
        (("--release", "never"), 2, "no backup 'never'"),
    ],
)
def test_backup_refuses_what_makes_no_sense(
    prepared: Any, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = prepared("db", "backup", *words)

    assert ended.code == code
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert prepared("db", "backup", "--list", "--json").out.strip() == "[]"


@pytest.mark.postgres
def test_backup_of_a_postgres_store_names_the_tool(
    perdure: Any, postgres_url: str, tmp_path: Path
) -> None:
    perdure.write("flow.py", FLOW)
    place = {"PERDURE_STORE": postgres_url, "PERDURE_BLOBS": str(tmp_path / "blobs")}
    assert perdure("run", "--id", "one", "flow.py", **place).code == 0

    ended = perdure("db", "backup", "copy.db", **place)

    assert ended.code == 2
    assert "pg_dump" in ended.err
    assert perdure("db", "check", "--deep", **place).code == 0
    assert perdure("gc", **place).code == 0


# --- upgrade -------------------------------------------------------------------------------------
def older(path: Path) -> None:
    """Make the tables of the first revision, as an older perdure would have."""
    first = Schema(CURRENT.location, CURRENT.revisions[:1])
    engine = sqlite_engine(path)
    with engine.begin() as connection:
        migrate(connection, first)
        connection.exec_driver_sql("INSERT INTO setting VALUES ('store_id', 'abc')")
    engine.dispose()


def test_upgrade_brings_an_older_store_up_to_date(perdure: Any) -> None:
    older(perdure.folder / "old.db")
    place = ("--store", "old.db")

    looked = perdure("db", "upgrade", "--check", *place)
    printed = perdure("db", "upgrade", "--sql", *place)
    done = perdure("db", "upgrade", "--json", *place)
    again = perdure("db", "upgrade", *place)

    assert (looked.code, looked.out) == (1, f"lacks {', '.join(CURRENT.revisions[1:])}\n")
    assert "CREATE TABLE pin" in printed.out
    assert json.loads(done.out) == {"schema": CURRENT.head, "applied": list(CURRENT.revisions[1:])}
    assert (again.code, again.out) == (0, f"up to date: {CURRENT.head}\n")


@pytest.mark.postgres
def test_an_older_postgres_store_is_used_once_it_is_upgraded(
    perdure: Any, postgres_url: str, tmp_path: Path
) -> None:
    perdure.write("flow.py", FLOW)
    place = {"PERDURE_STORE": postgres_url, "PERDURE_BLOBS": str(tmp_path / "blobs")}
    make_older_in_postgres(postgres_url)

    refused = perdure("run", "--id", "one", "flow.py", **place)
    assert refused.code == 2
    assert "perdure db upgrade" in refused.err
    assert perdure("db", "upgrade", **place).code == 0

    assert perdure("run", "--id", "one", "flow.py", **place).out == "50000\n"


def make_older_in_postgres(url: str) -> None:
    from perdure_storage.connect import parse_place
    from perdure_storage.postgres_database import postgres_engine

    server = parse_place(url).server
    assert server is not None
    engine = postgres_engine(server)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        migrate(connection, Schema(CURRENT.location, CURRENT.revisions[:1]))
        connection.exec_driver_sql("INSERT INTO setting VALUES ('store_id', 'abc')")
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("run", "--id", "two", "flow.py"),
        ("gc",),
        ("db", "upgrade"),
    ],
)
def test_a_store_of_a_newer_perdure_says_so_and_stays_as_it_is(
    copied: Any, words: tuple[str, ...]
) -> None:
    change(copied, "UPDATE alembic_version SET version_num = '9999'")
    before = database(copied).read_bytes()

    ended = copied(*words)

    assert ended.code == 2
    assert "newer perdure" in ended.err
    assert "pip install -U perdure" in ended.err
    assert "Traceback" not in ended.err
    assert database(copied).read_bytes() == before


def test_upgrade_refuses_two_ways_not_to_upgrade_and_a_place_without_a_store(perdure: Any) -> None:
    both = perdure("db", "upgrade", "--check", "--sql")
    nothing = perdure("db", "upgrade", "--store", "none.db")

    assert (both.code, nothing.code) == (2, 2)
    assert "choose one" in both.err
    assert "no store" in nothing.err
