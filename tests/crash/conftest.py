"""Stages for the crash tests, and what runs come to when nothing happens to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.crash import ledger, steps
from tests.crash.here import Here
from tests.crash.scenarios import RUN
from tests.crash.stage import Stage

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

STORE = os.environ.get("PERDURE_TEST_CRASH_STORE", "sqlite")
"""On which store tests are done that do not choose one by themselves: sqlite or postgres."""
EXECUTOR = os.environ.get("PERDURE_TEST_EXECUTOR", "")
"""Where steps run in tests that are done anywhere: "ray", or where the test says.

Done anywhere is what has a ``stage``, whose coordinators are processes, or ``here``, whose
coordinator is in the test's. Tests whose names end in ``on_ray`` are samples of these. Actors by
chance are killed there by ``PERDURE_RAY_PROGRAMS=n`` (the other tests of ``test_actor_programs``
have an executor that loses instances by count), points by ``PERDURE_RAY_POINTS=all`` (the passes
of a point in ``test_kill_anywhere`` are those of the coordinator). Of the others there is nothing
to ask: ``test_out_of_memory`` is about perdure's watch, in whose place Ray has one,
``test_simulation`` has no processes, and disks, buckets, gc, queues and what starts runs know of no
executor.
"""


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> LocalCluster | None:
    """Return a Ray cluster with a node of two CPUs, if tests are to be done there."""
    if EXECUTOR != "ray":
        return None
    request.getfixturevalue("ray_node")
    found: LocalCluster = request.getfixturevalue("ray_cluster")
    return found


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: LocalCluster | None
) -> Iterator[Stage]:
    url = request.getfixturevalue("postgres_url") if STORE == "postgres" else ""
    made = Stage(tmp_path, url, cluster)
    yield made
    made.end()


@pytest.fixture
def stage_on_ray(tmp_path: Path, ray_cluster: LocalCluster, ray_node: LocalNode) -> Iterator[Stage]:
    """Yield a stage whose steps run on Ray, for tests that are samples of those done anywhere."""
    made = Stage(tmp_path, cluster=ray_cluster)
    yield made
    made.end()


@pytest.fixture
def executor() -> str:
    """Return where the steps of a coordinator in this process run."""
    return EXECUTOR or "inline"


@pytest.fixture
def memory() -> Iterator[Path]:
    """Yield a folder in memory, for tests whose process lives on: nothing depends on a disk."""
    folder = Path("/dev/shm")
    with TemporaryDirectory(dir=folder if folder.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def here(
    executor: str, memory: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Here:
    """Return where steps run, with nothing noted yet, for a coordinator in this process."""
    notes = memory
    if executor == "ray":
        request.getfixturevalue("ray_here")
        notes = request.getfixturevalue("ray_ledger").parent
    found = Here(executor, notes)
    found.clear()
    monkeypatch.setenv(ledger.VARIABLE, str(found.ledger.path))
    monkeypatch.setenv(steps.GATE, str(found.gate))
    return found


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], ledger.Undisturbed]:
    """Return what a scenario's run comes to, played once for all tests."""
    known: dict[str, ledger.Undisturbed] = {}

    def find(scenario: str) -> ledger.Undisturbed:
        if scenario not in known:
            stage = Stage(tmp_path_factory.mktemp(scenario))
            for part in ("act", "recover"):
                code, said = stage.play(scenario, part)
                assert code == 0, said
            with stage.open() as client:
                known[scenario] = ledger.Undisturbed.of(client, RUN)
        return known[scenario]

    return find
