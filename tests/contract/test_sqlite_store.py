"""What SQLite stores do beyond the contract: many processes, bad places, full disks, old boots."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    a_plan,
    a_run,
    a_step,
    a_value,
    a_wait,
    an_owner,
    by,
    claimed,
    created,
    digest,
    ended,
)
from perdure_storage.errors import StoreError, StoreUnavailable
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import PinRecord, Place, RunId, RunQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase
from perdure_storage.statement import Statement

_RUN = RunId("run")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "perdure.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[SqlRunStore]:
    store = open_run_store(path, clock=clock, lease_clock=clock)
    yield store
    store.close()


WRITER = """
import sys
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import a_step, an_owner, by
from perdure_storage.records import RunId

store = open_run_store(sys.argv[1])
me, rounds = an_owner(sys.argv[2]), int(sys.argv[3])
store.register(me, 3600)
sys.stdin.read(1)
done = 0
while done < rounds:
    run = store.claim_run(RunId("run"), me, seen_dead=store.get_run(RunId("run")).owner.token)
    report = store.commit([by(run, a_step("run", f"{me.token}-{done}"))])
    if run.id in report.committed:
        done += 1
print(store.get_run(RunId("run")).epoch)
"""


def test_four_processes_that_read_and_write_lose_no_update(path: Path) -> None:
    rounds = 40
    store = open_run_store(path)
    claimed(store)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"w{number}", str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]

    said = [writer.communicate("x")[1] for writer in writers]

    assert said == [""] * 4
    steps = store.list_steps(_RUN)
    assert len(steps) == 4 * rounds
    run = store.get_run(_RUN)
    # Each claim is one epoch and one event, each step one number: nothing was overwritten.
    events = store.list_events(_RUN)
    assert run.epoch == sum(event.kind in ("claimed", "taken over") for event in events)
    numbers = [row.seq for row in steps] + [event.seq for event in events]
    assert sorted(numbers) == list(range(1, run.seq + 1))
    store.close()


def test_threads_read_whole_commits_while_one_writes(store: SqlRunStore) -> None:
    run = claimed(store)
    over = threading.Event()
    seen: list[list[int]] = []

    def read() -> None:
        while not over.is_set():
            seen.append([step.seq for step in store.list_steps(_RUN)])

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(50):
        store.commit([by(run, a_step("run", f"a{number}"), a_step("run", f"b{number}"))])
    over.set()
    for reader in readers:
        reader.join()

    assert seen
    # Two steps a commit: nobody ever saw the half of one.
    assert all(len(numbers) % 2 == 0 and numbers == sorted(numbers) for numbers in seen)


def test_renewals_go_on_while_another_process_holds_a_transaction_a_while(
    store: SqlRunStore, path: Path
) -> None:
    store.register(an_owner(), LEASE_S)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.find_run(_RUN) is None
    other.execute("COMMIT")
    other.close()

    assert store.renew(an_owner(), LEASE_S)


def test_a_lease_of_another_boot_is_over(store: SqlRunStore) -> None:
    stranger = an_owner("stranger", boot_id="another boot")
    claimed(store, owner=stranger)

    assert not store.get_run(_RUN).lease_live
    assert store.coordinators() == [(stranger, False)]
    assert store.claim_run(_RUN, an_owner()) is not None


def test_register_forgets_the_dead_that_own_nothing(store: SqlRunStore, clock: ManualClock) -> None:
    store.register(an_owner("idle"), LEASE_S)
    store.register(an_owner("other boot", boot_id="x"), LEASE_S)
    claimed(store, owner=an_owner("holder"))
    clock.advance(2 * 86_400)

    store.register(an_owner("new"), LEASE_S)

    assert [owner.token for owner, _ in store.coordinators()] == ["holder", "new"]


# --- changes -------------------------------------------------------------------------------------
def test_changes_tell_what_another_connection_did_and_not_our_own_commits(
    store: SqlRunStore, path: Path
) -> None:
    run = claimed(store)
    other = open_run_store(path)
    before = store.changes()

    store.commit([by(run, a_step("run", "s"))])
    assert store.changes() == before
    other.request_cancel(_RUN)

    assert store.changes() != before
    other.close()


# --- places --------------------------------------------------------------------------------------
def test_a_store_is_found_by_path_and_by_url(path: Path) -> None:
    first = open_run_store(path)
    second = open_run_store(f"sqlite:///{path}")

    assert first.store_id == second.store_id
    assert second.url == f"sqlite:///{path}"
    first.close()
    second.close()


def test_the_folder_of_a_store_is_made(tmp_path: Path) -> None:
    open_run_store(tmp_path / "a" / "b" / "perdure.db").close()

    assert (tmp_path / "a" / "b" / "perdure.db").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user:secret@host/db", "expected a path"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://relative.db", "names no file"),
        (":memory:", "names no file"),
        ("", "names no file"),
        ("a\0b", "names no file"),
        ("postgresql://user:secret@host:port/db", "cannot be read"),
    ],
)
def test_a_place_that_is_none_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as refused:
        open_run_store(url)

    assert "secret" not in str(refused.value)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        open_run_store(tmp_path)


def test_a_store_that_must_be_there_is_not_made(path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        open_run_store(path, create=False)

    assert not path.exists()


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.write_bytes(b"this is no database, " * 100)

    with pytest.raises(StoreError, match=r"no perdure store.*file is not a database"):
        open_run_store(path)

    assert path.read_bytes().startswith(b"this is no database")


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE customers (id)")
    other.close()

    with pytest.raises(StoreError, match="holds other tables"):
        open_run_store(path)


def _names(path: Path) -> list[str]:
    store = open_run_store(path)
    try:
        return [run.id for run in store.list_runs(RunQuery(limit=1000))]
    finally:
        store.close()


def test_a_damaged_store_says_so(path: Path, clock: ManualClock) -> None:
    store = open_run_store(path)
    for number in range(200):
        created(store, f"run-{number}")
    store.close()
    whole = path.read_bytes()
    kept = len(whole) // 4
    path.write_bytes(whole[:kept] + os.urandom(len(whole) - kept))

    with pytest.raises(StoreError, match=r"damaged.*backup"):
        _names(path)


def test_a_parent_that_is_a_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError, match=r"cannot make a store in .*ls -ld") as caught:
        open_run_store(tmp_path / "file" / "perdure.db")

    assert not isinstance(caught.value, StoreUnavailable)  # to try again does not help


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_says_what_is_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(StoreUnavailable, match="ls -ld"):
        open_run_store(tmp_path / "perdure.db")


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_a_store_that_goes_away_while_it_is_open_is_not_written_into_the_void(
    store: SqlRunStore, path: Path, what: str
) -> None:
    run = claimed(store)
    path.rename(path.with_name("moved.db"))
    if what == "replaced":
        path.write_bytes(b"")

    with pytest.raises(StoreUnavailable, match=r"went away|replaced") as refused:
        store.commit([by(run, a_step("run", "s"))])
    assert refused.value.is_gone is (what == "deleted")
    with pytest.raises(StoreUnavailable):
        store.changes()
    with pytest.raises(StoreUnavailable):
        store.get_run(_RUN)


def test_a_full_disk_is_a_clear_error_and_the_store_goes_on_when_there_is_space(
    store: SqlRunStore,
) -> None:
    run = claimed(store)
    store.commit([by(run, a_step("run", "before"))])
    writer = _writer(store)
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    big = [a_step("run", f"s{n}", value=a_value("x" * 30_000)) for n in range(50)]

    with pytest.raises(StoreUnavailable, match=r"disk .* full.*Free some space"):
        store.commit([by(run, *big)])

    assert [step.step_id for step in store.list_steps(_RUN)] == ["before"]
    writer.execute("PRAGMA max_page_count=1073741823")
    assert _RUN in store.commit([by(run, *big)]).committed


def test_nobody_hears_that_the_database_is_locked(path: Path) -> None:
    store = open_run_store(path)
    run = claimed(store)
    _writer(store).execute("PRAGMA busy_timeout=50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match=r"held by another process.*lsof"):
        store.commit([by(run, a_step("run", "s"))])

    other.execute("ROLLBACK")
    assert _RUN in store.commit([by(run, a_step("run", "s"))]).committed
    other.close()
    store.close()


def _writer(store: SqlRunStore) -> sqlite3.Connection:
    database = store._database
    assert isinstance(database, SqliteDatabase)
    return database._open_writer()


def test_every_commit_is_on_the_disk_before_it_is_told(store: SqlRunStore) -> None:
    created(store)

    assert _writer(store).execute("PRAGMA synchronous").fetchone() == (2,)
    assert _writer(store).execute("PRAGMA foreign_keys").fetchone() == (1,)


# --- reading by index ----------------------------------------------------------------------------
def _plan(store: SqlRunStore, sql: str, arguments: tuple[object, ...]) -> str:
    rows = _writer(store).execute(f"EXPLAIN QUERY PLAN {sql}", arguments).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "ix_run_newest"),
        (RunQuery(after=_RUN), "ix_run_newest"),
        (RunQuery(since=NOW), "ix_run_newest"),
        (RunQuery(workflow="flow"), "ix_run_by_workflow"),
        (RunQuery(status=(RunStatus.FAILED,)), "ix_run_by_status"),
        (RunQuery(id_prefix="iris-"), "sqlite_autoindex_run_1"),
    ],
)
def test_lists_of_runs_are_read_by_index(store: SqlRunStore, query: RunQuery, index: str) -> None:
    ended(store)
    traced: list[str] = []
    with store._database.connections.lent() as driver:  # type: ignore[attr-defined]
        driver.set_trace_callback(traced.append)

    store.list_runs(query)

    (sql,) = [text for text in traced if text.startswith("SELECT run.id, run.workflow")][-1:]
    plan = _plan(store, sql, ())
    assert f"USING INDEX {index}" in plan
    assert "SCAN run\n" not in plan + "\n"
    assert "TEMP B-TREE" not in plan or query.id_prefix
    assert "inputs" not in sql.split("FROM")[0].replace("run.inputs_digest", "")


@pytest.mark.parametrize("fits", [False, True])
def test_claimable_is_read_by_the_index_of_each_kind(store: SqlRunStore, fits: bool) -> None:
    statement = store._statements.claimable(fits=fits, queues=False)
    plan = _plan(store, statement.sql, tuple(None for _ in statement.names))

    for index in ("ix_run_by_status (status=?)", "ix_run_waiting", "ix_run_cancelling"):
        assert index in plan
    assert "ix_run_queued_freely" not in plan
    # That index holds only the runs that are to be cancelled: all of it is the answer.
    assert "SCAN run" not in plan.replace("SCAN run USING INDEX ix_run_cancelling", "")


def test_steps_and_own_runs_are_read_by_index(store: SqlRunStore) -> None:
    statements = store._statements

    for statement in (
        statements.list_current_steps,
        statements.list_some_steps,
        statements.list_some_current_steps,
        statements.runs_of_owner,
    ):
        plan = _plan(store, statement.sql, tuple(None for _ in statement.names))
        assert "SCAN step" not in plan
        assert "SCAN run" not in plan


@pytest.mark.parametrize("table", ["plan", "run", "schedule", "trigger"])
def test_row_that_goes_is_not_looked_for_in_all_that_could_refer_to_it(
    store: SqlRunStore, table: str
) -> None:
    plan = _plan(store, f"DELETE FROM {table} WHERE rowid = ?", (1,))

    assert plan.count("SEARCH") == plan.count("\n") + 1 > 1, plan


def test_sleepers_are_found_by_an_index_of_their_own(store: SqlRunStore) -> None:
    statement = store._statements.next_wake(fits=False)
    plan = _plan(store, statement.sql, tuple(None for _ in statement.names))

    assert plan == "SEARCH run USING INDEX ix_run_waiting (wake_at_us>?)"
    fitting = store._statements.next_wake(fits=True)
    plan = _plan(store, fitting.sql, tuple(None for _ in fitting.names))
    assert plan.startswith("SEARCH run USING INDEX ix_run_waiting (wake_at_us>?)")
    assert "SCAN run" not in plan


def test_messages_and_who_waits_for_them_are_read_by_index(store: SqlRunStore) -> None:
    statements = store._statements
    wanted_of = (
        (statements.list_waits, ("SEARCH wait",)),
        (statements.list_messages, ("ix_message_receiver (receiver=? AND name=?)",)),
        (
            statements.find_unheard,
            ("SEARCH wait", "ix_message_receiver (receiver=? AND name=? AND id>?)", "SEARCH step"),
        ),
        (statements.wake_for_event, ("ix_wait_event (name=?)", "sqlite_autoindex_run_1")),
        (statements.deliver, ("SEARCH wait",)),
        (statements.find_duplicate, ("ix_message_dedup",)),
        (statements.find_message, ("SEARCH message USING INTEGER PRIMARY KEY",)),
    )

    for statement, wanted in wanted_of:
        plan = _plan(store, statement.sql, tuple(None for _ in statement.names))
        scans = [
            line for line in plan.splitlines() if "SCAN" in line and "VIRTUAL TABLE" not in line
        ]
        assert scans == [], plan
        assert all(part in plan for part in wanted), plan


def test_a_large_inline_value_is_kept_as_it_is(store: SqlRunStore) -> None:
    run = claimed(store)
    value = a_value("x" * 32 * 1024)

    store.commit([by(run, a_step("run", "s", value=value))])

    assert store.list_steps(_RUN)[0].value == value


# --- dying ---------------------------------------------------------------------------------------
DOING = """
import sys
from datetime import timedelta
from pathlib import Path
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import *
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Delivery, PinRecord, Place, RunEnd, RunId, StepKey

