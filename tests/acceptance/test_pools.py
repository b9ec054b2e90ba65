"""Pools of an actor that can be made again: warm, restarted, and gone where others wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.pool_steps import Model, SlowToCome, add, done, fit, release

from perdure import Static, workflow
from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, RunFailed


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store" / "perdure.db")


@pytest.fixture
def client(store: str) -> Iterator[Perdure]:
    with open_store(store, cpus=2, gpus=1) as opened:
        yield opened


def pooled(folder: str, size: int, **options: Any) -> Any:
    return Model.options(pool=size, **options).bind(folder)  # type: ignore[attr-defined]


@workflow
def doubled(folder: str, count: Static[int]) -> Any:
    model = pooled(folder, 2)
    return add.map(model.double.map(add.map(list(range(count)))))


def test_pool_gives_the_same_eagerly_inline_and_in_processes(
    client: Perdure, store: str, tmp_path: Path
) -> None:
    wanted = [2 * (n + 1) + 1 for n in range(5)]
    inputs = {"folder": str(tmp_path), "count": 5}

    assert doubled(str(tmp_path), 5) == wanted
    assert client.run(doubled, inputs=inputs) == wanted
    with open_store(store, executor="inline") as inline:
        assert inline.run(doubled, inputs=inputs) == wanted


def test_constructor_runs_once_an_instance_and_calls_find_it_warm(
    client: Perdure, tmp_path: Path
) -> None:
    client.run(doubled, inputs={"folder": str(tmp_path), "count": 30})

    made = done(tmp_path, "made")
    assert 1 <= len(made) <= 2
    assert len(set(made)) == len(made)
    assert len(done(tmp_path, "double")) == 30


@workflow
def paired(folder: str) -> Any:
    return pooled(folder, 2).pair.map([0, 1, 2, 3])


def test_calls_are_made_in_as_many_processes_as_the_pool_has(
    client: Perdure, tmp_path: Path
) -> None:
    pids = client.run(paired, inputs={"folder": str(tmp_path)})

    assert len(set(pids)) == 2
    assert sorted(f"made {pid}" for pid in set(pids)) == sorted(done(tmp_path, "made"))


@workflow
def outrun(folder: str) -> Any:
    model = SlowToCome.options(pool=2).bind(folder)  # type: ignore[attr-defined]
    return release.bind(folder, model.double.map(list(range(9))))


def test_no_call_waits_for_an_instance_in_the_making_while_another_one_is_free(
    client: Perdure, tmp_path: Path
) -> None:
    assert client.run(outrun, inputs={"folder": str(tmp_path)}) == [2 * n for n in range(9)]


@workflow
def dying(folder: str) -> Any:
    return pooled(folder, 2).die_once.map([0, 1, 2, 3])


def test_killed_instance_is_made_again_and_its_call_too(client: Perdure, tmp_path: Path) -> None:
    assert client.run(dying, inputs={"folder": str(tmp_path)}) == [0, 2, 4, 6]

    assert sorted(done(tmp_path, "dies")) == ["dies 1", "dies 3"]
    assert sorted(done(tmp_path, "double")) == [f"double {n}" for n in range(4)]
    assert len(done(tmp_path, "made")) <= 4


@workflow
def crowded(folder: str) -> Any:
    model = pooled(folder, 1, gpus=1)
    early = model.double.map([1, 2])
    total = fit.bind(folder, early)
    return [total, model.double.bind(total)]


def test_pool_makes_room_for_a_step_that_wants_its_gpu_and_is_there_again_after_it(
    client: Perdure, tmp_path: Path
) -> None:
    assert client.run(crowded, inputs={"folder": str(tmp_path)}) == [6, 12]

    lines = (tmp_path / "done").read_text().splitlines()
    made = [n for n, line in enumerate(lines) if line.startswith("made")]
    assert len(made) == 2
    assert made[0] < lines.index("fit") < made[1]


@workflow
def refusing(folder: str, count: Static[int]) -> Any:
    model = pooled(folder, 1)
    kept = model.double.map(list(range(count)))
    return [kept, model.refuse.options(after=kept).bind(1)]


def test_resume_makes_no_committed_call_again(store: str, tmp_path: Path) -> None:
    inputs = {"folder": str(tmp_path), "count": 3}
    for _ in range(2):
        with open_store(store, cpus=2) as client, pytest.raises(RunFailed):
            client.run(refusing, inputs=inputs, run_id="r")

    assert sorted(done(tmp_path, "double")) == [f"double {n}" for n in range(3)]
    assert len(done(tmp_path, "made")) == 2


KILLED = """
import os
import signal
import sys

sys.path.insert(0, {root!r})
import psutil
from tests.acceptance.pool_steps import Model, note

import perdure
from perdure import task, workflow


@task
def kill_driver(folder: str, doubled: list[int]) -> int:
    if not os.path.exists(f"{{folder}}/killed"):
        open(f"{{folder}}/killed", "x").close()
        keeper = psutil.Process().parent()
        os.kill(keeper.ppid(), signal.SIGKILL)
        signal.pause()
    return sum(doubled)


@workflow
def pipeline(folder: str) -> int:
    model = Model.options(pool=2).bind(folder)
    return model.double.bind(kill_driver.bind(folder, model.double.map([0, 1, 2, 3])))
"""


def test_run_whose_driver_was_killed_makes_its_pool_anew_and_no_committed_call_again(
    perdure: Any, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[2])
    script = perdure.write("pool.py", KILLED.format(root=root))

    killed = perdure("run", "--id", "r", script, "--folder", tmp_path)
    resumed = perdure("resume", "r")

    assert killed.code == 128 + signal.SIGKILL
    assert resumed.code == 0, resumed.err
    assert resumed.out.split()[-1] == "24"
    assert sorted(done(tmp_path, "double")) == [f"double {n}" for n in (0, 1, 12, 2, 3)]
    assert 2 <= len(done(tmp_path, "made")) <= 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": 0}, "a number of instances"),
        ({"pool": True}, "a number of instances"),
        ({"pool": 2, "state": "durable"}, "a durable actor has one state"),
        ({"max_concurrency": 2}, "one call at a time"),
    ],
)
def test_pools_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Model.options(**options)  # type: ignore[attr-defined]
