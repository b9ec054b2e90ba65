"""What stores of triggers do beyond the contract: many at once, and reading by index."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    NOW,
    a_message,
    a_trigger,
    an_arrival,
    an_owner,
    arrived,
    by,
    created,
    watched,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunEnd, RunId, RunQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase
from perdure_storage.trigger_records import (
    ArrivalQuery,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)

_replace = msgspec.structs.replace

TRIGGERS = ("a", "b", "c", "d")
KEYS = 24
_DONE = RunEnd(status=RunStatus.SUCCEEDED)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlRunStore]:
    store = open_run_store(tmp_path / "perdure.db")
    yield store
    store.close()


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[SqlRunStore]]:
    """Return four clients of one PostgreSQL."""
    stores = [open_run_store(postgres_url) for _ in range(4)]
    yield stores
    for store in stores:
        store.close()


def at_once(works: Sequence[Callable[[], int]]) -> list[int]:
    """Do works at the same time, each in a thread; return what each told."""
    told: list[int] = []
    gate = threading.Barrier(len(works))

    def do(work: Callable[[], int]) -> None:
        gate.wait(30)
        told.append(work())

    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(told) == len(works), "one of them did not come to its end"
    return told


# --- many who bring the same ---------------------------------------------------------------------
def bring_everything(store: RunStore, number: int) -> int:
    """Bring every arrival of every trigger, as one of many; return how many runs were ours.

    Every other one moves its trigger, so that cursors of several are written over each other.
    """
    ours = 0
    for n in range(KEYS):
        key = f"{(n + number * 5) % KEYS:02}"
        batch = []
        for name in TRIGGERS[::-1] if number % 2 else TRIGGERS:
            read = store.triggers.get_trigger(name)
            moved = _replace(read, state=f"{number} {key}")
            batch.append(arrived(moved, key, run=f"{name}-{number}", moves=n % 2 == 0))
        while batch:
            report = store.triggers.accept(batch)
            ours += len(report.made)
            assert {refusal.kind for refusal in report.refused.values()} <= {"stale"}
            again = {name for name in report.refused if (name, key) not in report.known}
            batch = [_read_again(store, each) for each in batch if each.trigger.name in again]
    return ours


def _read_again(store: RunStore, change: TriggerChange) -> TriggerChange:
    read = store.triggers.get_trigger(change.trigger.name)
    return _replace(change, trigger=_replace(read, state=change.trigger.state))


def check_each_counted_once(store: RunStore, told: list[int]) -> None:
    """Say whether each key of each trigger has one row and one run, numbered without a gap."""
    assert sum(told) == len(TRIGGERS) * KEYS
    assert len(store.list_runs(RunQuery(limit=10_000))) == sum(told)
    for name in TRIGGERS:
        query = ArrivalQuery(trigger=name, limit=10_000, oldest_first=True)
        arrivals = store.triggers.list_arrivals(query)
        assert [each.seq for each in arrivals] == list(range(1, KEYS + 1))
        assert Counter(each.key for each in arrivals) == Counter(f"{n:02}" for n in range(KEYS))
        named = {str(each.run_id) for each in arrivals}
        assert {run.id for run in store.list_runs(RunQuery(trigger=name, limit=10_000))} == named


BRINGER = """
import sys
from perdure_storage.connect import open_run_store
from tests.contract.test_trigger_stores import bring_everything
store = open_run_store(sys.argv[1])
sys.stdin.read(1)
print(bring_everything(store, int(sys.argv[2])))
"""


def test_arrivals_that_four_processes_bring_count_once(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    store = open_run_store(path)
    for name in TRIGGERS:
        watched(store, name)
    bringers = [
        subprocess.Popen(
            [sys.executable, "-c", BRINGER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]

    told = [int(each.communicate("x")[0]) for each in bringers]

    check_each_counted_once(store, told)
    store.close()


@pytest.mark.postgres
def test_arrivals_that_four_bring_to_postgres_count_once(stores: list[SqlRunStore]) -> None:
    for name in TRIGGERS:
        watched(stores[0], name)

    told = at_once(
        [
            lambda store=store, number=number: bring_everything(store, number)  # type: ignore[misc]
            for number, store in enumerate(stores)
        ]
    )

    check_each_counted_once(stores[0], told)


# --- pausing, registering and removing meanwhile -------------------------------------------------
@pytest.mark.postgres
def test_pause_lets_no_arrival_through_and_resume_leaves_none_behind(
    stores: list[SqlRunStore],
) -> None:
    each_brings = 60
    watched(stores[0], "a")
    bringing = threading.Semaphore(0)

    def bring(store: SqlRunStore, number: int) -> int:
        for n in range(each_brings):
            key = f"{number}-{n}"
            while True:
                read = store.triggers.get_trigger("a")
                put_off = an_arrival(key, trigger="a", decision="deferred")
                fired = arrived(read, key, moves=False)
                change = _replace(fired, arrivals=(put_off,), runs=()) if read.paused else fired
                if store.triggers.accept([change]).accepted:
                    break
        bringing.release()
        return each_brings

    def turn(store: SqlRunStore) -> int:
        turns = 0
        while not bringing.acquire(blocking=False):  # until one of them has nothing left
            read = _turned(store, paused=True)
            last = _newest(store, "fired")
            store.triggers.list_arrivals(ArrivalQuery(trigger="a", decision="deferred"))
            assert _newest(store, "fired") == last, "it was told to be paused"
            _decide_all(store, read)
            assert _newest(store, "deferred") == 0, "nobody decides about it any more"
            turns += 1
        return turns

    at_once([lambda: turn(stores[0]), *(lambda n=n: bring(stores[n], n) for n in (1, 2, 3))])  # type: ignore[misc]

    found = stores[0].triggers.list_arrivals(ArrivalQuery(trigger="a", limit=10_000))
    assert len(found) == 3 * each_brings
    assert {arrival.decision for arrival in found} <= {"fired", "skipped"}


def _turned(store: SqlRunStore, *, paused: bool) -> TriggerRecord:
    """Pause a trigger, or let it go on; return it as it is then."""
    while True:
        read = store.triggers.get_trigger("a")
        report = store.triggers.accept([TriggerChange(trigger=_replace(read, paused=paused))])
        if report.accepted:
            return report.accepted["a"]


def _newest(store: SqlRunStore, decision: str) -> int:
    """Return the number of the newest arrival of which that was decided, 0 if there is none."""
    query = ArrivalQuery(trigger="a", decision=decision, limit=1)
    return next((found.seq for found in store.triggers.list_arrivals(query)), 0)


def _decide_all(store: SqlRunStore, read: TriggerRecord) -> None:
    """Let a paused trigger go on, with all that was put off decided in the same change."""
    while True:
        query = ArrivalQuery(trigger="a", decision="deferred", limit=10_000)
        decided = tuple(
            _replace(a, decision="skipped") for a in store.triggers.list_arrivals(query)
        )
        going = TriggerChange(trigger=_replace(read, paused=False), revised=decided)
        if store.triggers.accept([going]).accepted:
            return
        read = store.triggers.get_trigger("a")


@pytest.mark.postgres
def test_who_registers_brings_takes_and_removes_at_once_locks_nobody_out(
    stores: list[SqlRunStore], caplog: pytest.LogCaptureFixture
) -> None:
    rounds = 25
    for store in stores:
        store.register(an_owner(f"o{stores.index(store)}"), 3600)

    def register(store: SqlRunStore) -> int:
        for n in range(rounds):
            for name in TRIGGERS[::-1]:
                old = store.triggers.find_trigger(name) or a_trigger(name)
                new = _replace(old, digest=f"v1:{n}", listens=True, watches_runs=n % 2 == 0)
                store.triggers.register(TriggerChange(trigger=new))
        return rounds

    def bring(store: SqlRunStore) -> int:
        for n in range(rounds):
            found = store.triggers.list_triggers(TriggerQuery())
            ends = [end.id for end in store.triggers.ends()]
            changes = [arrived(each, f"{n}", run=each.name, moves=n % 2 == 0) for each in found]
            store.triggers.accept(changes[::-1], ends)
        return rounds

    def listen_and_remove(store: SqlRunStore) -> int:
        for n in range(rounds):
            store.triggers.take_sources("o2")
            store.triggers.remove(TRIGGERS[n % len(TRIGGERS)])
            store.triggers.leave_sources("o2")
        return rounds

    def run(store: SqlRunStore) -> int:
        for n in range(rounds):
            pair = [created(store, f"{n}-{name}").id for name in "zy"]
            runs = store.claim_runs(pair, an_owner("o3"))
            assert len(store.commit([by(each, end=_DONE) for each in runs]).committed) == 2
        return rounds

    works = zip((register, bring, listen_and_remove, run), stores, strict=True)
    told = at_once([lambda w=work, s=store: w(s) for work, store in works])  # type: ignore[misc]

    assert told == [rounds] * 4
    assert "deadlock" not in caplog.text


@pytest.mark.postgres
def test_source_has_one_listener_though_four_take_at_once(stores: list[SqlRunStore]) -> None:
    for number, store in enumerate(stores):
        store.register(an_owner(f"o{number}"), 3600)
    for n in range(20):
        watched(stores[0], f"t{n:02}", listens=True)
    held: dict[int, list[str]] = {}

    def take(store: SqlRunStore, number: int) -> int:
        for _ in range(10):
            mine = store.triggers.take_sources(f"o{number}", limit=2)
            held[number] = [each.name for each in mine]
        return len(held[number])

    at_once(
        [lambda s=s, n=n: take(s, n) for n, s in enumerate(stores)]  # type: ignore[misc]
    )
    take(stores[0], 0)  # what two looked at in the same moment, the one left to the other

    assert sorted(itertools.chain(*held.values())) == [f"t{n:02}" for n in range(20)]


# --- no end is missed --------------------------------------------------------------------------
@pytest.mark.postgres
def test_trigger_that_begins_to_watch_misses_no_end_that_comes_after(
    stores: list[SqlRunStore],
) -> None:
    ender, watcher = stores[0], stores[1]
    ender.register(an_owner(), 3600)
    runs = [ender.claim_run(created(ender, f"r{n}").id, an_owner()) for n in range(40)]
    after: list[RunId] = []

    def end() -> int:
        for run in runs:
            assert run is not None
            assert ender.commit([by(run, end=_DONE)]).committed
        return len(runs)

    def watch() -> int:
        watched(watcher, watches_runs=True)
        # What goes on once it is there ends after it.
        live = watcher.list_runs(RunQuery(status=(RunStatus.RUNNING,), limit=100))
        after.extend(run.id for run in live)
        return len(after)

    at_once([end, watch])

    told = [end.run_id for end in watcher.triggers.ends(1000)]
    assert set(after) <= set(told)
    assert len(told) == len(set(told))


@pytest.mark.postgres
def test_registration_waits_for_a_run_that_is_ending_and_looked_before(
    stores: list[SqlRunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    ender, watcher = stores[0], stores[1]
    ender.register(an_owner(), 3600)
    run = ender.claim_run(created(ender).id, an_owner())
    assert run is not None
    looked, go_on = threading.Event(), threading.Event()

    def wait(point: str) -> None:
        if point == "commit.in-transaction" and threading.current_thread().name == "ender":
            looked.set()
            assert go_on.wait(30)

    monkeypatch.setattr("perdure_storage.sql_commits.crash_point", wait)
    ending = threading.Thread(target=lambda: ender.commit([by(run, end=_DONE)]), name="ender")
    ending.start()
    assert looked.wait(30)
    watching = threading.Thread(target=lambda: watched(watcher, watches_runs=True))
    watching.start()

    watching.join(0.3)
    waited = watching.is_alive()
    go_on.set()
    watching.join(30)
    ending.join(30)

    assert waited, "it would be there before the end of which it was not told"
    assert watcher.triggers.get_trigger("landed").watches_runs


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


def test_what_is_asked_again_and_again_is_read_by_index(store: SqlRunStore) -> None:
    watched(store, listens=True, next_at=NOW)
    store.send(a_message(None, name="price"))

    due = _plans(store, lambda: store.triggers.due_triggers(NOW))
    first = _plans(store, store.triggers.next_due)
    sources = _plans(store, lambda: store.triggers.take_sources("one"))
    known = _plans(store, lambda: store.triggers.known("landed", ["a", "b"]))
    events = _plans(store, lambda: store.triggers.events_after(0, ["price"]))
    newest = _plans(store, store.triggers.newest_event)
    ends = _plans(store, store.triggers.ends)

    assert "SEARCH trigger USING INDEX ix_trigger_next (next_at_us>? AND next_at_us<?)" in due
    assert "ix_trigger_next" in first
    assert "USING INDEX ix_trigger_listening" in sources
    assert "SEARCH arrival USING INDEX sqlite_autoindex_arrival_1 (trigger=? AND key=?)" in known
    assert "ix_message_receiver (receiver=? AND name=? AND id>?)" in events
    assert "SEARCH message" in newest
    assert "SCAN run_end" in ends  # by its number, as far as the page goes
    assert "TEMP B-TREE" not in sources + events + ends


def test_lists_of_triggers_arrivals_and_runs_are_read_by_index(store: SqlRunStore) -> None:
    store.triggers.accept([arrived(watched(store), "a.csv")])
    page = ArrivalQuery(trigger="landed", beyond=7)
    held = ArrivalQuery(trigger="landed", decision="held", oldest_first=True)

    triggers = _plans(store, lambda: store.triggers.list_triggers(TriggerQuery(after="a")))
    arrivals = _plans(store, lambda: store.triggers.list_arrivals(page))
    decided = _plans(store, lambda: store.triggers.list_arrivals(held))
    runs = _plans(store, lambda: store.list_runs(RunQuery(trigger="landed")))

    assert triggers == "SEARCH trigger USING INDEX sqlite_autoindex_trigger_1 (name>?)"
    assert arrivals == "SEARCH arrival USING INDEX ix_arrival_seq (trigger=? AND seq<?)"
    assert decided == "SEARCH arrival USING INDEX ix_arrival_decision (trigger=? AND decision=?)"
    assert "SEARCH run USING INDEX ix_run_by_trigger (trigger=?)" in runs
    assert "TEMP B-TREE" not in arrivals + decided + runs
