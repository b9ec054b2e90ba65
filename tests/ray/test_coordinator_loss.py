"""The coordinator of a run on Ray dies, or the head with all nodes: it goes on by its id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.crash.ledger import Undisturbed, check, processes_of, wait_until
from tests.crash.stage import Stage
from tests.ray import node_steps as steps
from tests.ray.fixtures import start_cluster

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
RUN = "held"
_PLAY = """
import sys
import perdure
from tests.ray import node_steps as steps

with perdure.open(sys.argv[1], executor="ray", ray_address=sys.argv[2]) as client:
    run = client.get_run("held") if sys.argv[3] == "resume" else None
    if run is None:
        client.run(steps.losing_a_node, gate=sys.argv[4], run_id="held")
    else:
        client.resume("held").result()
"""


class Play:
    """A stage with a cluster of its own, of which all can be lost."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        self.gate = folder / "gate"
        self.cluster = self.make_cluster()

    def make_cluster(self) -> LocalCluster:
        cluster = start_cluster(self.stage.own_environment)
        cluster.add(resources={"safe": 1, "doomed": 1}, cpus=2)
        return cluster

    def start(self, verb: str) -> psutil.Popen:
        words = (self.stage.store, self.cluster.address, verb, str(self.gate))
        return self.stage.start("-c", _PLAY, *words)

    def wait_for_held(self) -> int:
        """Return the process in which the step runs that waits for the gate."""
        wait_until(lambda: self.stage.ledger.count("held"), PATIENCE_S, "it does not begin")
        return next(line.pid for line in self.stage.ledger.lines() if line.step == "held")

    def note_committed(self) -> None:
        with self.stage.open() as client:
            self.stage.ledger.note_committed(client, RUN)

    def check(self) -> None:
        """The run has ended as an undisturbed one does; what had committed ran once."""
        with self.stage.open() as client:
            wanted = client.execute(steps.losing_a_node, gate=str(self.gate))
            rows = client.runtime.store.list_steps(client.get_run(RUN).record.id)
            digests = {row.step_id: row.value.value_digest for row in rows if row.value}
            check(self.stage.ledger, client, RUN, Undisturbed(wanted, digests))
        began = self.stage.ledger.began(RUN)
        for step in ("source", "kept"):
            assert began.count(step) == 1, f"{step} was committed, and ran again"


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    made = Play(tmp_path)
    yield made
    made.stage.end()
    made.cluster.end()


def test_nothing_of_a_dead_coordinator_runs_on_and_another_goes_on_by_id(play: Play) -> None:
    first = play.start("run")
    held = play.wait_for_held()
    play.note_committed()

    first.kill()

    wait_until(lambda: not psutil.pid_exists(held), PATIENCE_S, "its step runs on")
    play.gate.touch()
    code, said = play.stage.finish(play.start("resume"))
    assert code == 0, said
    play.check()


def test_server_on_ray_lets_steps_end_when_it_is_told_to_stop(play: Play) -> None:
    with play.stage.open(executor="ray") as client:
        client.submit(steps.losing_a_node, gate=str(play.gate), run_id=RUN)
    words = ["-m", "perdure", "up", "--no-http", "--drain", "4m", "--store", play.stage.store]
    up = play.stage.start(*words, "--executor", "ray", PERDURE_RAY_ADDRESS=play.cluster.address)
    play.wait_for_held()

    up.terminate()
    play.gate.touch()

    code, said = play.stage.finish(up)
    assert code == 0, said
    assert "stopped" in said
    with play.stage.open() as client:
        assert client.get_run(RUN)["held"].status == "SUCCEEDED"


def test_coordinator_whose_own_node_is_lost_ends_and_leaves_its_run(play: Play) -> None:
    first = play.start("run")
    play.wait_for_held()

    play.cluster.head.raylet.kill()  # the cluster lives

    code, said = play.stage.finish(first)
    assert code != 0
    assert "connected to" in said
    with play.stage.open() as client:
        assert client.get_run(RUN).status == "INTERRUPTED"


def test_run_goes_on_by_id_on_a_new_cluster_when_head_and_coordinator_are_lost(play: Play) -> None:
    first = play.start("run")
    play.wait_for_held()
    play.note_committed()

    play.cluster.kill_all()
    first.kill()

    wait_until(
        lambda: not processes_of(play.stage.ledger), PATIENCE_S, "processes of the cluster are left"
    )
    play.gate.touch()
    play.cluster = play.make_cluster()
    code, said = play.stage.finish(play.start("resume"))
    assert code == 0, said
    play.check()
