"""Only the coordinator dies, or is stopped: its workers, busy in native code, must not go on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from tests.crash import busy_steps
from tests.crash.ledger import (
    check_nothing_is_left,
    living_below,
    processes_of,
    wait_until,
)
from tests.crash.stage import TIMEOUT_S, Stage
from tests.crash.steps import text_of

from perdure.client import Perdure

RUN = "held"
SHORT_LEASE_S = "1.0"
PENDING = int(os.environ.get("PERDURE_TEST_PENDING", "150"))
AT_ONCE_S = float(os.environ.get("PERDURE_TEST_AT_ONCE_S", "5"))
"""Far below a lease; 1 is what it takes on a machine that does nothing else."""
_UP = """
import sys
from perdure.engine import heartbeat
heartbeat.LEASE_S = float(sys.argv[1])
from perdure.cli import main
sys.argv = ["perdure", "up", "--store", sys.argv[2], "--workers", "2"]
main()
"""


def serve(stage: Stage, lease_s: str = "10.0") -> subprocess.Popen[str]:
    return stage.start("-c", _UP, lease_s, stage.store)


def beats(folder: Path) -> dict[str, float]:
    """Return when the children of each attempt beat last."""
    found = {}
    for path in folder.glob("beats-*"):
        lines = path.read_text().splitlines()
        if lines:
            found[path.name] = float(lines[-1].split()[0])
    return found


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_workers_are_gone_before_another_attempt_begins_when_only_the_coordinator_dies(
    stage: Stage,
) -> None:
    with stage.open() as client:
        client.submit(busy_steps.holding, run_id=RUN)
        first = serve(stage)
        wait_until(lambda: len(beats(stage.folder)) == 2, 30, "the steps did not begin")
        first.kill()
        killed_at = time.monotonic()
        first.wait()
        (stage.folder / "gate").touch()
        second = serve(stage)
        wait_until(lambda: client.get_run(RUN).status == "SUCCEEDED", 30, "it does not go on")

        second.terminate()
        stage.finish(second)
        assert client.get_run(RUN).result() == text_of([text_of(1), text_of(2)])

    lines = stage.ledger.lines(RUN)
    last_beat = max(beats(stage.folder).values())
    began_again = [line.at for line in lines if line.event == "began" and line.at > killed_at]
    assert len(began_again) == 3, "two that were cut off and the one after them"
    assert last_beat < min(began_again), "a child of the first attempt lived into the second"
    assert last_beat - killed_at < 1.0
    check_nothing_is_left(stage.ledger)


@pytest.mark.timeout(120 + PENDING // 20)
def test_run_of_a_coordinator_that_died_is_taken_over_at_once_though_many_wait(
    stage: Stage,
) -> None:
    """Those that wait come first by their priority, and the dead owner's lease may stand."""
    with stage.open() as client:
        run = client.submit(busy_steps.slowly, run_id=RUN)
        first = serve(stage)
        wait_until(lambda: stage.ledger.count("slow") == 1, 30, "the step did not begin")
        first.kill()
        first.wait()
        for number in range(PENDING):
            client.submit(busy_steps.join.bind([str(number)]), run_id=f"waits-{number}", priority=1)

    began = time.monotonic()
    with stage.open() as client:
        second = client.runtime.coordinator(serves=True)
        second.serve()
        run = client.get_run(RUN)
        wait_until(lambda: second.turn(0.0) or run.record.takeovers == 1, 60, "nobody takes it on")
        took_s = time.monotonic() - began
        others = client.get_run(f"waits-{PENDING - 1}").status
        second.close()

    print(f"taken over {took_s:.2f} s after the store was opened, beside {PENDING} that wait")
    assert took_s < AT_ONCE_S
    assert others == "QUEUED", "it came after all others"
    check_nothing_is_left(stage.ledger)


