"""A Ray cluster for tests, one for a session; without Ray they skip, and say what to install."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file in which the steps of all runs on the session's cluster note themselves."""
    return tmp_path_factory.mktemp("ray") / "ledger.jsonl"


@pytest.fixture(scope="session")
def ray_cluster(ray_ledger: Path) -> Iterator[LocalCluster]:
    """Yield a cluster that is a head without CPUs; a test adds the nodes that it wants."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'perdure[ray]'")
    from examples.local_ray import LocalCluster
    from tests.crash.ledger import VARIABLE

    cluster = LocalCluster({"PYTHONPATH": str(ROOT), VARIABLE: str(ray_ledger)})
    yield cluster
    cluster.end()
