"""Eagerly, inline, in processes, on both stores, after kills at random times: one result."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.crash.ledger import check_nothing_is_left, wait_until
from tests.crash.shapes import SHAPES, chain
from tests.crash.stage import Stage

from perdure.client import Perdure, open_store
from perdure_storage.records import RunId

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

SEED = int(os.environ.get("PERDURE_KILL_SEED", "1"))
KILLS = int(os.environ.get("PERDURE_SHAPE_KILLS", "2"))
ON_RAY_LENGTH = 20
END_S = float(os.environ.get("PERDURE_SHAPE_END_S", "60"))
"""How long a shape may take."""


@pytest.fixture(params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(shape: str, tmp_path: Path) -> Any:
    workflow, options = SHAPES[shape]
    with open_store(str(tmp_path / "eager" / "perdure.db")) as client:
        return client.execute(workflow, **options)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: LocalCluster | None
) -> Iterator[Stage]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Stage(tmp_path / "stage", url, cluster)
    yield made
    made.end()


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_result_is_that_of_plain_calls(
    executor: str, shape: str, stage: Stage, expected: Any
) -> None:
    workflow, options = SHAPES[shape]
    with stage.open(executor) as client:
        assert client.run(workflow, run_id="calm", **options) == expected


def test_result_is_that_of_plain_calls_after_kills_at_random_times(
    shape: str, stage: Stage, expected: Any
) -> None:
    workflow, options = SHAPES[shape]
    kill_and_check(stage, workflow, options, expected, random.Random(f"{SEED} {shape}"))


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_result_on_ray_is_that_of_plain_calls_after_a_kill_at_a_random_time(
    stage_on_ray: Stage,
) -> None:
    """A sample: all shapes run on Ray by PERDURE_TEST_EXECUTOR."""
    options = {"length": ON_RAY_LENGTH}
    with stage_on_ray.open() as client:
        expected = client.execute(chain, **options)

    kill_and_check(stage_on_ray, chain, options, expected, random.Random(SEED), kills=1)


def kill_and_check(
    stage: Stage,
    workflow: Any,
    options: dict[str, int],
    expected: Any,
    rng: random.Random,
    kills: int = KILLS,
) -> None:
    with stage.open() as client:
        run = client.submit(workflow, run_id="stormy", **options)
        size = len(run.plan.steps)
        for mark in sorted(rng.sample(range(1, size), kills)):
            kill_at(client, stage, mark, rng)
        last = serve(stage)
        wait_until(lambda: run.record.finished_at is not None, END_S, "it does not end")
        last.terminate()
        stage.finish(last)

        assert run.result() == expected
        rows = client.runtime.store.list_steps(RunId(run.id), current_only=False)
        assert len(rows) == len({row.step_id for row in rows}) == size, "I4: a step is doubled"
    # Every step below it is committed; it alone writes into the ledger.
    assert stage.ledger.count("halt", "ended") >= 1
    check_nothing_is_left(stage.ledger)


def kill_at(client: Perdure, stage: Stage, mark: int, rng: random.Random) -> None:
    """Serve until so many steps are committed; then kill the coordinator, with or after a worker.

    Those that are beyond the mark by then are killed at once, in the middle of beginning.
    """
    coordinator = serve(stage)
    wait_until(lambda: committed(client) >= mark, END_S, "it does not go on")
    if rng.random() < 0.5:
        below = psutil.Process(coordinator.pid).children
        for worker in stage.workers_of_ray() if stage.cluster else below():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
    coordinator.kill()
    coordinator.wait()


def serve(stage: Stage) -> Any:
    words = ("-m", "perdure", "up", "--store", stage.store, "--workers", "2")
    return stage.start(*words)


def committed(client: Perdure) -> int:
    return client.runtime.store.get_run(RunId("stormy")).seq
