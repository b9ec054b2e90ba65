"""Steps land on the nodes of a Ray cluster that have what they ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.crash.ledger import Ledger, wait_until
from tests.ray import node_steps as steps

from perdure.client import open_store
from perdure.errors import RunFailed
from perdure.runs import Run
from perdure_storage.lifecycle import RunStatus

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_pipeline_lands_where_its_stages_can_run(
    ray_cluster: LocalCluster, ray_ledger: Path, tmp_path: Path
) -> None:
    """CPU, GPU of a node that comes late, CPU with a resource of its own, and a label."""
    cpu = ray_cluster.add(cpus=2)
    disk = ray_cluster.add(cpus=1, resources={"disk": 1}, labels={"zone": "b"})
    store = str(tmp_path / "store" / "perdure.db")

    with open_store(store, executor="ray", ray_address=ray_cluster.address) as client:
        with pytest.raises(RunFailed, match="gpus=1 asked, 0 here"):
            client.run(steps.pipeline, run_id="unequal")
        gpu = ray_cluster.add(cpus=0, gpus=1)
        wait_until(lambda: succeeds(client.resume("unequal")), 60, "the new node is not seen")
        result = client.get_run("unequal").result()
        wanted = client.execute(steps.pipeline)

    assert result == wanted
    where: dict[str, set[str]] = {}
    for line in Ledger(ray_ledger).lines("unequal"):
        where.setdefault(line.step.partition("#")[0], set()).add(line.note)
    assert where["infer"] == {gpu.id}
    assert where["write"] == where["report"] == {disk.id}
    assert where["decode"] <= {cpu.id, disk.id}
    shown = subprocess.run(
        [sys.executable, "-m", "perdure", "show", "unequal", "--store", store],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for step, node in (("infer", gpu), ("write", disk), ("report", disk)):
        [line] = [line for line in shown.splitlines() if line.split()[:1] == [step]]
        assert node.id[:12] in line, "it is not shown where a step ran"
    for node in (cpu, gpu, disk):
        ray_cluster.remove(node)


def succeeds(run: Run) -> bool:
    run.wait()
    return run.status is RunStatus.SUCCEEDED
