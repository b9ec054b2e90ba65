"""How attempts end on Ray: killed, timed out, lost, and what is left of them then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.ray import cluster_steps as steps

from perdure.calls import Outcome, StepCall
from perdure.executors.contract import Bench
from perdure.executors.ray_executor import RayExecutor
from perdure_storage.records import Cause

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    executor = RayExecutor(timeout_grace_s=0.5)
    yield Bench(executor, tmp_path / "blobs")
    executor.close()


def begin(bench: Bench, function: Callable[..., Any], folder: Path, **options: Any) -> StepCall:
    """Start a call, and wait until its function says that it has begun."""
    name, where = bench.function(function), bench.constant(str(folder))
    bench.open()
    call = bench.call(name, where, **options)
    bench.executor.submit([call])
    until(lambda: (folder / "begun").exists(), bench)
    return call


def until(holds: Callable[[], bool], bench: Bench | None = None) -> None:
    deadline = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < deadline
        if bench is not None:
            assert bench.executor.poll(0.02) == []


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize(
    ("function", "is_polite"),
    [(steps.sleep_with_children, True), (steps.compute_with_children, False)],
)
def test_killed_step_is_gone_with_all_that_it_has_started(
    bench: Bench, tmp_path: Path, function: Callable[..., Any], is_polite: bool
) -> None:
    call = begin(bench, function, tmp_path)
    pid = int((tmp_path / "begun").read_text())
    until(lambda: len(children_of(pid)) == 3, bench)
    children = children_of(pid)

    bench.executor.kill([call.id], grace_s=20 if is_polite else 0.1, cause=Cause.CANCELLED)
    [outcome] = bench.outcomes(call)

    assert outcome.cause is Cause.CANCELLED
    assert " node " in outcome.worker
    assert (tmp_path / "cleaned").exists() is is_polite
    until(lambda: all(map(is_gone, [pid, *children])))


def test_step_whose_time_is_up_is_ended(bench: Bench, tmp_path: Path) -> None:
    call = begin(bench, steps.sleep_with_children, tmp_path, timeout_s=0.2)

    [outcome] = bench.outcomes(call)

    assert outcome.cause is Cause.TIMEOUT
    assert outcome.error is not None
    assert "0.2 s" in outcome.error.message


def test_killed_coroutine_is_cancelled_and_its_neighbours_go_on(
    bench: Bench, tmp_path: Path
) -> None:
    name = bench.function(steps.sleep_long)
    wheres = [bench.constant(str(tmp_path / each)) for each in ("a", "b")]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    bench.open()
    one, other = (bench.call(name, where) for where in wheres)
    bench.executor.submit([one, other])
    until(lambda: all((tmp_path / each / "begun").exists() for each in "ab"), bench)

    bench.executor.kill([one.id], grace_s=5, cause=Cause.CANCELLED)
    [outcome] = bench.outcomes(one)

    assert outcome.cause is Cause.CANCELLED
    assert bench.executor.poll(0) == []


def test_brief_steps_behind_one_that_takes_long_run_elsewhere(bench: Bench, tmp_path: Path) -> None:
    wait, touch = bench.function(steps.wait_for), bench.function(steps.touch)
    where, free = bench.constant(str(tmp_path)), bench.constant("free")
    bench.open()
    # More than two, so that some share a Ray task with the one that waits for them.
    calls = [bench.call(wait, where, free, is_brief=True)]
    calls += [bench.call(touch, where, free, is_brief=True) for _ in range(5)]

    outcomes = bench.run(*calls)

    assert [bench.value(outcome) for outcome in outcomes] == ["free"] * 6


def test_brief_steps_behind_one_that_takes_long_come_back_when_they_are_handed_over(
    bench: Bench, tmp_path: Path
) -> None:
    wait, touch = bench.function(steps.wait_for), bench.function(steps.touch)
    where, free, other = (bench.constant(each) for each in (str(tmp_path), "free", "other"))
    bench.open()
    calls = [bench.call(wait, where, free, is_brief=True)]
    calls += [bench.call(touch, where, other, is_brief=True) for _ in range(5)]

    bench.executor.submit(calls)
    bench.executor.hand_over([call.id for call in calls])
    others = bench.outcomes(*calls[1:])
    (tmp_path / "free").touch()

    # More than two, so that some share a Ray task with the one that waits.
    assert {outcome.cause for outcome in others} == {Cause.SUCCEEDED, Cause.ABANDONED}
    assert bench.value(*bench.outcomes(calls[0])) == "free"


def test_process_of_a_brief_step_that_lasts_is_known(bench: Bench, tmp_path: Path) -> None:
    wait = bench.function(steps.wait_for)
    where, free = bench.constant(str(tmp_path)), bench.constant("free")
    bench.open()
    call = bench.call(wait, where, free, is_brief=True)

    bench.executor.submit([call])
    until(lambda: len(bench.executor.workers()) == 1, bench)
    (tmp_path / "free").touch()
    [outcome] = bench.outcomes(call)

    [process] = bench.executor.workers()
    assert f"/{process.pid} " in outcome.worker


def test_only_the_brief_step_that_was_running_is_lost_with_its_worker(bench: Bench) -> None:
    name = bench.function(steps.exit_in_the_middle)
    numbers = [bench.constant(number) for number in range(8)]
    bench.open()
    calls = [bench.call(name, number, is_brief=True) for number in numbers]

    outcomes = bench.run(*calls)

    assert [outcome.cause for outcome in outcomes if outcome is not outcomes[3]] == [
        Cause.SUCCEEDED
    ] * 7
    assert outcomes[3].cause is Cause.WORKER_LOST
    assert _node_of(outcomes[3]) in _message(outcomes[3])


def test_step_that_finds_no_mailbox_runs_once_there_is_another(
    bench: Bench, tmp_path: Path, ray_cluster: LocalCluster, ray_node: LocalNode
) -> None:
    name, where = bench.function(steps.touch), bench.constant(str(tmp_path))
    files = [bench.constant(name) for name in ("before", "after")]
    bench.open()
    bench.run(bench.call(name, where, files[0]))

    below = [*ray_cluster.head.processes(), *ray_node.processes()]
    mailboxes = [each for each in below if each.name().startswith("ray::Mailbox")]
    for each in mailboxes:
        each.kill()
    [outcome] = bench.run(bench.call(name, where, files[1]))

    assert mailboxes
    assert outcome.cause is Cause.SUCCEEDED, outcome.error


def _node_of(outcome: Outcome) -> str:
    return outcome.worker.split()[2]


def _message(outcome: Outcome) -> str:
    assert outcome.error is not None
    return outcome.error.message
