"""Stages of a pipeline on CPUs and on a GPU, element by element: both are busy at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure.client import Perdure, open_store
from perdure.story import Siblings
from perdure.view.runs import view_step

ITEMS = 6
PATIENCE_S = 20.0


def meet(folder: str, mine: str, other: str) -> None:
    """Say that one is here, and wait until the other one is, too."""
    (Path(folder) / mine).touch()
    until = time.monotonic() + PATIENCE_S
    while not (Path(folder) / other).exists():
        assert time.monotonic() < until, f"{other} has not begun while {mine} ran"
        threading.Event().wait(0.01)


@perdure.task(cpus=1)
def decode(n: int, folder: str) -> int:
    if n == ITEMS - 1:
        meet(folder, "last-decode", "first-predict")
    return n * 10


@perdure.task(gpus=1, cpus=0)
def predict(n: int, folder: str) -> int:
    if n == 0:
        meet(folder, "first-predict", "last-decode")
    return n + 1


@perdure.workflow
def pipeline(folder: str) -> list[int]:
    decoded = decode.map(list(range(ITEMS)), folder=folder)
    return predict.map(decoded, folder=folder)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), cpus=1, gpus=1) as opened:
        yield opened


def test_stage_on_the_gpu_begins_before_that_on_cpus_is_over_and_runs_beside_it(
    client: Perdure, tmp_path: Path
) -> None:
    result = client.run(pipeline, run_id="p", folder=str(tmp_path))

    assert result == [n * 10 + 1 for n in range(ITEMS)]


def test_each_step_tells_how_long_it_waited_and_who_ran_it(client: Perdure, tmp_path: Path) -> None:
    client.run(pipeline, run_id="p", folder=str(tmp_path))
    run = client.get_run("p")

    siblings = Siblings(run)
    views = [view_step(step, siblings) for step in run.steps(name="predict[*]")]

    assert len(views) == ITEMS
    assert all(view.waited_s is not None and view.worker for view in views)
    # All wait for the one GPU while the first one has it.
    assert max(view.waited_s or 0.0 for view in views) > 0
