"""What stores of schedules do beyond the contract: many dispatchers, and reading by index."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    NOW,
    a_tick,
    an_owner,
    an_unplanned_run,
    by,
    created,
    fired,
    registered,
)
from perdure_storage.errors import RunConflict
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunEnd, RunId, RunQuery
from perdure_storage.schedule_records import ScheduleChange, ScheduleQuery, TickQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase

_replace = msgspec.structs.replace

SCHEDULES = ("a", "b", "c", "d")
TICKS = 25
_TICK_S = 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlRunStore]:
    store = open_run_store(tmp_path / "perdure.db")
    yield store
    store.close()


# --- many dispatchers ----------------------------------------------------------------------------
def dispatch_to_the_end(store: RunStore) -> int:
    """Fire every tick of every schedule, as one of many dispatchers; return how many were ours."""
    end = NOW + timedelta(seconds=_TICK_S * TICKS)
    ours = 0
    while due := store.schedules.due(end, limit=3):
        batch = []
        for read in due:
            assert read.next_at is not None
            number = int(read.state)
            is_last = number == TICKS - 1
            next_at = None if is_last else read.next_at + timedelta(seconds=_TICK_S)
            run = an_unplanned_run(f"{read.name}-{number}", schedule=read.name)
            tick = a_tick(read.name, read.next_at, decision="fire", run_id=run.id)
            new = _replace(read, state=str(number + 1), next_at=next_at)
            batch.append(ScheduleChange(schedule=new, ticks=(tick,), runs=(run,)))
        report = store.schedules.fire(batch)
        assert {refusal.kind for refusal in report.refused.values()} <= {"stale"}
        ours += len(report.fired)
        assert len(report.made) == len(report.fired)
    return ours


def check_each_fired_once(store: RunStore, told: list[int]) -> None:
    wanted = {f"{name}-{number}" for name in SCHEDULES for number in range(TICKS)}
    runs = store.list_runs(RunQuery(limit=10_000))
    assert Counter(run.id for run in runs) == Counter(wanted)
    assert sum(told) == len(wanted)
    for name in SCHEDULES:
        ticks = store.schedules.list_ticks(TickQuery(schedule=name, limit=10_000))
        assert [tick.run_id for tick in ticks] == [f"{name}-{n}" for n in reversed(range(TICKS))]
        assert store.schedules.get_schedule(name).version == TICKS + 1


DISPATCHER = """
import sys
from perdure_storage.connect import open_run_store
from tests.contract.test_schedule_stores import dispatch_to_the_end
store = open_run_store(sys.argv[1])
sys.stdin.read(1)
print(dispatch_to_the_end(store))
"""


def test_dispatchers_in_four_processes_fire_each_tick_once(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    store = open_run_store(path)
    for name in SCHEDULES:
        registered(store, name, state="0")
    dispatchers = [
        subprocess.Popen(
            [sys.executable, "-c", DISPATCHER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]

    told = [int(each.communicate("x")[0]) for each in dispatchers]

    check_each_fired_once(store, told)
    store.close()


def _at_once(stores: list[SqlRunStore], work: Callable[[SqlRunStore], int]) -> list[int]:
    told: list[int] = []
    threads = [
        threading.Thread(target=lambda store=store: told.append(work(store))) for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


@pytest.mark.postgres
def test_dispatchers_on_postgres_fire_each_tick_once(postgres_url: str) -> None:
    stores = [open_run_store(postgres_url) for _ in range(4)]
    for name in SCHEDULES:
        registered(stores[0], name, state="0")

    told = _at_once(stores, dispatch_to_the_end)

    assert len(told) == 4
    check_each_fired_once(stores[0], told)
    for store in stores:
        store.close()


def fire_under_one_key(store: RunStore) -> int:
    """Fire schedules of one key, as one of many dispatchers; return how many runs were ours."""
    ours = 0
    for turn in range(TICKS):
        for name in SCHEDULES:
            read = store.schedules.get_schedule(name)
            seen = store.schedules.runs_of(name, concurrency="warehouse")
            assert len(seen.live) <= 1
            if seen.live:
                with suppress(RunConflict):  # another one was first
                    store.request_cancel(seen.live[0])
                continue
            run = an_unplanned_run(f"{name}-{turn}-{read.version}", schedule=name)
            report = store.schedules.fire([fired(read, run, key=seen.key)])
            ours += len(report.made)
    return ours


@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_dispatchers_that_fire_under_one_key_at_once_never_have_two_runs(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at: Path | str = tmp_path / "perdure.db"
    at = at if place == "sqlite" else str(request.getfixturevalue("postgres_url"))
    stores = [open_run_store(at) for _ in range(4)]
    for name in SCHEDULES:
        registered(stores[0], name, concurrency="warehouse")

    told = _at_once(stores, fire_under_one_key)

    assert len(told) == 4
    assert sum(told) == len(stores[0].list_runs(RunQuery(limit=10_000))) > TICKS
    for store in stores:
        store.close()


@pytest.mark.postgres
def test_runs_that_end_and_ticks_that_cancel_them_do_not_lock_each_other_out(
    postgres_url: str,
) -> None:
    rounds = 20
    first, second = open_run_store(postgres_url), open_run_store(postgres_url)
    names = ("a", "b")
    for name in names:
        registered(first, name)
    first.register(an_owner(), 3600)
    ids = [RunId(f"{name}-{n}") for n in range(rounds) for name in names]
    for run_id in ids:
        created(first, run_id)

    def cancel(store: SqlRunStore) -> int:
        for n in range(rounds):
            reads = [store.schedules.get_schedule(name) for name in names]
            # Each names its runs in another order than their ids.
            cancels = (RunId(f"b-{n}"), RunId(f"a-{n}"))
            batch = [ScheduleChange(schedule=read, cancels=cancels) for read in reversed(reads)]
            assert not store.schedules.fire(batch).refused
        return rounds

    def end(store: SqlRunStore) -> int:
        for n in range(rounds):
            pair = store.claim_runs([RunId(f"{name}-{n}") for name in names], an_owner())
            store.commit([by(run, end=RunEnd(status=RunStatus.CANCELLED)) for run in pair])
        return rounds

    works = iter((cancel, end))

    assert _at_once([first, second], lambda store: next(works)(store)) == [rounds, rounds]
    first.close()
    second.close()


# --- reading by index ----------------------------------------------------------------------------
def _plans(store: SqlRunStore, ask: Callable[[], object]) -> str:
    """Return how SQLite goes about the statements of a call."""
    traced: list[str] = []
    database = store.database
    assert isinstance(database, SqliteDatabase)
    with database.connections.lent() as driver:
        driver.set_trace_callback(traced.append)
    ask()
    driver.set_trace_callback(None)
    asked = [sql for sql in traced if sql.startswith(("SELECT", "DELETE"))]
    assert asked
    rows = [row for sql in asked for row in driver.execute(f"EXPLAIN QUERY PLAN {sql}")]
    return "\n".join(row[3] for row in rows)


def test_what_a_dispatcher_asks_is_read_by_index(store: SqlRunStore) -> None:
    schedule = registered(store, wakes_below=3)
    store.schedules.fire([fired(schedule, an_unplanned_run())])

    due = _plans(store, lambda: store.schedules.due(NOW))
    first = _plans(store, store.schedules.next_due)
    runs = _plans(store, lambda: store.schedules.runs_of("nightly", since=NOW))

    assert "SEARCH schedule USING INDEX ix_schedule_next (next_at_us>? AND next_at_us<?)" in due
    # That index holds only the schedules that wait for a run to end.
    assert "SCAN schedule" not in due.replace("SCAN schedule USING INDEX ix_schedule_waiting", "")
    assert "ix_run_of_schedule (schedule=? AND status=?)" in due
    assert "SEARCH schedule USING INDEX sqlite_autoindex_schedule_1 (name=?)" in due
    assert "ix_schedule_next" in first
    assert "ix_run_of_schedule (schedule=? AND status=?)" in runs
    assert "ix_run_of_schedule (schedule=? AND status=? AND finished_at_us>?)" in runs
    assert "ix_run_by_schedule" not in runs
    assert "SCAN run" not in due + runs


def test_what_a_dispatcher_asks_about_a_concurrency_key_is_read_by_index(
    store: SqlRunStore,
) -> None:
    registered(store, concurrency="warehouse", wakes_below=1, waits_since=NOW)

    due = _plans(store, lambda: store.schedules.due(NOW))
    runs = _plans(store, lambda: store.schedules.runs_of("nightly", concurrency="warehouse"))

    line = "SEARCH earlier USING COVERING INDEX ix_schedule_line (concurrency=? AND waits_since_us<"
    assert line in due
    assert "SEARCH member USING COVERING INDEX ix_schedule_line (concurrency=?" in due
    assert "SEARCH schedule USING COVERING INDEX ix_schedule_line (concurrency=?" in runs
    assert "ix_run_of_schedule (schedule=? AND status=?)" in runs
    assert "SCAN run" not in due + runs


def test_lists_of_schedules_ticks_and_runs_are_read_by_index(store: SqlRunStore) -> None:
    schedule = registered(store)
    store.schedules.fire([fired(schedule, an_unplanned_run())])
    after = ScheduleQuery(after="a", paused=False, module="m")
    page = TickQuery(schedule="nightly", since=NOW, before=NOW)

    schedules = _plans(store, lambda: store.schedules.list_schedules(after))
    ticks = _plans(store, lambda: store.schedules.list_ticks(page))
    runs = _plans(store, lambda: store.list_runs(RunQuery(schedule="nightly")))

    assert schedules == "SEARCH schedule USING INDEX sqlite_autoindex_schedule_1 (name>?)"
    assert ticks == "SEARCH tick USING PRIMARY KEY (schedule=? AND at_us>? AND at_us<?)"
    assert "SEARCH run USING INDEX ix_run_by_schedule (schedule=?)" in runs
    assert "TEMP B-TREE" not in runs


def test_old_ticks_are_found_schedule_by_schedule(store: SqlRunStore) -> None:
    registered(store)
    statement = store.schedules._statements.forget_ticks
    arguments = tuple(1 for _ in statement.names)

    def explain(transaction: object) -> list[str]:
        rows = transaction._connection.execute(  # type: ignore[attr-defined]
            f"EXPLAIN QUERY PLAN {statement.sql}", arguments
        )
        return [row[3] for row in rows]

    plan = "\n".join(store.database.read(explain))

    assert "SEARCH tick USING PRIMARY KEY (schedule=? AND at_us<?)" in plan
    assert "SCAN tick" not in plan
