"""`perdure up` dies where it brings events and ends of runs to triggers: each is told once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure_scheduler.conditions import Event, RunFinished
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_registry import TriggerRegistry
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.records import RunQuery
from perdure_storage.trigger_records import ArrivalQuery, ArrivalRecord

EVENTS = int(os.environ.get("PERDURE_TEST_EVENTS", "6"))
FLOWS = """
from perdure import task, workflow

@task
def note() -> None:
    pass

@workflow
def first() -> None:
    return note.bind()

@workflow
def second() -> None:
    return note.bind()
"""


def serve(stage: Stage, crash: str = "") -> subprocess.Popen[str]:
    words = ("-m", "perdure", "up", "--executor", "inline", "--store", stage.store)
    return stage.start(*words, crash=crash)


def register(stage: Stage, client: Perdure) -> None:
    """Register one trigger of an event, and one of the ends of its runs."""
    flows = stage.folder / "flows.py"
    flows.write_text(FLOWS)
    runtime = client.runtime
    registry = TriggerRegistry(runtime.store, runtime.values, runtime.clock)
    for name, on, workflow in (
        ("go", Event(name="go"), "first"),
        ("then", RunFinished(workflow="first"), "second"),
    ):
        run = RunTemplate(workflow=workflow, origin=f"{flows}:{workflow}")
        registry.register(Trigger(name=name, on=on, run=run))


def emit(client: Perdure, count: int) -> None:
    for _ in range(count):
        client.emit("go")


def arrivals(client: Perdure, name: str) -> list[ArrivalRecord]:
    return client.runtime.store.triggers.list_arrivals(ArrivalQuery(trigger=name, limit=10_000))


def check(client: Perdure, count: int) -> None:
    """Say whether each event, and the end of each run that it made, was told once."""
    store = client.runtime.store
    wait_until(lambda: len(arrivals(client, "then")) >= count, 120, "ends of runs are not told")
    wait_until(lambda: not store.list_runs(RunQuery(status=tuple(RUN_LIVE))), 60, "runs go on")
    wait_until(lambda: not store.triggers.ends(), 60, "ends of runs are told for ever")
    told = [*arrivals(client, "go"), *arrivals(client, "then")]
    assert Counter(each.decision for each in told) == {"fired": 2 * count}
    runs = store.list_runs(RunQuery(limit=10_000))
    assert sorted(run.id for run in runs) == sorted(str(each.run_id) for each in told)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    firsts = {run.id for run in runs if run.workflow == "first"}
    assert {each.key.rpartition("/")[2] for each in arrivals(client, "then")} == firsts
    tell_figures(events=count)


STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
KILLS = [
    # First it tells of events, then of ends.
    ("accept.in-transaction", 1, "sqlite"),
    ("accept.after", 1, "sqlite"),
    ("accept.after", 3, "sqlite"),
    # Runs end, and a trigger waits for their ends.
    ("terminal.before", 1, "sqlite"),
    ("commit.in-transaction", 1, "sqlite"),
    ("commit.in-transaction", 2, "sqlite"),
    ("commit.before-telling", 1, "sqlite"),
    ("terminal.after", 1, "sqlite"),
    # Where it is another transaction than SQLite's.
    pytest.param("accept.in-transaction", 1, "postgres", marks=pytest.mark.postgres),
    pytest.param("commit.in-transaction", 1, "postgres", marks=pytest.mark.postgres),
]


@pytest.fixture
def staged(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage of the store that the test asks for."""
    stage = Stage(tmp_path, "" if store == "sqlite" else request.getfixturevalue("postgres_url"))
    yield stage
    stage.end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("point", "at", "store"), KILLS)
def test_each_event_and_each_end_is_told_once_wherever_who_serves_is_killed(
    staged: Stage, point: str, at: int
) -> None:
    with staged.open() as client:
        register(staged, client)
        emit(client, EVENTS)

        killed = serve(staged, f"{point}:{at}:kill")
        assert staged.finish(killed)[0] == -signal.SIGKILL
        emit(client, EVENTS)
        serve(staged)

        check(client, 2 * EVENTS)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", STORES)
def test_two_that_serve_one_store_tell_nothing_twice_though_one_is_killed(staged: Stage) -> None:
    with staged.open() as client:
        register(staged, client)
        emit(client, EVENTS)

        first, _ = serve(staged, "accept.after:1:kill"), serve(staged)
        for _ in range(EVENTS):
            emit(client, 1)
        wait_until(lambda: first.poll() is not None or _all_told(client), 60, "nothing is told")
        serve(staged)

        check(client, 2 * EVENTS)


def _all_told(client: Perdure) -> bool:
    return len(arrivals(client, "then")) >= 2 * EVENTS
