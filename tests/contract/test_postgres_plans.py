"""How PostgreSQL finds what is asked for in a store that many runs have gone through."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.postgres import empty_schema

from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    a_plan,
    a_queue,
    a_save,
    a_step,
    a_whole_run,
    an_owner,
    an_unplanned_run,
    arrived,
    by,
    claimed,
    digest,
    fired,
    queued,
    registered,
    saved,
    watched,
)
from perdure_storage.database import Transaction
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Release, RunId, RunQuery, RunRecord
from perdure_storage.schedule_records import TickQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.statement import Statement
from perdure_storage.tables import metadata
from perdure_storage.trigger_records import ArrivalQuery

pytestmark = pytest.mark.postgres

STEPS = int(os.environ.get("PERDURE_TEST_STEPS", "60000"))
STEPS_OF_RUN = 5
LIVE_OF = 1000
"""One run of so many is not over yet."""
_LIVE, _ANY = RunId("live"), RunId("run-7")
_SCAN = re.compile(r"Seq Scan on (\w+)")
_OF_LIVE = "ix_run_(?:cancelling|driven|line|queued_freely|slot|waiting)"
_WHOLE = re.compile(rf"Index .*Scan .*using (?!{_OF_LIVE})\w+ on (\w+) +\(.*\n +Filter:")
"""An index without a condition: read whole, whatever is filtered then, unless only live runs are
in it."""
_OF_RUNS = {"attempt", "blob_ref", "event", "expansion", "message", "plan_ref", "save", "wait"}
_GROWN = {"run", "step", "plan", "arrival", "tick", *_OF_RUNS}


@pytest.fixture(scope="module")
def filled(postgres_server: str) -> Iterator[SqlRunStore]:
    """Yield a store with many runs, nearly all of which are over."""
    with empty_schema(postgres_server) as url:
        store = open_run_store(url)
        assert store.import_run(a_whole_run(), {}) is not None
        claimed(store, _LIVE, plan=a_plan("plan", "code"))
        store.queues.put_queue(
            a_queue("q", limit=5, limit_per_key=2, rate=100, window=timedelta(hours=1))
        )
        store.schedules.fire([fired(registered(store), an_unplanned_run("of-a-tick"))])
        store.triggers.accept([arrived(watched(store, events=("go",)), "a.csv")])
        with psycopg.connect(url, autocommit=True) as connection:
            fill(connection)
        yield store
        store.close()


def fill(connection: psycopg.Connection[Any]) -> None:
    """Copy the one run with all its rows, its tick and its arrival."""
    numbers = f"generate_series(1, {STEPS // STEPS_OF_RUN}) AS nth"
    status = (
        f"CASE WHEN nth % {LIVE_OF} = 1 THEN 'QUEUED' WHEN nth % {LIVE_OF} = 2 THEN 'WAITING'"
        " ELSE 'SUCCEEDED' END"
    )
    changes = {
        "run_id": "'run-' || nth",
        "id": "'run-' || nth",
        "plan_digest": "plan_digest || nth",
    }
    copy(connection, "plan", numbers, "true", digest="digest || nth")
    copy(
        connection, "run", numbers, "id = 'run'", changes,
        status=status, owner="NULL", owner_token="NULL",
        queue="CASE WHEN nth % 2 = 1 THEN NULL ELSE 'q' END",
        limit_key="'key-' || nth % 100",
        workflow="'flow-' || nth % 100",
        schedule="CASE WHEN nth % 3 = 0 THEN 'nightly' END",
        created_at_us="created_at_us + nth",
    )  # fmt: skip
    changes |= {"receiver": "'run-' || nth", "holder_id": "'run-' || nth"}
    changes |= {"digest": "digest || nth"}
    for table in sorted({"step", *_OF_RUNS}):
        whose = {"message": "receiver", "blob_ref": "holder_id"}.get(table, "run_id")
        copy(connection, table, numbers, f"{whose} = 'run'", changes)
    copy(connection, "tick", numbers, "true", at_us="at_us - nth")
    copy(connection, "arrival", numbers, "true", key="'key-' || nth", seq="seq + nth")
    connection.execute("UPDATE trigger SET newest = (SELECT max(seq) FROM arrival)")
    connection.execute("ANALYZE")


def copy(
    connection: psycopg.Connection[Any],
    table: str,
    numbers: str,
    which: str,
    changes: Mapping[str, str] = {},
    **more: str,
) -> None:
    """Insert these rows of a table once for each number; a number of its own is given anew."""
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
    found = connection.execute(f"{query} AND table_schema = current_schema()", (table,)).fetchall()
    names = [row[0] for row in found if (table, row[0]) != ("message", "id")]
    changed = {**changes, **more}
    values = ", ".join(changed.get(name, f"{table}.{name}") for name in names)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}, {numbers}"
        f" WHERE {which}"
    )


_DIGESTS = [digest("large7"), digest("nobody's")]


@pytest.fixture
def asked(
    filled: SqlRunStore, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what this store is asked from now on, with its arguments."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    arguments = Transaction._arguments

    def note(self: Transaction, statement: Statement, given: dict[str, object]) -> tuple[Any, ...]:
        found = arguments(self, statement, given)
        if self._terms is filled.database.terms:  # not what a store of another test is asked
            seen.append((statement.sql, found))
        return found

    monkeypatch.setattr(Transaction, "_arguments", note)
    return seen


def _claim(store: SqlRunStore) -> list[RunRecord]:
    store.register(an_owner("claims"), LEASE_S)
    return store.claim_runs([RunId("run-1")], an_owner("claims"))


def _release(store: SqlRunStore) -> object:
    (run,) = _claim(store)
    return store.release_runs([Release(run=run, to=RunStatus.QUEUED, wake_at=None, heard=0)])


QUESTIONS: dict[str, Callable[[SqlRunStore], object]] = {
    "runs to take on": lambda store: store.claimable(100, besides="me", offer={"cpus": 2.0}),
    "the next to wake": lambda store: store.next_wake({"cpus": 2.0}),
    "claim and release": _release,
    "requests": lambda store: store.requests("owner"),
    "renewal": lambda store: store.renew(an_owner(), LEASE_S),
    "commit": lambda store: store.commit([by(store.get_run(_LIVE), a_step("live", "t"))]),
    "one run": lambda store: store.find_run(_ANY),
    "steps": lambda store: store.list_steps(_ANY),
    "histories": lambda store: store.histories([_ANY, RunId("run-8")]),
    "events": lambda store: store.list_events(_ANY),
    "messages": lambda store: store.messages(_ANY, ["go"]),
    "signal": lambda store: store.send(a_message(_LIVE)),
    "newest runs": lambda store: store.list_runs(RunQuery(limit=50)),
    "runs of a status": lambda store: store.list_runs(RunQuery(status=(RunStatus.FAILED,))),
    "runs of a workflow": lambda store: store.list_runs(RunQuery(workflow="flow-7", limit=50)),
    "a page of runs": lambda store: store.list_runs(RunQuery(after=RunId("run-9"), limit=50)),
    "runs since": lambda store: store.list_runs(RunQuery(since=NOW, limit=50)),
    "runs of a schedule": lambda store: store.list_runs(RunQuery(schedule="nightly", limit=50)),
    "attempts": lambda store: store.list_attempts(_ANY),
    "saves": lambda store: store.list_saves(_ANY),
    "waits": lambda store: store.list_waits(_ANY),
    "graphs that steps gave": lambda store: store.list_expansions(_ANY),
    "save": lambda store: saved(store, store.get_run(_LIVE), a_save("t", run_id=_LIVE)),
    "a run in a queue": lambda store: queued(store, "new", dedup_key="once"),
    "cancel": lambda store: store.request_cancel(RunId("run-1001")),
    "open again": lambda store: store.reset_run(RunId("run-10")),
    "an event": lambda store: store.send(a_message(None, name="landed", dedup_key="again")),
    "old events": lambda store: store.forget_events(NOW - timedelta(days=1)),
    "how a queue stands": lambda store: store.queues.standing("q"),
    "schedules that are due": lambda store: store.schedules.due(NOW),
    "runs that a policy counts": lambda store: store.schedules.runs_of("nightly", since=NOW),
    "newest ticks": lambda store: store.schedules.newest_ticks(["nightly"]),
    "ticks": lambda store: store.schedules.list_ticks(TickQuery(schedule="nightly")),
    "old ticks": lambda store: store.schedules.forget_ticks(NOW - timedelta(days=1), limit=10),
    "known arrivals": lambda store: store.triggers.known("landed", ["key-3", "new"]),
    "newest arrivals": lambda store: store.triggers.newest_arrivals(["landed"]),
    "arrivals": lambda store: store.triggers.list_arrivals(ArrivalQuery(trigger="landed")),
    "arrivals decided": lambda store: store.triggers.list_arrivals(
        ArrivalQuery(trigger="landed", decision="failed")
    ),
    "an arrival": lambda store: store.triggers.accept(
        [arrived(store.triggers.get_trigger("landed"), "new")]
    ),
    "events for triggers": lambda store: store.triggers.events_after(3, ["go"]),
    "ends for triggers": lambda store: store.triggers.ends(),
    "what gc may take": lambda store: store.unreferenced(_DIGESTS, besides=[_ANY]),
    "marks of gc": lambda store: store.condemn(_DIGESTS),
    "a whole run": lambda store: store.whole_run(_ANY),
    "a run that goes": lambda store: store.delete_run(RunId("run-13")),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", QUESTIONS)
def test_no_table_that_grows_is_read_whole(
    filled: SqlRunStore, asked: list[tuple[str, tuple[Any, ...]]], what: str
) -> None:
    begun = time.perf_counter()
    QUESTIONS[what](filled)
    took_ms = (time.perf_counter() - begun) * 1000
    questions = list(asked)

    scanned = read_whole(filled, questions)

    assert questions
    print(f"{what}: {took_ms:.1f} ms among {STEPS:,} steps")
    assert not scanned, "\n\n".join(scanned.values())


def read_whole(
    store: SqlRunStore, questions: Iterable[tuple[str, Sequence[object]]]
) -> dict[str, str]:
    """Return the plans that read a table that grows whole, by its name."""
    scanned: dict[str, str] = {}

    def explain(transaction: Transaction) -> None:
        for sql, arguments in questions:
            rows = transaction._connection.execute(f"EXPLAIN {sql}", arguments).fetchall()
            plan = "\n".join(row[0] for row in rows)
            scanned.update(dict.fromkeys(_GROWN.intersection(_SCAN.findall(plan)), plan))
            scanned.update(dict.fromkeys(_WHOLE.findall(plan), plan))

    store.database.read(explain)
    return scanned


# As PostgreSQL asks itself when a row goes; of that EXPLAIN of a deletion tells nothing.
_REFERRERS = [
    f"SELECT 1 FROM ONLY {key.parent.table.name} x WHERE %s = {key.parent.name} FOR KEY SHARE OF x"
    for table in metadata.sorted_tables
    for key in sorted(table.foreign_keys, key=str)
]


@pytest.mark.parametrize("sql", _REFERRERS)
def test_row_that_goes_is_not_looked_for_in_all_that_could_refer_to_it(
    filled: SqlRunStore, sql: str
) -> None:
    scanned = read_whole(filled, [(sql, ["nobody's"])])

    assert not scanned, "\n\n".join(scanned.values())
