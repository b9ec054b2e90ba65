"""`perdure up` dies where it makes runs of schedules: each nominal time has exactly one run."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

import perdure
from perdure.client import Perdure
from perdure.scheduling import ScheduleHandle
from perdure.target import load_target
from perdure_storage.contract_samples import an_owner, built, by
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunEnd, RunQuery, RunRecord

TICKS = int(os.environ.get("PERDURE_TEST_TICKS", "3"))
"""Nominal times that pass after the last death, of each schedule."""
FILLED = int(os.environ.get("PERDURE_TEST_FILLED", "6"))
"""Nominal times of a backfill."""
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
    return stage.start(*words, crash=crash)


def schedules(stage: Stage, client: Perdure, **more: Any) -> list[ScheduleHandle]:
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
            **{"overlap": "allow(max=1000)", "catchup": "all(max=1000)", **more},
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
    tell_figures(ticks=len(runs))


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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_runs_of_one_concurrency_key_never_overlap_though_one_of_two_that_serve_is_killed(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    url = "" if store == "sqlite" else request.getfixturevalue("postgres_url")
    stage = Stage(tmp_path, url)
    try:
        with stage.open() as client:
            handles = schedules(stage, client, concurrency="one", overlap="queue_all(1000)")

            first, _ = serve(stage, "fire.after:2:kill"), serve(stage)
            assert stage.finish(first)[0] == -signal.SIGKILL
            serve(stage)
            runs = enough(client, len(NAMES) * TICKS)

            for handle in handles:
                handle.pause()
            assert {run.schedule for run in runs} == set(NAMES)
            for before, after in pairwise(sorted(runs, key=lambda run: run.created_at)):
                assert before.finished_at is not None
                assert before.finished_at <= after.created_at, f"{before.id} and {after.id} overlap"
    finally:
        stage.end()


def enough(client: Perdure, number: int) -> list[RunRecord]:
    """Wait until so many runs have succeeded, and return them."""
    over = RunQuery(status=(RunStatus.SUCCEEDED,), limit=10_000)
    store = client.runtime.store
    wait_until(lambda: len(store.list_runs(over)) >= number, 90, "too few runs ended")
    return store.list_runs(over)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("point", "reprocess"),
    [("fire.before", "none"), ("fire.in-transaction", "all"), ("fire.after", "failed")],
)
def test_backfill_that_is_killed_and_begun_again_makes_one_run_of_each_time(
    stage: Stage, point: str, reprocess: str
) -> None:
    with stage.open() as client:
        (handle, *_) = schedules(stage, client)
        begin = handle.definition.schedule.before(client.runtime.clock.now())
        assert begin is not None
        first, last = (begin - n * timedelta(seconds=1) for n in (FILLED, 1))
        if reprocess != "none":
            handle.backfill(first, last, id="before", max_active=None)
            end_all(client, RunStatus.FAILED)
        words = ("backfill", handle.name, "--from", first.isoformat(), "--to", last.isoformat())
        words = (*words, "--reprocess", reprocess, "--max-active", "1000")
        if reprocess != "none":
            words = (*words, "--id", "one")

        killed = play(stage, *words, crash=f"{point}:3:kill")
        assert stage.finish(killed)[0] == -signal.SIGKILL
        made = len(client.runtime.store.list_runs(RunQuery(limit=10_000)))
        code, said = stage.finish(play(stage, *words))

        assert code == 0, said
        assert made < FILLED * (1 + (reprocess != "none")), "it was killed too late to say anything"
        check_filled(client, handle, "" if reprocess == "none" else "-again-one")


def play(stage: Stage, *words: str, crash: str = "") -> subprocess.Popen[str]:
    verb = ("-m", "perdure", "schedule", *words, "--store", stage.store)
    return stage.start(*verb, crash=crash)


def end_all(client: Perdure, status: RunStatus) -> None:
    """Let all runs end, as who drives them would."""
    store, owner = client.runtime.store, an_owner()
    store.register(owner, 3600)
    ids = [run.id for run in store.list_runs(RunQuery(limit=10_000))]
    runs = store.claim_runs(ids, owner, built=dict.fromkeys(ids, built()))
    store.commit([by(run, end=RunEnd(status=status)) for run in runs])


def check_filled(client: Perdure, handle: ScheduleHandle, suffix: str) -> None:
    """Say whether each time has exactly one run of the backfill, and its row names it."""
    rows = [tick for tick in handle.ticks(10_000) if tick.why == "backfill"]
    named = [str(tick.run_id) for tick in rows]
    times = handle.definition.schedule
    assert named == [f"{times.run_id(tick.at)}{suffix}" for tick in rows]
    assert len(set(named)) == len(named) == FILLED
    runs = [run.id for run in client.runtime.store.list_runs(RunQuery(limit=10_000))]
    assert sorted(run_id for run_id in runs if run_id.endswith(suffix)) == sorted(named)
