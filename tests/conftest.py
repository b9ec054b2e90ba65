"""What every test gets: no settings from outside, and folders for the kinds of tests."""

from __future__ import annotations

import compileall
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.postgres", "tests.s3", "tests.ray.fixtures"]

THREAD_ENDS_WITHIN_S = 5
ROOT = Path(__file__).resolve().parents[1]

# Tests edit a file twice within a second, to the same length: then Python takes the bytecode of the
# text of before. So neither they nor what they start write any.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
if os.environ.get("VIRTUAL_ENV") != sys.prefix:
    os.environ.pop("VIRTUAL_ENV", None)  # of the shell: IPython would warn of it in each output

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storm",
        type=int,
        default=100,
        help="kills in the storm tests (default: 100)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have the bytecode of perdure itself, as an installed package does: hundreds import it."""
    if not hasattr(config, "workerinput"):
        for room in ("workflows", "storage", "scheduler"):
            compileall.compile_dir(ROOT / room, quiet=2)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own ``PERDURE_*`` variables out; test servers are named by one."""
    for name in list(os.environ):
        if name.startswith("PERDURE_") and not name.startswith("PERDURE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="module")
def no_thread_of_ours_goes_on() -> Iterator[None]:
    """Fail a module that leaves a store or a coordinator open: its threads work beside other tests.

    One that ends by itself, as what watches a run that is just over, is waited for; the connection
    to a Ray cluster is the process's, and stays.
    """
    before = set(threading.enumerate())
    yield
    begun = [thread for thread in threading.enumerate() if thread not in before]
    ours = [t for t in begun if t.name.startswith("perdure-") and "-ray" not in t.name]
    for thread in ours:
        thread.join(THREAD_ENDS_WITHIN_S)
    left = sorted(thread.name for thread in ours if thread.is_alive())
    assert not left, f"{', '.join(left)}: close what was opened"
