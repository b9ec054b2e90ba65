"""Webhooks and requests come three times each while who answers is killed: each makes one run."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure.http.signatures import sign
from perdure_scheduler.arriving import TriggerState
from perdure_scheduler.conditions import Webhook
from perdure_scheduler.facts import event, path_of
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_storage.clock import SystemClock
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery
from perdure_storage.trigger_records import ArrivalQuery, TriggerChange, TriggerRecord

HOOKS = int(os.environ.get("PERDURE_TEST_HOOKS", "30"))
DEATHS = int(os.environ.get("PERDURE_TEST_HOOK_DEATHS", "2"))
TIMES = 3
KEY = "the-key-of-this-hook"
FLOWS = """
from perdure import task, workflow

@task
def note(number: int) -> int:
    return number

@workflow
def flow(number: int) -> int:
    return note.bind(number)
"""
ACCEPTING = ("accept.before", "accept.in-transaction", "accept.after")
INSERTING = ("run.before-insert", "run.after-insert")
"""These kill the child that makes the run: who asked is told to come again."""


class Mortal:
    """A server that dies again and again where it makes runs, and is started again at its port."""

    def __init__(self, stage: Stage, points: tuple[str, ...]) -> None:
        self.deaths = 0
        with socket.create_server(("127.0.0.1", 0)) as found:
            self._port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._stage = stage
        self._points = itertools.cycle(points)
        self._is_over = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        every = max(2, HOOKS // (DEATHS + 1))
        while not self._is_over.is_set():
            crash = "" if self.deaths >= DEATHS else f"{next(self._points)}:{every}:kill"
            words = ("up", "--port", str(self._port), "--store", self._stage.store)
            self._process = self._stage.start(
                *("-m", "perdure", *words, "--executor", "inline"),
                crash=crash,
                HOOK_KEY=KEY,
            )
            self._stage.finish(self._process)
            self.deaths += self._process.returncode == -signal.SIGKILL

    def kill(self) -> None:
        """Kill it now, wherever it is."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        self._is_over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()


def register(stage: Stage, client: Perdure) -> None:
    flows = stage.folder / "flows.py"
    flows.write_text(FLOWS)
    declared = Trigger(
        name="hook",
        on=Webhook(keys=("HOOK_KEY",)),
        inputs={"number": path_of(event.body.number)},
        run=RunTemplate(workflow="flow", origin=f"{flows}:flow"),
    )
    record = TriggerRecord(
        name="hook",
        definition=declared.to_json(),
        digest=declared.digest,
        state=TriggerState().to_json(),
    )
    assert client.runtime.store.triggers.register(TriggerChange(trigger=record)) is not None


@pytest.fixture
def client(stage: Stage) -> Iterator[Perdure]:
    with stage.open() as opened:
        register(stage, opened)
        yield opened


def hook(http: httpx.Client, number: int) -> httpx.Response:
    content = json.dumps({"number": number}).encode()
    timestamp = f"{SystemClock().now().timestamp():.0f}"
    headers = {
        "content-type": "application/json",
        "webhook-id": f"d{number}",
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(KEY.encode(), f"d{number}", timestamp, content),
    }
    return http.post("/v1/hooks/hook", content=content, headers=headers)


def start(http: httpx.Client, number: int) -> httpx.Response:
    body = {"workflow": "flow", "inputs": {"number": number}}
    headers = {"idempotency-key": f"d{number}"}
    return http.post("/v1/runs", json=body, headers=headers)


Ask = Callable[[httpx.Client, int], httpx.Response]


def ask_until_answered(http: httpx.Client, ask: Ask, number: int) -> str:
    """Ask as whoever sends webhooks does: again until there is an answer; return the run's id."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        try:
            answer = ask(http, number)
        except httpx.TransportError:  # nobody listens, or it died before it answered
            return False
        if answer.status_code != 503:
            answers.append(answer)
        return bool(answers)

    wait_until(is_answered, 120, f"{number} is not answered")
    assert answers[0].status_code == 202, answers[0].text
    return str(answers[0].json()["run_id"])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("ask", "points"), [(hook, ACCEPTING), (start, INSERTING)])
def test_what_is_sent_three_times_makes_one_run_though_who_answers_is_killed(
    stage: Stage, client: Perdure, ask: Ask, points: tuple[str, ...]
) -> None:
    server = Mortal(stage, points)
    numbers = [number for number in range(HOOKS) for _ in range(TIMES)]
    random.Random(7).shuffle(numbers)
    middle = len(numbers) // 2

    http = httpx.Client(base_url=server.url, timeout=60)

    def send(position: int) -> tuple[int, str]:
        if position == middle:
            server.kill()
        return numbers[position], ask_until_answered(http, ask, numbers[position])

    try:
        with http, ThreadPoolExecutor(8) as senders:
            told = list(senders.map(send, range(len(numbers))))
        live = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
        wait_until(
            lambda: not client.runtime.store.list_runs(RunQuery(status=live)), 300, "runs go on"
        )
    finally:
        server.end()

    runs = client.runtime.store.list_runs(RunQuery(limit=10_000))
    assert server.deaths >= 1
    assert len(set(told)) == HOOKS, "whoever sent one again was told of another run"
    assert sorted(run.id for run in runs) == sorted({run_id for _, run_id in told})
    assert Counter(run.status for run in runs) == {RunStatus.SUCCEEDED: HOOKS}
    assert sorted(client.get_run(run.id).result() for run in runs) == list(range(HOOKS))
    if ask is hook:
        query = ArrivalQuery(trigger="hook", limit=10_000)
        rows = client.runtime.store.triggers.list_arrivals(query)
        assert Counter(row.decision for row in rows) == {"fired": HOOKS}
    tell_figures(requests=HOOKS * TIMES, deaths=server.deaths, runs=len(runs))
