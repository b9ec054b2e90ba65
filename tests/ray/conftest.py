"""One small Ray for all of these tests; they skip where Ray is not installed."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HAS_RAY = importlib.util.find_spec("ray") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not HAS_RAY and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="Ray is missing: pip install 'perdure[ray]'"))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Have this process connected to a Ray of its own, which ends with the tests.

    ``PERDURE_TEST_RAY`` names one that runs already: it takes seconds to start.
    """
    import ray

    # What the contract's steps read as a secret: workers have the environment of their node.
    os.environ["CONTRACT_TOKEN"] = "hush-hush"
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("PERDURE_TEST_RAY")
    runtime_env = {"env_vars": {"CONTRACT_TOKEN": "hush-hush"}}
    if address:
        ray.init(address=address, log_to_driver=False, runtime_env=runtime_env)
        yield
        ray.shutdown()
        return
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            object_store_memory=100 << 20,
            runtime_env=runtime_env,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
