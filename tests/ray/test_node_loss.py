"""Nodes, workers and actors of a Ray cluster are lost in the middle of runs."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.crash.ledger import Ledger, check_executions, wait_until
from tests.ray import node_steps as steps
from tests.reliability.figures import tell_figures

from perdure.client import Perdure, open_store
from perdure.runs import Run

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
KILLS = int(os.environ.get("PERDURE_RAY_KILLS", "1"))
SEED = int(os.environ.get("PERDURE_RAY_SEED", "1"))


@pytest.fixture(scope="module")
def client(
    ray_cluster: LocalCluster,
    safe: LocalNode,
    doomed: Doomed,
    gpu: Doomed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Perdure]:
    """Return the verbs once the nodes are there: what an executor has is counted at its start."""
    store = str(tmp_path_factory.mktemp("store") / "perdure.db")
    with open_store(store, executor="ray", ray_address=ray_cluster.address) as opened:
        yield opened


@pytest.fixture
def ledger(ray_ledger: Path) -> Ledger:
    return Ledger(ray_ledger)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture(scope="module")
def safe(ray_cluster: LocalCluster) -> Iterator[LocalNode]:
    node = ray_cluster.add(resources={"safe": 1})
    yield node
    ray_cluster.remove(node)


class Doomed:
    """A node that is lost in the middle of a run, and the one that is in its place then."""

    def __init__(self, cluster: LocalCluster, **offer: Any) -> None:
        self._cluster = cluster
        self.node = cluster.add(**offer)

    def replace(self) -> None:
        """Lose the node, and start one like it."""
        self.node = self._cluster.replace(self.node)


@pytest.fixture(scope="module")
def doomed(ray_cluster: LocalCluster) -> Iterator[Doomed]:
    made = Doomed(ray_cluster, resources={"doomed": 1})
    yield made
    ray_cluster.remove(made.node)


@pytest.fixture(scope="module")
def gpu(ray_cluster: LocalCluster) -> Iterator[Doomed]:
    made = Doomed(ray_cluster, cpus=1, gpus=1)
    yield made
    ray_cluster.remove(made.node)


def runs_held(ledger: Ledger, run: Run) -> bool:
    return "held" in ledger.began(run.id)


def test_only_what_a_lost_node_held_runs_again(
    client: Perdure, ledger: Ledger, gate: Path, doomed: Doomed
) -> None:
    wanted = client.execute(steps.losing_a_node, gate=str(opened(gate)))
    gate.unlink()
    run = client.start(steps.losing_a_node, gate=str(gate), run_id="node")
    wait_until(lambda: runs_held(ledger, run), PATIENCE_S, "the steps do not begin")
    lost = doomed.node.id

    doomed.replace()
    client.runtime.blobs.drop_spool(run.id)  # what was not to be kept is gone with the node
    opened(gate)

    assert run.result(timeout=PATIENCE_S) == wanted
    assert Counter(ledger.began(run.id)) == {
        **dict.fromkeys(["source", "kept", "last"], 1),
        **dict.fromkeys(["held", "first", "second"], 2),
    }
    assert "its value is needed by second" in run["first"].why()
    check_executions(ledger.lines(run.id), rows_of(client, run))
    attempt = run["held"].attempts[0]
    assert attempt.cause == "worker lost"
    assert attempt.error is not None
    assert lost[:12] in attempt.error.message, "it is not said which node was lost"


def test_step_runs_again_when_its_worker_is_killed(
    client: Perdure, ledger: Ledger, gate: Path, doomed: Doomed
) -> None:
    run = client.start(steps.losing_a_node, gate=str(gate), run_id="worker")
    wait_until(lambda: runs_held(ledger, run), PATIENCE_S, "the steps do not begin")
    [pid] = [line.pid for line in ledger.lines(run.id) if line.step == "held"]

    psutil.Process(pid).kill()
    opened(gate)

    run.result(timeout=PATIENCE_S)
    assert Counter(ledger.began(run.id)) == {
        **dict.fromkeys(["source", "kept", "first", "second", "last"], 1),
        "held": 2,
    }
    assert [each.cause for each in run["held"].attempts] == ["worker lost", "succeeded"]


def test_actor_comes_back_from_its_snapshot_when_its_node_is_lost(
    client: Perdure, ledger: Ledger, gate: Path, doomed: Doomed
) -> None:
    run = client.start(steps.losing_an_actor, gate=str(gate), run_id="actor")
    wait_until(lambda: runs_held(ledger, run), PATIENCE_S, "the calls do not end")

    doomed.replace()
    opened(gate)

    assert run.result(timeout=PATIENCE_S) == sum(range(7))
    began = Counter(ledger.began(run.id))
    assert [began[f"add-{n}"] for n in range(7)] == [1, 1, 1, 2, 2, 1, 1], "from the third on"


def test_model_is_made_again_on_another_gpu_when_its_node_is_lost(
    client: Perdure, ledger: Ledger, gate: Path, gpu: Doomed
) -> None:
    run = client.start(steps.losing_a_model, gate=str(gate), run_id="model")
    wait_until(lambda: runs_held(ledger, run), PATIENCE_S, "the calls do not end")
    first = gpu.node.id

    gpu.replace()
    opened(gate)

    assert run.result(timeout=PATIENCE_S) == 6
    where = {(line.step, line.note) for line in ledger.lines(run.id) if line.event == "began"}
    assert {node for step, node in where if step == "before"} == {first}
    assert {node for step, node in where if step == "after"} == {gpu.node.id}
    assert ledger.began(run.id).count("before") == 1


def test_storm_of_losses_loses_nothing_and_doubles_nothing(
    client: Perdure, ledger: Ledger, ray_cluster: LocalCluster
) -> None:
    """Nodes and workers in turn, by chance, under a graph by chance."""
    rng, size = random.Random(SEED), 20 * (KILLS + 1)
    nodes = [Doomed(ray_cluster, cpus=1) for _ in range(2)]
    wanted = client.execute(steps.tangle, seed=SEED, size=size)
    run = client.start(steps.tangle, seed=SEED, size=size, run_id="storm")

    killed = Counter[str]()
    for number in range(KILLS):
        due = size * (number + 1) // (KILLS + 2)
        wait_until(
            lambda: ended(ledger, run) >= due or run.record.finished_at,  # noqa: B023
            PATIENCE_S,
            "it does not go on",
        )
        victim = rng.choice(nodes)
        if number % 2 == 0:
            victim.replace()
            killed["node"] += 1
        else:
            killed["worker"] += kill_a_worker(victim, rng)

    assert run.result(timeout=2 * PATIENCE_S) == wanted
    lines = ledger.lines(run.id)
    check_executions(lines, rows_of(client, run))
    executions = sum(line.event == "began" for line in lines)
    tell_figures(
        kills=killed.total(),
        nodes=killed["node"],
        workers=killed["worker"],
        steps=size + 1,
        executions=executions,
    )
    for each in nodes:
        ray_cluster.remove(each.node)


def kill_a_worker(victim: Doomed, rng: random.Random) -> int:
    """Kill one of the processes of a node in which steps run; return how many were there."""
    workers = [each for each in victim.node.processes() if each.name().startswith("ray::")]
    workers = [each for each in workers if "Agent" not in each.name()]
    if workers:
        rng.choice(workers).kill()
    return len(workers[:1])


def ended(ledger: Ledger, run: Run) -> int:
    return sum(line.event == "ended" for line in ledger.lines(run.id))


def opened(gate: Path) -> Path:
    gate.touch()
    return gate


def rows_of(client: Perdure, run: Run) -> Any:
    return client.runtime.store.list_steps(run.record.id, current_only=False)
