"""What every test gets: no settings from outside, and folders for the kinds of tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.postgres", "tests.s3", "tests.ray.fixtures"]

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storm",
        type=int,
        default=100,
        help="kills in the storm tests (default: 100)",
    )


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own ``PERDURE_*`` variables out; test servers are named by one."""
    for name in list(os.environ):
        if name.startswith("PERDURE_") and not name.startswith("PERDURE_TEST_"):
            monkeypatch.delenv(name)