store = open_run_store(sys.argv[1])
run = store.find_run(RunId("run"))
match sys.argv[2]:
    case "create":
        created(store, "new", inputs={"x": a_value()})
    case "claim":
        store.claim_run(run.id, an_owner("two"), seen_dead="one")
    case "release":
        store.release_run(run, to=RunStatus.QUEUED)
    case "commit":
        store.commit([by(run, a_step("run", "b"), a_step("run", "c"))])
    case "lost":
        store.commit([by(run, a_step("run", "a", 2), lost=(StepKey("a", 1),))])
    case "terminal":
        store.commit([by(run, a_step("run", "b"), end=RunEnd(status=RunStatus.SUCCEEDED))])
    case "cancel":
        store.request_cancel(run.id)
    case "pause":
        store.request_pause(run.id, True)
    case "reset":
        store.reset_run(RunId("over"))
    case "delete":
        store.delete_run(RunId("over"))
    case "condemn":
        store.condemn([digest("orphan")])
    case "free":
        store.free_id(RunId("deleted"))
    case "absolve":
        store.absolve(store.list_condemned())
    case "forget":
        store.forget_condemned(store.list_condemned()[digest("marked")] + timedelta(days=1))
    case "pin":
        store.pin(PinRecord(id="new", at=NOW))
    case "unpin":
        store.unpin("old")
    case "wait":
        store.commit([by(run, waits=(a_wait("run", "b"),))])
    case "deliver":
        delivery = Delivery(1, "w", 1)
        store.commit([by(run, a_step("run", "w"), deliveries=(delivery,))])
    case "send":
        store.send(a_message(value=a_value(place=Place.BLOB, name="sent")))
    case "emit":
        store.send(a_message(None, at=NOW + timedelta(days=1)))
    case "expire":
        store.forget_events(NOW)
    case "renew":
        store.renew(an_owner(), 100.0)
