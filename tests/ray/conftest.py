"""A small Ray for these tests; they skip where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.ray.fixtures import CONTRACT_TOKEN

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

HAS_RAY = importlib.util.find_spec("ray") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not HAS_RAY and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="Ray is missing: pip install 'perdure[ray]'"))


@pytest.fixture(scope="module")
def ray_here(ray_cluster: LocalCluster, ray_node: LocalNode) -> Iterator[None]:
    """Have this process connected to the cluster, on which there are two CPUs meanwhile."""
    import ray

    ray.init(ray_cluster.address, log_to_driver=False, ignore_reinit_error=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRACT_TOKEN", CONTRACT_TOKEN)  # and workers have that of their node
        yield
    ray.shutdown()
