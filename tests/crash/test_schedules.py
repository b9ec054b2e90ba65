"""`perdure up` dies where it makes runs of schedules: each nominal time has exactly one run."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage

import perdure
from perdure.client import Perdure
from perdure.scheduling import ScheduleHandle
from perdure.target import load_target
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

TICKS = int(os.environ.get("PERDURE_TEST_TICKS", "3"))
"""Nominal times that pass after the last death, of each schedule."""
NAMES = ("a", "b", "c", "d")
FLOWS = """
from datetime import datetime
from perdure import task, workflow
from tests.crash.ledger import executing

@task
def note(at: datetime) -> None:
    with executing(at.isoformat()):
        pass

@workflow
def flow(at: datetime) -> None:
    return note.bind(at)
"""


def serve(stage: Stage, crash: str = "") -> subprocess.Popen[str]:
    words = ("-m", "perdure", "up", "--executor", "inline", "--store", stage.store)
    return stage.start(*words, crash=crash, PERDURE_BLOBS=stage.blobs)


def schedules(stage: Stage, client: Perdure) -> list[ScheduleHandle]:
    """Register schedules of which no time may be without a run, whoever dies and however long."""
    path = stage.folder / "flows.py"
    path.write_text(FLOWS)
    flow = load_target(f"{path}:flow")
    return [
        client.schedule(
            name,
            flow,
            interval="1s",
            inputs={"at": perdure.fire_time},
            overlap="allow(max=1000)",
            catchup="all(max=1000)",
        )
        for name in NAMES
    ]


def let_a_time_pass(client: Perdure) -> None:
    """Wait, while nobody serves, until a nominal time of each schedule has passed."""
    until = client.runtime.clock.now() + timedelta(seconds=1.2)
    wait_until(lambda: client.runtime.clock.now() > until, 30, "the clock stands still")


def run_on(client: Perdure, handles: list[ScheduleHandle]) -> None:
    """Let more ticks come, then no more, until all runs have ended."""
    wanted = {handle.name: len(handle.ticks()) + TICKS for handle in handles}

    def have_come() -> bool:
        return all(len(each.ticks()) >= wanted[each.name] for each in handles)

    wait_until(have_come, 60, "no ticks come")
    for handle in handles:
        handle.pause()
    live = RunQuery(status=(RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING))
    wait_until(lambda: not client.runtime.store.list_runs(live), 60, "runs do not end")


def check(stage: Stage, client: Perdure, handles: list[ScheduleHandle]) -> None:
    """Say whether each nominal time has one row, one run, and one execution of its step."""
    named, begun = [], []
    for handle in handles:
        fired = [tick for tick in handle.ticks(10_000)[::-1] if tick.why != "paused"]
        assert {tick.decision for tick in fired} == {"fire"}
        times = handle.definition.schedule
        passed = [fired[0].at, *times.between(fired[0].at, fired[-1].at)]
        assert [tick.at for tick in fired] == passed
        named += [str(tick.run_id) for tick in fired]
        begun += [(str(tick.run_id), tick.at.isoformat()) for tick in fired]
    runs = client.runtime.store.list_runs(RunQuery(limit=10_000))
    assert sorted(run.id for run in runs) == sorted(named)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    lines = [line for line in stage.ledger.lines() if line.event == "began"]
    assert sorted((line.run, line.note) for line in lines) == sorted(begun)
    print(f"{len(runs)} nominal times, each with one run")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", ["fire.before", "fire.in-transaction", "fire.after"])
def test_each_nominal_time_has_one_run_though_who_makes_them_is_killed(
    stage: Stage, point: str
) -> None:
    with stage.open() as client:
        handles = schedules(stage, client)

        killed = serve(stage, f"{point}:2:kill")
        assert stage.finish(killed)[0] == -signal.SIGKILL
        let_a_time_pass(client)
        serve(stage)
        run_on(client, handles)

        check(stage, client, handles)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_two_that_serve_one_store_double_no_nominal_time_though_one_is_killed(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    url = "" if store == "sqlite" else request.getfixturevalue("postgres_url")
    stage = Stage(tmp_path, url)
    try:
        with stage.open() as client:
            handles = schedules(stage, client)

            first, _ = serve(stage, "fire.after:2:kill"), serve(stage)
            assert stage.finish(first)[0] == -signal.SIGKILL
            serve(stage)
            run_on(client, handles)

            check(stage, client, handles)
    finally:
        stage.end()