"""

DEATHS = [
    ("run.before-insert", "create", False),
    ("run.after-insert", "create", True),
    ("claim.before", "claim", False),
    ("claim.after", "claim", True),
    ("release.before", "release", False),
    ("release.after", "release", True),
    ("renew.before", "renew", False),
    ("commit.before", "commit", False),
    ("commit.in-transaction", "commit", False),
    ("commit.after", "commit", True),
    ("wait.before", "wait", False),
    ("commit.in-transaction", "wait", False),
    ("wait.after", "wait", True),
    ("deliver.before", "deliver", False),
    ("commit.in-transaction", "deliver", False),
    ("deliver.after", "deliver", True),
    ("send.before", "send", False),
    ("send.after", "send", True),
    ("send.before", "emit", False),
    ("send.after", "emit", True),
    ("expire.before", "expire", False),
    ("expire.after", "expire", True),
    ("lost.before", "lost", False),
    ("commit.in-transaction", "lost", False),
    ("lost.after", "lost", True),
    ("terminal.before", "terminal", False),
    ("commit.in-transaction", "terminal", False),
    ("terminal.after", "terminal", True),
    ("cancel.before", "cancel", False),
    ("cancel.after", "cancel", True),
    ("pause.before", "pause", False),
    ("pause.after", "pause", True),
    ("reset.before", "reset", False),
    ("reset.after", "reset", True),
    ("delete.before", "delete", False),
    ("delete.after", "delete", True),
    ("condemn.before", "condemn", False),
    ("condemn.after", "condemn", True),
    ("free.before", "free", False),
    ("free.after", "free", True),
    ("absolve.before", "absolve", False),
    ("absolve.after", "absolve", True),
    ("forget.before", "forget", False),
    ("forget.after", "forget", True),
    ("pin.before", "pin", False),
    ("pin.after", "pin", True),
    ("unpin.before", "unpin", False),
    ("unpin.after", "unpin", True),
]


def _everything(path: Path) -> str:
    """Return all rows but those of the clock."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = sorted(row[0] for row in names.fetchall())
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    connection.close()
    return json.dumps(rows, default=bytes.hex)


