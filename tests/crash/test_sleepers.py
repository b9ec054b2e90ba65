"""`perdure up` dies while many sleeping runs are due: each of them wakes once, at its old time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from tests.crash.ledger import check_nothing_is_left, wait_until
from tests.crash.stage import Stage
from tests.crash.steps import sleeping

from perdure.client import Perdure
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunQuery

RUNS = int(os.environ.get("PERDURE_TEST_SLEEPERS", "20"))
SLEEP_S = 1.5 + RUNS * 0.02
NAMES = [RunId(f"sleeper-{number:04}") for number in range(RUNS)]


@pytest.fixture
def client(stage: Stage) -> Iterator[Perdure]:
    with stage.open() as opened:
        yield opened


def serve(stage: Stage, crash: str = "") -> subprocess.Popen[str]:
    words = ("-m", "perdure", "up", "--executor", "inline", "--store", stage.store)
    return stage.start(*words, crash=crash)


def let_sleep(client: Perdure) -> None:
    """Record the runs, and drive them until each has begun to sleep; then nobody drives them."""
    coordinator = client.runtime.coordinator(serves=True)
    for name in NAMES:
        client.submit(sleeping, seconds=SLEEP_S, run_id=name)

    def all_sleep() -> bool:
        coordinator.turn(0.0)
        return all(client.runtime.store.list_waits(name) for name in NAMES)

    wait_until(all_sleep, 60, "they do not sleep")
    coordinator.close()


def have_all_ended(client: Perdure) -> Callable[[], bool]:
    ended = RunQuery(status=(RunStatus.SUCCEEDED,), limit=2 * RUNS)
    return lambda: len(client.runtime.store.list_runs(ended)) == RUNS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["claim.after", "commit.after"])
def test_each_sleeper_wakes_once_though_its_coordinator_is_killed_while_all_are_due(
    stage: Stage, client: Perdure, point: str
) -> None:
    store = client.runtime.store
    let_sleep(client)
    before = {name: store.list_waits(name) for name in NAMES}
    deadlines = [wait.deadline for [wait] in before.values() if wait.deadline is not None]
    wait_until(lambda: client.runtime.clock.now() > max(deadlines), 30, "they are not due")

    killed = serve(stage, f"{point}:1:kill")
    assert stage.finish(killed)[0] == -signal.SIGKILL
    second = serve(stage)
    wait_until(have_all_ended(client), 60, "they do not end")
    second.terminate()
    stage.finish(second)

    assert {name: store.list_waits(name) for name in NAMES} == before
    for name in NAMES:
        slept, woke = store.list_steps(name, current_only=False)
        assert slept.finished_at is not None
        assert slept.finished_at >= before[name][0].deadline
        assert (slept.step_id, slept.generation, woke.generation) == ("sleep", 1, 1)
        assert stage.ledger.began(name) == ["measure_text"]
    check_nothing_is_left(stage.ledger)
