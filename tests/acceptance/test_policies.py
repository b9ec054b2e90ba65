"""``on_change`` and ``on_divergence``: what becomes of results that today's run would not give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.client import Perdure
from perdure.errors import NondeterminismError, RunConflict, RunFailed
from perdure.task import task
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


class World:
    """A folder in which steps leave traces, and a gate that lets them pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def runs_of(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def note(folder: str, name: str) -> int:
    """Count an execution in a file that perdure does not know; return how many there were."""
    path = Path(folder) / name
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


# --- on_change ----------------------------------------------------------------------------------
@task
def times(factor: int, folder: str) -> int:
    note(folder, "times")
    return 10 * factor


@task
def passes(x: int, folder: str) -> int:
    note(folder, "passes")
    if not (Path(folder) / "gate").exists():
        raise ValueError("closed")
    return x


def dag(factor: int, folder: Path) -> Any:
    return passes.bind(times.bind(factor, str(folder)), str(folder))


@pytest.fixture
def failed(client: Perdure, world: World) -> World:
    """A run "r" of which one step has committed and one has failed; then that is mended."""
    with pytest.raises(RunFailed):
        client.run(dag(1, world.folder), run_id="r")
    world.open_gate()
    return world


def test_changed_step_is_recomputed(client: Perdure, failed: World) -> None:
    assert client.run(dag(2, failed.folder), run_id="r") == 20

    assert failed.runs_of("times") == 2
    assert "its arguments changed" in client.why("r", "times")


def test_changed_step_is_reused_on_demand(client: Perdure, failed: World) -> None:
    assert client.run(dag(2, failed.folder), run_id="r", on_change="reuse") == 10

    assert failed.runs_of("times") == 1


def test_change_is_refused_on_demand_and_the_run_stays_as_it_is(
    client: Perdure, failed: World
) -> None:
    with pytest.raises(RunConflict, match=r"times: its arguments changed.*on_change='fail'"):
        client.run(dag(2, failed.folder), run_id="r", on_change="fail")

    assert client.get_run("r").status is RunStatus.FAILED
    assert client.run(dag(1, failed.folder), run_id="r", on_change="fail") == 10
    assert failed.runs_of("times") == 1


# --- on_divergence ------------------------------------------------------------------------------
@task(checkpoint=False)
def counts(folder: str) -> int:
    return note(folder, "counts")


@task
def reads(x: int, folder: str) -> int:
    note(folder, "reads")
    return x


@task
def joins(x: int, y: int, folder: str) -> tuple[int, int]:
    if not (Path(folder) / "gate").exists():
        raise ValueError("closed")
    return x, y


@pytest.fixture
def diverging(client: Perdure, world: World) -> World:
    """A run "r" whose uncheckpointed first step gives another value each time; one step read it."""
    folder = str(world.folder)
    first = counts.bind(folder)
    with pytest.raises(RunFailed):
        client.run(joins.bind(reads.bind(first, folder), first, folder), run_id="r")
    world.open_gate()
    return world


def test_rebuilt_value_that_differs_fails_the_run_and_names_who_read_the_other(
    client: Perdure, diverging: World
) -> None:
    with pytest.raises(NondeterminismError, match=r"counts.*reads.*on_divergence"):
        client.resume("r").result()

    assert client.get_run("r")["counts"].attempts[-1].cause is Cause.ENGINE_ERROR
    assert "attempt 1 runs" not in client.why("r", "counts")


def test_steps_that_read_the_other_value_are_recomputed_on_demand(
    client: Perdure, diverging: World
) -> None:
    assert client.resume("r", on_divergence="recompute").result() == (2, 2)

    assert diverging.runs_of("reads") == 2


def test_mix_of_values_is_kept_on_demand_and_recorded(client: Perdure, diverging: World) -> None:
    run = client.resume("r", on_divergence="keep")

    assert run.result() == (1, 2)
    assert diverging.runs_of("reads") == 1
    (event,) = (event for event in run.events() if event.kind == "diverged")
    assert event.detail == {"consumers": ["reads"], "policy": "keep"}


# --- on_divergence where steps made graphs --------------------------------------------------------
@task
def gated(x: int, folder: str) -> int:
    if not (Path(folder) / "gate").exists():
        raise ValueError("closed")
    return x


@task
def inside(folder: str) -> Any:
    first = counts.bind(folder)
    return joins.bind(reads.bind(first, folder), first, folder)


def of_items(folder: str) -> Any:
    counted = counts.map([folder])
    return [reads.map(counted, folder=folder), gated.map(counted, folder=folder)]


def of_a_graph(folder: str) -> Any:
    return inside.bind(folder)


DIVERGING = {of_items: r"counts\[0\].*reads\[0\]", of_a_graph: "inside/counts.*inside/reads"}
"""What the message names."""


@pytest.fixture(params=DIVERGING)
def grown(request: pytest.FixtureRequest, client: Perdure, world: World) -> Any:
    """A run "r" of which an item, or a step of a returned graph, gives another value each time."""
    with pytest.raises(RunFailed):
        client.run(request.param(str(world.folder)), run_id="r", on_failure="finish")
    world.open_gate()
    return request.param


def flat(result: Any) -> list[int]:
    return [each[0] if isinstance(each, list) else each for each in result]


def test_item_that_differs_fails_the_run_and_names_who_read_the_other(
    client: Perdure, grown: Any
) -> None:
    with pytest.raises(NondeterminismError, match=DIVERGING[grown]):
        client.resume("r").result(30)


def test_readers_of_an_item_are_recomputed_on_demand(
    client: Perdure, grown: Any, world: World
) -> None:
    assert flat(client.resume("r", on_divergence="recompute").result(30)) == [2, 2]

    assert world.runs_of("reads") == 2


def test_mix_of_items_is_kept_on_demand(client: Perdure, grown: Any, world: World) -> None:
    assert flat(client.resume("r", on_divergence="keep").result(30)) == [1, 2]

    assert world.runs_of("reads") == 1


def test_policy_on_divergence_may_be_given_when_the_id_is_run_again(
    client: Perdure, diverging: World
) -> None:
    folder = str(diverging.folder)
    first = counts.bind(folder)
    again = joins.bind(reads.bind(first, folder), first, folder)

    assert client.run(again, run_id="r", on_divergence="recompute") == (2, 2)
