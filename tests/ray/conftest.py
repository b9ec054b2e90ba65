"""These tests need Ray; they skip where it is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HAS_RAY = importlib.util.find_spec("ray") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not HAS_RAY and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="Ray is missing: pip install 'perdure[ray]'"))
