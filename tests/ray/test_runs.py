"""Whole runs on Ray, from the verbs down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.prepared import ROOT, python_path
from tests.ray import cluster_steps as steps
from tests.ray.test_ends import is_gone, until

import perdure
from perdure import Perdure, workflow

if TYPE_CHECKING:
    from examples.local_ray import LocalNode

ray = pytest.importorskip("ray", reason="pip install 'perdure[ray]'")
pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Perdure]:
    with perdure.open(str(tmp_path / "perdure.db"), executor="ray") as opened:
        yield opened


@workflow
def sums(count: int) -> int:
    return steps.total.bind(steps.add.map(list(range(8)), right=count))


@workflow
def unlucky(folder: str, by: int) -> str:
    return steps.die_once.bind(folder, by)


@workflow
def hopeless(folder: str) -> None:
    return steps.die.bind(folder)


@workflow
def counting(folder: str) -> list[int]:
    counter = steps.Counter.bind(10)
    first = counter.up.bind()
    second = counter.up_or_die.bind(folder)
    third = counter.up.bind(5)
    return [first, second, third, counter.pid.bind()]


def test_run_on_ray_gives_what_it_gives_elsewhere(store: Perdure) -> None:
    assert store.run(sums, run_id="s", count=2) == sum(range(8)) + 16

    workers = {step.attempts[-1].worker for step in store.get_run("s").steps() if step.attempts}
    assert workers
    assert all(" node " in worker for worker in workers)


@ray.remote(num_cpus=1)
def doubled(n: int) -> tuple[int, str]:
    return 2 * n, str(ray.get_runtime_context().get_node_id())


@ray.remote
class Sum:
    def __init__(self, start: int) -> None:
        self.sum = start

    def add(self, given: tuple[int, str]) -> tuple[int, str]:
        self.sum += given[0]
        return self.sum, given[1]


def test_graph_of_rays_own_functions_and_actors_runs_on_ray(
    store: Perdure, ray_node: LocalNode
) -> None:
    total = Sum.bind(100)
    total.add.bind(doubled.bind(1))
    last = total.add.bind(doubled.bind(2))

    result = store.run(perdure.from_ray(last), run_id="from-ray")

    assert result == (106, ray_node.id)
    for step in store.get_run("from-ray").steps():
        assert f" node {ray_node.id[:12]}" in step.attempts[-1].worker


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_step_whose_worker_is_killed_runs_again(store: Perdure, by: signal.Signals) -> None:
    assert store.run(unlucky, run_id="u", folder="", by=by.value) == "alive"

    first, second = store.get_run("u")["die_once"].attempts
    assert first.error is not None
    assert first.error.type == "perdure.errors.WorkerLost"
    assert second.worker.split("/")[0] == os.uname().nodename


def test_loss_is_told_with_the_node(store: Perdure) -> None:
    with pytest.raises(perdure.RunFailed, match=r"its Ray worker was lost on node [0-9a-f]{56}"):
        store.run(hopeless, run_id="h", folder="")


def test_actor_whose_process_is_killed_goes_on_from_its_last_state(
    store: Perdure, tmp_path: Path
) -> None:
    first, second, third, pid = store.run(counting, run_id="c", folder=str(tmp_path))

    assert (first, second, third) == (11, 12, 17)
    assert pid not in (os.getpid(), int((tmp_path / "died").read_text()))


def test_coordinator_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    program = (
        "import sys, perdure; from tests.ray import cluster_steps as steps\n"
        "with perdure.open(sys.argv[1] + '/perdure.db', executor='ray') as store:\n"
        "    store.run(perdure.task(steps.sleep_with_children).bind(sys.argv[1]))\n"
    )
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": python_path(ROOT)},
    )
    until(lambda: (tmp_path / "begun").exists())
    worker = int((tmp_path / "begun").read_text())

    driver.kill()
    driver.wait()

    until(lambda: is_gone(worker))
