"""A Ray cluster for tests, one for a session; without Ray they skip, and say what to install."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.crash.ledger import VARIABLE
from tests.crash.steps import GATE
from tests.prepared import LEAN, python_path

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

ROOT = Path(__file__).parents[2]
CONTRACT_TOKEN = "hush-hush"
"""What the steps of the executors' contract read as a secret."""


@pytest.fixture(scope="session")
def ray_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file in which the steps of all runs on the session's cluster note themselves."""
    return tmp_path_factory.mktemp("ray") / "ledger.jsonl"


@pytest.fixture(scope="session")
def ray_cluster(ray_ledger: Path) -> Iterator[LocalCluster]:
    """Yield a cluster that is a head without CPUs; a test adds the nodes that it wants."""
    cluster = start_cluster(
        {
            VARIABLE: str(ray_ledger),
            GATE: str(ray_ledger.with_name("gate")),
            "CONTRACT_TOKEN": CONTRACT_TOKEN,
        }
    )
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def ray_node(ray_cluster: LocalCluster) -> Iterator[LocalNode]:
    """Yield a node of two CPUs, which is there for the tests of one file."""
    node = ray_cluster.add(cpus=2)
    yield node
    ray_cluster.remove(node)


@pytest.fixture(scope="module")
def ray_here(ray_cluster: LocalCluster, ray_node: LocalNode) -> Iterator[None]:
    """Have this process connected to the cluster, on which there are two CPUs meanwhile."""
    import ray

    ray.init(ray_cluster.address, log_to_driver=False, ignore_reinit_error=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRACT_TOKEN", CONTRACT_TOKEN)  # and workers have that of their node
        yield
    ray.shutdown()


def start_cluster(environment: Mapping[str, str]) -> LocalCluster:
    """Return a cluster whose workers find the tests, and these variables; skip without Ray."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'perdure[ray]'")
    from examples.local_ray import LocalCluster

    return LocalCluster({"PYTHONPATH": python_path(LEAN, ROOT), **environment})


def on_ray(address: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a process whose steps run on a cluster, in workers that have these
    variables.
    """
    return {
        "PERDURE_EXECUTOR": "ray",
        "PERDURE_RAY_ADDRESS": address,
        "PERDURE_RAY_RUNTIME_ENV": json.dumps({"env_vars": dict(variables)}),
    }
