"""Stages of a pipeline on CPUs and on a GPU, element by element: both are busy at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure.client import Perdure, open_store
from perdure.engine import placing
from perdure.story import Siblings
from perdure.view.runs import view_step

ITEMS = 6
NOT_BRIEF_S = 0.01
"""Calls that are over sooner are sent ahead, many at a time."""
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
    assert all(view.waited_s is not None for view in views)
    assert all(view.worker.endswith(" gpu 0") for view in views)
    # All wait for the one GPU while the first one has it.
    assert max(view.waited_s or 0.0 for view in views) > 0


# --- what is between the stages -----------------------------------------------------------------
def note(folder: str, text: str) -> None:
    with open(Path(folder) / "order", "a") as file:
        file.write(text + "\n")
    threading.Event().wait(NOT_BRIEF_S)


def order(folder: Path) -> list[str]:
    return (folder / "order").read_text().split()


@perdure.task
def pass_on(n: int, folder: str, stage: str) -> int:
    note(folder, f"{stage}{n}")
    return n


@perdure.workflow
def three_stages(folder: str) -> list[int]:
    first = pass_on.map(list(range(3)), folder=folder, stage="a")
    second = pass_on.map(first, folder=folder, stage="b")
    return pass_on.map(second, folder=folder, stage="c")


def test_item_leaves_the_pipeline_before_the_next_one_enters_where_there_is_one_cpu(
    tmp_path: Path,
) -> None:
    with open_store(str(tmp_path / "perdure.db"), cpus=1) as client:
        assert client.run(three_stages, folder=str(tmp_path)) == [0, 1, 2]

    assert order(tmp_path) == [f"{stage}{n}" for n in range(3) for stage in "abc"]


FAR = 20


@perdure.task(cpus=0, gpus=1)
def look_back(n: int, folder: str) -> int:
    """Of the first item, give the stage before it time to run far ahead, and say how far it has."""
    until = time.monotonic() + (1.0 if n == 0 else 0.0)
    while time.monotonic() < until and f"a{FAR}" not in order(Path(folder)):
        threading.Event().wait(0.01)
    return len(order(Path(folder)))


@perdure.workflow
def running_ahead(folder: str) -> list[int]:
    first = pass_on.map(list(range(2 * FAR)), folder=folder, stage="a")
    return look_back.map(first, folder=folder)


def test_stage_waits_where_the_next_one_has_enough_to_go_on_with(
    client: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "MOST_AHEAD", 3)

    found = client.run(running_ahead, folder=str(tmp_path))

    # One is looked at, three wait, and the fifth was begun when two of them did.
    assert found[0] <= 5
    assert found[-1] == 2 * FAR


def test_stage_waits_where_the_next_one_has_many_bytes_to_go_on_with(
    client: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "MOST_BYTES_AHEAD", 1)

    found = client.run(running_ahead, folder=str(tmp_path))

    assert found[0] <= 3
    assert found[-1] == 2 * FAR
