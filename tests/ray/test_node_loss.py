"""Nodes, workers and actors of a Ray cluster are lost in the middle of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.crash.ledger import Ledger, check_executions, wait_until
from tests.ray import node_steps as steps

from perdure.client import Perdure, open_store
from perdure.runs import Run

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def client(
    ray_cluster: LocalCluster,
    safe: LocalNode,
    doomed: Doomed,
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


def opened(gate: Path) -> Path:
    gate.touch()
    return gate


def rows_of(client: Perdure, run: Run) -> Any:
    return client.runtime.store.list_steps(run.record.id, current_only=False)