@pytest.mark.parametrize(("point", "doing", "stands"), DEATHS)
def test_a_method_lands_whole_or_not_at_all_when_its_process_is_killed(
    path: Path, point: str, doing: str, stands: bool
) -> None:
    store = open_run_store(path)
    ended(store, "over")
    ended(store, "deleted")
    store.delete_run(RunId("deleted"))
    run = claimed(store)
    blob = a_value(place=Place.BLOB, name="blob")
    store.commit([by(run, a_step("run", "a", value=blob), waits=(a_wait("run", "w"),))])
    store.send(a_message())
    store.send(a_message(None, at=NOW - timedelta(seconds=1)))
    store.condemn([digest("marked")])
    store.pin(PinRecord(id="old", at=NOW))
    store.close()
    before = _everything(path)

    done = subprocess.run(
        [sys.executable, "-c", DOING, str(path), doing],
        env={**os.environ, "PERDURE_CRASH_POINTS": f"{point}:1:kill"},
        capture_output=True,
        check=False,
    )

    assert done.returncode == -9, done.stderr
    assert (_everything(path) != before) == stands


@pytest.mark.parametrize("point", ["store.creating", "store.created"])
def test_a_store_whose_making_was_killed_is_made_by_the_next(path: Path, point: str) -> None:
    code = f"from perdure_storage.connect import open_run_store; open_run_store({str(path)!r})"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PERDURE_CRASH_POINTS": f"{point}:1:kill"},
        check=False,
    )

    assert done.returncode == -9
    store = open_run_store(path)
    assert store.create_run(a_run(), a_plan()) is not None
    store.close()


