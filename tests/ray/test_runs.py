"""Whole runs on Ray, from the verbs down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray import cluster_steps as steps

import perdure
from perdure import Perdure, workflow

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Perdure]:
    with perdure.open(str(tmp_path / "perdure.db"), executor="ray") as opened:
        yield opened


@workflow
def sums(count: int) -> int:
    return steps.total.bind(steps.add.map(list(range(8)), right=count))


@workflow
def unlucky(folder: str) -> str:
    return steps.die_once.bind(folder)


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


def test_step_whose_worker_is_killed_runs_again(store: Perdure) -> None:
    assert store.run(unlucky, run_id="u", folder="") == "alive"

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
