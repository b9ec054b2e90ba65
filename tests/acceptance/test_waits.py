"""Sleeps, signals and events: what they give, how long they stand, what they hold meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import waiting_steps as steps
from tests.crash.ledger import wait_until

from perdure.client import Perdure, open_store
from perdure.engine import commits, coordinator
from perdure.errors import DefinitionError, RunConflict, RunFailed, RunNotFound
from perdure.runs import Run
from perdure_storage import faults
from perdure_storage.clock import SystemClock
from perdure_storage.contract_samples import a_wait, an_owner, by
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import MessageRecord, RunId


def asleep(run: Run) -> Run:
    """Wait until everything in the run waits, and nobody owns it."""
    wait_until(lambda: run.record.status is RunStatus.WAITING, 20, "it does not wait")
    assert run.record.owner is None
    return run


def waits_for(run: Run, *names: str) -> None:
    store = run._client.runtime.store
    wait_until(
        lambda: {wait.name for wait in store.list_waits(RunId(run.id))} >= set(names), 20, "no wait"
    )


def test_signal_gives_its_value_to_the_step_that_waits(client: Perdure) -> None:
    run = asleep(client.start(steps.approval))

    assert run.signal("approve", True)

    assert run.result() == "True"
    assert [event.kind for event in run.events()].count("signalled") == 1


def test_signal_that_came_before_anybody_waited_is_kept(inline: Perdure) -> None:
    run = inline.submit(steps.approval, run_id="early")
    inline.signal("early", "approve", True)

    assert inline.resume(run.id).result() == "True"


def test_signals_of_one_name_are_a_queue(client: Perdure) -> None:
    run = asleep(client.start(steps.queue))
    for number in (1, 2):
        run.signal("order", number)
    run.signal("order", 2, dedup_key="k")
    assert not run.signal("order", 7, dedup_key="k")

    assert run.result() == "1 2 2"


def test_signal_is_taken_once_though_its_delivery_is_not_written_yet(
    inline: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "GROUP_AGE_S", 60.0)
    run = inline.submit(steps.orders, run_id="hasty", durability="group")
    inline.signal(run.id, "order", 1)
    inline.signal(run.id, "order", 2)

    assert inline.resume(run.id).result() == "1 2"


def test_value_that_does_not_fit_the_schema_is_refused_when_it_is_sent(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval))

    with pytest.raises(DefinitionError, match="signal 'approve': expected bool, got str 'yes'"):
        run.signal("approve", "yes")

    run.signal("approve", True)
    assert run.result() == "True"


def test_signal_to_no_run_or_one_that_is_over_is_refused(inline: Perdure) -> None:
    run = inline.start(steps.approval, timeout=0.0)
    assert run.result() == "False"

    with pytest.raises(RunConflict, match=r"SUCCEEDED already\. .*perdure show"):
        run.signal("approve", True)
    with pytest.raises(RunNotFound):
        inline.signal("nobody", "approve", True)


def test_wait_that_is_over_gives_its_default(client: Perdure) -> None:
    assert client.run(steps.approval, timeout=0.05) == "False"


def test_wait_that_is_over_fails_without_a_default(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"no signal 'never' came until .* UTC. Give default="):
        inline.run(steps.failing)


def test_time_out_of_a_wait_can_be_caught(inline: Perdure) -> None:
    assert inline.run(steps.impatient) == "perdure.errors.WaitTimeout"


def test_sleep_ends_by_itself(client: Perdure) -> None:
    began = time.monotonic()

    assert client.run(steps.naps, seconds=0.2) == "awake"

    assert time.monotonic() - began >= 0.2


def test_run_that_sleeps_longer_is_given_back_and_taken_on_again(inline: Perdure) -> None:
    run = asleep(inline.start(steps.naps, seconds=1.5))
    wake_at = run.record.wake_at
    assert wake_at is not None

    assert run.result() == "awake"

    finished_at = run.record.finished_at
    assert finished_at is not None
    assert timedelta() <= finished_at - wake_at < timedelta(seconds=1)
    assert run.record.epoch == 2


def test_run_that_is_taken_on_again_is_never_seen_as_nobody_s(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval))
    seen = []

    with faults.armed("claim.before:*:sleep=0.2"):
        run.signal("approve", True)
        is_driven = inline.drives(run.id)  # asked before: meanwhile it may come to its end
        while run.status == "WAITING":
            seen.append(is_driven)
            is_driven = inline.drives(run.id)

    assert run.result() == "True"
    assert all(seen)


def test_run_that_sleeps_is_found_again_among_many_that_others_left(
    inline: Perdure,
) -> None:
    for number in range(101):
        inline.submit(steps.naps, seconds=0.0, run_id=f"left-{number}", priority=1)

    run = asleep(inline.start(steps.naps, seconds=1.5))

    assert run.result(timeout=10) == "awake"


def test_deadline_of_a_sleep_is_kept_over_an_owner_that_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    with open_store(path, executor="inline") as first:
        run = first.start(steps.approval, timeout=2.5, run_id="kept")
        deadline = asleep(run).record.wake_at
    with open_store(path, executor="inline") as second:
        run = second.get_run("kept")
        assert run.record.wake_at == deadline
        assert second.resume("kept").result() == "False"

        [wait] = second.runtime.store.list_waits(RunId("kept"))
        row = run["wait_signal"].row
        assert wait.deadline == deadline
        assert row is not None
        assert row.finished_at is not None
        assert deadline is not None
        assert row.finished_at >= deadline


def test_signal_that_was_sent_since_the_last_look_comes_before_the_time_out(
    inline: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "REQUESTS_EVERY_S", 60.0)
    run = inline.submit(steps.approval, timeout=0.9, run_id="soon")
    driver = inline.runtime.coordinator()
    driver.submit(run.id)
    while not inline.runtime.store.list_waits(RunId("soon")):
        driver.turn(0.0)
    driver.turn(0.0)
    inline.signal(run.id, "approve", True)

    while not driver.is_idle:
        driver.turn()

    driver.close()
    assert run.result() == "True"


@pytest.mark.parametrize(("after_s", "result"), [(-0.001, "True"), (0.001, "False")])
def test_signal_counts_if_it_was_sent_before_the_deadline_though_nobody_drove_the_run_then(
    tmp_path: Path, after_s: float, result: str
) -> None:
    path = str(tmp_path / "s.db")
    with open_store(path, executor="inline") as first:
        deadline = asleep(first.start(steps.approval, timeout=1.5, run_id="late")).record.wake_at
        assert deadline is not None
        yes = first.runtime.values.store(True, name="yes")
    wait_until(lambda: SystemClock().now() > deadline, 20, "the deadline is not over")
    with open_store(path, executor="inline") as second:
        at = deadline + timedelta(seconds=after_s)
        message = MessageRecord(run_id=RunId("late"), name="approve", value=yes, at=at)

        second.runtime.store.send(message)

        assert second.resume("late").result() == result


def test_each_round_of_a_chain_is_told_something_though_its_owner_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    with open_store(path, executor="inline") as first:
        run = first.start(steps.hear.bind(2, []), run_id="r")
        run.signal("word", 1)
        wait_until(lambda: len(first.runtime.store.list_waits(RunId("r"))) == 2, 20, "no round")
        asleep(run)

    with open_store(path, executor="inline") as second:
        run = second.resume("r")
        run.signal("word", 2)

        assert run.result() == [1, 2]


def test_event_reaches_every_run_whose_match_it_fits(inline: Perdure) -> None:
    runs = [inline.start(steps.landing, file=file) for file in "aab"]
    for run in runs:
        asleep(run)

    inline.emit("landed", 1, match={"file": "other"})
    inline.emit("landed", 2, match={"file": "a", "size": 3})
    inline.emit("landed", 3, match={"file": "b"})

    assert [run.result() for run in runs] == ["2", "2", "3"]


def test_event_from_before_the_run_is_not_for_it(inline: Perdure) -> None:
    inline.emit("landed", 0, match={"file": "a"})
    run = asleep(inline.start(steps.landing))

    inline.emit("landed", 1, match={"file": "a"}, dedup_key="k")
    assert not inline.emit("landed", 2, match={"file": "a"}, dedup_key="k")

    assert run.result() == "1"


def test_children_of_maps_and_returned_graphs_wait(client: Perdure) -> None:
    run = client.start(steps.asking)
    waits_for(run, "one", "two", "three")

    for name in ("three", "two", "one"):
        run.signal(name, name.upper())

    assert run.result() == "['ONE', 'TWO'] THREE"


def test_wait_is_told_with_the_command_that_ends_it(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval, run_id="told"))

    step = run["wait_signal"]
    assert step.status is StepStatus.WAITING
    assert "waits for signal 'approve' until " in step.why()
    assert "signal told approve" in step.why()
    run.cancel()
    assert run.status is RunStatus.CANCELLED


def test_run_that_waits_is_cancelled_by_whoever_asks(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval))

    run.cancel()

    assert run.status is RunStatus.CANCELLED
    assert inline.resume(run.id).id == run.id
    run.signal("approve", True)
    assert run.result() == "True"


def test_run_that_waits_is_paused_and_goes_on(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval))
    run.pause()
    assert run.status is RunStatus.PAUSED
    run.signal("approve", True)

    assert inline.resume(run.id).result() == "True"


def test_deadline_of_the_run_ends_its_waits(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match="deadline of the run"):
        inline.run(steps.approval, deadline="1.2s")


def test_signal_for_a_wait_that_is_no_longer_asked_for_does_not_keep_the_run_awake(
    inline: Perdure,
) -> None:
    run = inline.submit(steps.approval, run_id="edited")
    store, before = inline.runtime.store, an_owner()
    store.register(before, 60.0)
    held = store.claim_run(RunId(run.id), before)
    assert held is not None
    store.commit([by(held, waits=(a_wait(run.id, "wait_signal", name="old", source="else"),))])
    store.release_run(held, to=RunStatus.QUEUED)
    inline.signal(run.id, "old", True)

    asleep(inline.resume(run.id))

    [_, wait] = store.list_waits(RunId(run.id))
    assert run.record.wake_at == wait.deadline
    assert run.record.epoch == 2
    run.signal("approve", True)
    assert run.result() == "True"


def test_wait_of_a_run_is_not_taken_over_from_another(inline: Perdure) -> None:
    run = asleep(inline.start(steps.approval, run_id="one"))
    run.signal("approve", True)
    assert run.result() == "True"

    assert inline.run(steps.approval, timeout=0.05, reuse="one") == "False"


@pytest.mark.parametrize("verb", ["sleep", "wait_signal"])
def test_waits_are_refused_that_make_no_sense(verb: str) -> None:
    import perdure

    with pytest.raises(DefinitionError):
        getattr(perdure, verb)("")
    with pytest.raises(DefinitionError, match="give both"):
        perdure.wait_signal("x", default=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": 3}, "3 is no name"),
        ({"schema": 3}, "schema=3 is no type"),
        ({"schema": int, "timeout": 1, "default": "text"}, "default=: expected int"),
    ],
)
def test_options_of_a_wait_are_refused_that_fit_nothing(options: dict[str, Any], said: str) -> None:
    import perdure

    with pytest.raises(DefinitionError, match=said):
        perdure.wait_signal(**{"name": "x", **options})
    with pytest.raises(DefinitionError, match=said):
        perdure.wait_event(**{"name": "x", **options})


def test_match_that_is_no_dict_is_refused(inline: Perdure) -> None:
    import perdure

    with pytest.raises(DefinitionError, match="write a dict"):
        perdure.wait_event("x", match="y")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="write a dict"):
        inline.emit("x", match=3)  # type: ignore[arg-type]


def test_signal_to_a_run_that_failed_says_how_it_can_be_answered_yet(inline: Perdure) -> None:
    run = inline.start(steps.failing)
    with pytest.raises(RunFailed) as failed:
        run.result()

    with pytest.raises(RunConflict, match=r"perdure resume .*, and signal it while it waits"):
        run.signal("never", True)
    assert "waits.py" not in str(failed.value)


def test_waits_are_executed_without_a_run_as_far_as_that_goes() -> None:
    assert steps.naps(seconds=0.01) == "awake"
    assert steps.approval() == "False"
    with pytest.raises(DefinitionError, match="run it durably"):
        steps.queue()


# --- in processes of their own ------------------------------------------------------------------
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perdure", *words, "--store", str(tmp_path / "cli.db")]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd(), timeout=60)

    return call


def test_run_that_was_left_waits_for_a_signal_through_a_killed_server(
    cli: Cli, tmp_path: Path
) -> None:
    target = "tests.acceptance.waiting_steps:approval"
    store = str(tmp_path / "cli.db")
    left = cli("run", "--detach", "--id", "left", "--executor", "inline", target)
    assert left.returncode == 2  # options stand before the target
    left = subprocess.run(
        [sys.executable, "-m", "perdure", "run", "--detach", "--id", "left", "--executor",
         "inline", "--store", store, target],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert left.returncode == 3, left.stderr
    with open_store(store) as client:
        run = client.get_run("left")
        for _ in range(2):
            server = subprocess.Popen(
                [sys.executable, "-m", "perdure", "up", "--store", store],
                stderr=subprocess.DEVNULL,
            )
            asleep(run)
            server.kill()
            server.wait()
        refused = cli("signal", "left", "approve", "--value", "perhaps")
        assert refused.returncode == 2
        assert "expected bool" in refused.stderr
        sent = cli("signal", "left", "approve", "--value", "yes")
        assert sent.returncode == 0, sent.stderr
        done = cli("resume", "left")

    assert done.stdout.strip() == "True"
