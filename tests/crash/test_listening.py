"""Files land while who listens for them is killed again and again: each has exactly one run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure.engine.ownership import is_seen_dead
from perdure_scheduler.arriving import TriggerState
from perdure_scheduler.conditions import Files
from perdure_scheduler.facts import event, path_of
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.records import RunQuery
from perdure_storage.trigger_records import ArrivalQuery, TriggerChange, TriggerRecord

FILES = int(os.environ.get("PERDURE_TEST_FILES", "40"))
KILLS = int(os.environ.get("PERDURE_TEST_KILLS", "3"))
FLOWS = """
from perdure import task, workflow
from tests.crash.ledger import executing

@task
def note(path: str) -> None:
    with executing(path):
        pass

@workflow
def flow(path: str) -> None:
    return note.bind(path)
"""


def serve(stage: Stage, crash: str = "") -> subprocess.Popen[str]:
    words = ("-m", "perdure", "up", "--executor", "inline", "--store", stage.store)
    return stage.start(*words, crash=crash)


def register(stage: Stage, client: Perdure) -> Path:
    """Register a trigger of the files in a folder, and return the folder."""
    flows, inbox = stage.folder / "flows.py", stage.folder / "in"
    flows.write_text(FLOWS)
    inbox.mkdir()
    declared = Trigger(
        name="landed",
        on=Files(url=f"{inbox}/*.csv"),
        inputs={"path": path_of(event.name)},
        run=RunTemplate(workflow="flow", origin=f"{flows}:flow"),
    )
    record = TriggerRecord(
        name="landed",
        definition=declared.to_json(),
        digest=declared.digest,
        listens=True,
        state=TriggerState().to_json(),
    )
    assert client.runtime.store.triggers.register(TriggerChange(trigger=record)) is not None
    return inbox


def land(inbox: Path, number: int) -> None:
    """Let a file land as careful writers do: whole, under its own name."""
    part = inbox / f"{number:05}.csv.part"
    part.write_text(f"{number}\n")
    part.rename(inbox / f"{number:05}.csv")


def listener_of(server: subprocess.Popen[str]) -> psutil.Process | None:
    """Return the process that listens for a server, if there is one by now."""
    for child in psutil.Process(server.pid).children():
        try:
            if "perdure.listening" in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            pass
    return None


def arrived(client: Perdure) -> int:
    query = ArrivalQuery(trigger="landed", limit=100_000)
    return len(client.runtime.store.triggers.list_arrivals(query))


def check(stage: Stage, client: Perdure, count: int) -> None:
    """Say whether each file has one arrival, one run, and one execution of its step."""
    store = client.runtime.store
    wait_until(lambda: arrived(client) >= count, 120, f"only {arrived(client)} of {count} arrive")
    live = RunQuery(status=tuple(RUN_LIVE))
    wait_until(lambda: not store.list_runs(live), 240, "runs do not end")
    arrivals = store.triggers.list_arrivals(ArrivalQuery(trigger="landed", limit=100_000))
    assert Counter(each.decision for each in arrivals) == {"fired": count}
    runs = store.list_runs(RunQuery(limit=100_000))
    assert sorted(run.id for run in runs) == sorted(str(each.run_id) for each in arrivals)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    ended = [line.note for line in stage.ledger.lines() if line.event == "ended"]
    assert set(ended) == {f"{number:05}.csv" for number in range(count)}
    tell_figures(files=count)


@pytest.mark.timeout(600)
def test_each_file_has_one_run_though_who_listens_is_killed_again_and_again(stage: Stage) -> None:
    chance = random.Random(7)
    with stage.open() as client:
        inbox = register(stage, client)
        server = serve(stage)
        kills: Iterator[int] = iter(sorted(chance.sample(range(FILES), KILLS)))
        next_kill, killed = next(kills, None), Counter[str]()
        for number in range(FILES):
            land(inbox, number)
            if number == next_kill:
                next_kill = next(kills, None)
                seen = arrived(client)
                wait_until(lambda seen=seen: arrived(client) > seen, 60, "nothing arrives")
                child = listener_of(server)
                if child is not None and chance.random() < 0.5:
                    child.kill()
                    killed["listener"] += 1
                else:
                    server.send_signal(signal.SIGKILL)
                    stage.finish(server)
                    server = serve(stage)
                    killed["server"] += 1

        check(stage, client, FILES)
        tell_figures(**killed)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", ["listen.after-take", "accept.in-transaction", "accept.after"])
def test_each_file_has_one_run_wherever_who_listens_dies(stage: Stage, point: str) -> None:
    with stage.open() as client:
        inbox = register(stage, client)
        for number in range(3):
            land(inbox, number)
        armed = serve(stage, f"{point}:1:kill")
        wait_until(lambda: has_lost_a_listener(client), 60, "nobody dies")
        armed.kill()
        stage.finish(armed)
        land(inbox, 3)

        serve(stage)

        check(stage, client, 4)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_another_server_listens_on_when_the_one_that_listened_is_killed(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    url = "" if store == "sqlite" else request.getfixturevalue("postgres_url")
    stage = Stage(tmp_path, url)
    try:
        with stage.open() as client:
            inbox = register(stage, client)
            land(inbox, 0)
            first = serve(stage)
            wait_until(lambda: arrived(client) == 1, 60, "nothing arrives")
            serve(stage)
            land(inbox, 1)
            for child in psutil.Process(first.pid).children(recursive=True):
                child.kill()
            first.kill()
            land(inbox, 2)

            check(stage, client, 3)
    finally:
        stage.end()


def has_lost_a_listener(client: Perdure) -> bool:
    owners = [owner for owner, _ in client.runtime.store.coordinators() if not owner.serves]
    return any(is_seen_dead(owner) for owner in owners)
