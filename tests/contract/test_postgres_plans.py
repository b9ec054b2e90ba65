"""How PostgreSQL finds what is asked for in a store that many runs have gone through."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
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
    a_step,
    an_owner,
    by,
    claimed,
)
from perdure_storage.database import Transaction
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Release, RunId, RunQuery, RunRecord
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.statement import Statement

pytestmark = pytest.mark.postgres

STEPS = int(os.environ.get("PERDURE_TEST_STEPS", "20000"))
STEPS_OF_RUN = 10
LIVE_OF = 1000
"""One run of so many is not over yet."""
_RUN = RunId("run")
_SCAN = re.compile(r"Seq Scan on (\w+)")
_GROWN = {"run", "step", "event"}


@pytest.fixture(scope="module")
def filled(postgres_server: str) -> Iterator[SqlRunStore]:
    """Yield a store with many runs, nearly all of which are over."""
    with empty_schema(postgres_server) as url:
        store = open_run_store(url)
        run = claimed(store, plan=a_plan("plan", "code"), tags={"a": "b"})
        store.commit([by(run, a_step("run", "s"))])
        with psycopg.connect(url, autocommit=True) as connection:
            fill(connection)
        yield store
        store.close()


def fill(connection: psycopg.Connection[Any]) -> None:
    """Copy the one run, its step and its events."""
    numbers = f"generate_series(1, {STEPS // STEPS_OF_RUN}) AS number"
    status = (
        f"CASE WHEN number % {LIVE_OF} = 1 THEN 'QUEUED' WHEN number % {LIVE_OF} = 2 THEN 'WAITING'"
        " ELSE 'SUCCEEDED' END"
    )
    copy(
        connection, "run", numbers,
        id="'run-' || number", status=status, owner="NULL", owner_token="NULL",
        created_at_us="created_at_us + number",
    )  # fmt: skip
    copy(connection, "event", numbers, run_id="'run-' || number")
    steps = f"{numbers}, generate_series(1, {STEPS_OF_RUN}) AS step_number"
    copy(connection, "step", steps, run_id="'run-' || number", step_id="'s' || step_number")
    connection.execute("ANALYZE")


def copy(connection: psycopg.Connection[Any], table: str, numbers: str, **changed: str) -> None:
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
    found = connection.execute(f"{query} AND table_schema = current_schema()", (table,)).fetchall()
    names = [row[0] for row in found]
    values = ", ".join(changed.get(name, f"{table}.{name}") for name in names)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}, {numbers}"
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what is asked from now on, with its arguments."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    arguments = Transaction._arguments

    def note(self: Transaction, statement: Statement, given: dict[str, object]) -> tuple[Any, ...]:
        found = arguments(self, statement, given)
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
    "commit": lambda store: store.commit([by(store.get_run(_RUN), a_step("run", "t"))]),
    "one run": lambda store: store.find_run(RunId("run-7")),
    "steps": lambda store: store.list_steps(RunId("run-7")),
    "histories": lambda store: store.histories([RunId("run-7"), RunId("run-8")]),
    "events": lambda store: store.list_events(RunId("run-7")),
    "messages": lambda store: store.messages(RunId("run-7"), ["go"]),
    "signal": lambda store: store.send(a_message()),
    "newest runs": lambda store: store.list_runs(RunQuery(limit=50)),
    "runs of a status": lambda store: store.list_runs(RunQuery(status=(RunStatus.FAILED,))),
    "runs of a workflow": lambda store: store.list_runs(RunQuery(workflow="flow", limit=50)),
    "a page of runs": lambda store: store.list_runs(RunQuery(after=RunId("run-9"), limit=50)),
    "runs since": lambda store: store.list_runs(RunQuery(since=NOW, limit=50)),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", QUESTIONS)
def test_no_table_that_grows_is_read_whole(
    filled: SqlRunStore, asked: list[tuple[str, tuple[Any, ...]]], what: str
) -> None:
    begun = time.perf_counter()
    QUESTIONS[what](filled)
    took_ms = (time.perf_counter() - begun) * 1000
    questions = list(asked)

    scanned: dict[str, str] = {}

    def explain(transaction: Transaction) -> None:
        for sql, arguments in questions:
            rows = transaction._connection.execute(f"EXPLAIN {sql}", arguments).fetchall()
            plan = "\n".join(row[0] for row in rows)
            scanned.update(dict.fromkeys(_GROWN.intersection(_SCAN.findall(plan)), plan))

    assert questions
    filled.database.read(explain)
    print(f"{what}: {took_ms:.1f} ms among {STEPS:,} steps")
    assert not scanned, "\n\n".join(scanned.values())