@pytest.mark.timeout(TIMEOUT_S + 30)
@pytest.mark.parametrize("wakes", ["with a result", "with a step that runs"])
def test_stopped_coordinator_gives_way_when_it_wakes_after_its_lease(
    stage: Stage, wakes: str
) -> None:
    with stage.open() as client:
        client.submit(busy_steps.slowly, run_id=RUN)
        holder = serve(stage, SHORT_LEASE_S)
        wait_until(lambda: stage.ledger.count("slow") == 1, 30, "the step did not begin")
        if wakes == "with a result":
            # Its worker ends the step and tells it, but it is stopped and does not hear.
            holder.send_signal(signal.SIGSTOP)
            (stage.folder / "release-1").touch()
            wait_until(lambda: stage.ledger.count("slow", "ended") == 1, 30, "it did not end")
        holder.send_signal(signal.SIGSTOP)
        other = serve(stage, SHORT_LEASE_S)
        wait_until(lambda: stage.ledger.count("slow") == 2, 30, "nobody took the run over")
        overlapping = living_below(holder.pid)
        holder.send_signal(signal.SIGCONT)
        (stage.folder / "release-2").touch()
        wait_until(lambda: client.get_run(RUN).status == "SUCCEEDED", 30, "it does not end")

        check_ended_by_second_attempt(client)
        said = end(stage, holder) + end(stage, other)
    assert not overlapping, f"workers of the stale owner lived beside the new attempt: {said}"
    check_nothing_is_left(stage.ledger)


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_run_tells_that_its_coordinator_was_stopped_for_longer_than_its_lease(stage: Stage) -> None:
    with stage.open() as client:
        client.submit(busy_steps.slowly, run_id=RUN)
        holder = serve(stage, SHORT_LEASE_S)
        wait_until(lambda: stage.ledger.count("slow") == 1, 30, "the step did not begin")
        run = client.get_run(RUN)

        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: not run.record.lease_live, 30, "its lease goes on")
        holder.send_signal(signal.SIGCONT)

        wait_until(lambda: "lease ran out 1 time" in run.why(), 30, run.why())
        (stage.folder / "release-1").touch()
        wait_until(lambda: run.status == "SUCCEEDED", 30, "it does not end")
        end(stage, holder)
    check_nothing_is_left(stage.ledger)


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_stale_coordinator_ends_its_attempts_though_its_workers_were_not_recorded(
    stage: Stage,
) -> None:
    """As on another host, whose workers nobody here can kill: it learns of the loss by itself."""
    with stage.open() as client:
        client.submit(busy_steps.slowly, run_id=RUN)
        holder = serve(stage, SHORT_LEASE_S)
        wait_until(lambda: stage.ledger.count("slow") == 1, 30, "the step did not begin")
        run = client.get_run(RUN).record
        assert run.owner is not None
        thief = msgspec.structs.replace(run.owner, token="thief", host="elsewhere", pid=1)

        client.runtime.store.register(thief, 60.0)
        taken = client.runtime.store.claim_run(run.id, thief, seen_dead=run.owner.token)

        assert taken is not None
        wait_until(lambda: not living_below(holder.pid), 5.0 + 1.0, "the stale one goes on")
        assert client.get_run(RUN)["slow"].row is None
        end(stage, holder)
    check_nothing_is_left(stage.ledger)


def end(stage: Stage, process: subprocess.Popen[str]) -> str:
    process.terminate()
    return stage.finish(process)[1]


def check_ended_by_second_attempt(client: Perdure) -> None:
    run = client.get_run(RUN)
    assert run.record.epoch == 2, "the stale owner took the run back"
    row = run["slow"].row
    assert row is not None
    assert row.attempt == 2, "the stale owner's result was committed"
    assert run["slow"].attempts[0].cause == "abandoned"


def test_processes_of_a_ledger_are_found(stage: Stage) -> None:
    sleeper = stage.start("-c", "import signal; signal.pause()")

    wait_until(lambda: processes_of(stage.ledger), 5, "it is not found")

    sleeper.kill()
    sleeper.wait()
    check_nothing_is_left(stage.ledger)