# --- queues --------------------------------------------------------------------------------------
@pytest.mark.parametrize("fits", [False, True])
def test_whose_turn_it_is_in_a_queue_is_read_by_index(store: SqlRunStore, fits: bool) -> None:
    statements = store.queues._statements

    def plan_of(statement: Statement) -> str:
        return _plan(store, statement.sql, tuple(None for _ in statement.names))

    lines, line = plan_of(statements.lines(fits=fits)), plan_of(statements.line(fits=fits))
    woken = plan_of(statements.woken(fits=fits))

    # From key to key, and to the first of each, by the index: no line is read as a whole.
    assert "ix_run_line (queue=? AND limit_key>?)" in lines
    assert "ix_run_line (queue=? AND limit_key=?)" in lines
    assert "ix_run_key_started (queue=? AND limit_key=?" in lines
    assert "ix_run_line (queue=? AND limit_key=?)" in line
    assert "ix_run_waiting" in woken
    assert "TEMP B-TREE" not in line
    for plan in (lines, line, woken):
        assert "SCAN run" not in plan
        assert "ix_run_by_status" not in plan


def test_runs_outside_of_queues_are_found_past_those_that_wait_in_one(store: SqlRunStore) -> None:
    statement = store._statements.claimable(fits=False, queues=True)

    plan = _plan(store, statement.sql, tuple(None for _ in statement.names))

    assert "ix_run_queued_freely" in plan


def test_what_is_taken_of_a_queue_is_counted_by_index(store: SqlRunStore) -> None:
    statements = store.queues._statements

    def plan_of(statement: Statement) -> str:
        return _plan(store, statement.sql, tuple(None for _ in statement.names))

    assert "INDEX ix_run_slot (queue=?)" in plan_of(statements.count_running)
    assert "COVERING INDEX ix_run_started (queue=? AND" in plan_of(statements.count_starts)
    assert "COVERING INDEX ix_run_started (queue=? AND" in plan_of(statements.find_start)
    assert "ix_run_line (queue=?)" in plan_of(statements.count_waiting)
    assert "ix_run_line (queue>?)" in plan_of(statements.queues_in_line)
    assert "ix_run_only_one (queue=? AND dedup_key=?)" in plan_of(store._statements.find_only_one)
