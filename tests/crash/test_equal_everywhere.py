"""Eagerly, inline, in processes, on both stores, after kills at random times: one result."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.crash.ledger import check_nothing_is_left, wait_until
from tests.crash.shapes import SHAPES
from tests.crash.stage import Stage

from perdure.client import Perdure, open_store
from perdure_storage.records import RunId

SEED = int(os.environ.get("PERDURE_KILL_SEED", "1"))
KILLS = int(os.environ.get("PERDURE_SHAPE_KILLS", "2"))


@pytest.fixture(params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(shape: str, tmp_path: Path) -> Any:
    workflow, options = SHAPES[shape]
    with open_store(str(tmp_path / "eager" / "perdure.db")) as client:
        return client.execute(workflow, **options)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stage(request: pytest.FixtureRequest, tmp_path: Path, ray_address: str) -> Iterator[Stage]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Stage(tmp_path / "stage", url, ray_address)
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
    rng = random.Random(f"{SEED} {shape}")
    with stage.open() as client:
        run = client.submit(workflow, run_id="stormy", **options)
        size = len(run.plan.steps)
        for mark in sorted(rng.sample(range(1, size), KILLS)):
            kill_at(client, stage, mark, rng)
        last = serve(stage)
        wait_until(lambda: run.record.finished_at is not None, 60, "it does not end")
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
    wait_until(lambda: committed(client) >= mark, 60, "it does not go on")
    if rng.random() < 0.5:
        for worker in psutil.Process(coordinator.pid).children():
            worker.kill()
    coordinator.kill()
    coordinator.wait()


def serve(stage: Stage) -> Any:
    words = ("-m", "perdure", "up", "--store", stage.store, "--workers", "2")
    return stage.start(*words)


def committed(client: Perdure) -> int:
    return client.runtime.store.get_run(RunId("stormy")).seq
