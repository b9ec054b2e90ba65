"""SIGKILL at every named crash point; another process goes on by the run's id."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.ledger import Undisturbed, check, check_nothing_is_left
from tests.crash.scenarios import RUN, SCENARIOS
from tests.crash.stage import Stage

from perdure_storage.faults import CRASH_POINTS

HITS = int(os.environ.get("PERDURE_CRASH_HITS", "1"))
SCENARIO_OF = {point: name for name, each in SCENARIOS.items() for point in each.points}
COMMITS = [
    point
    for point in CRASH_POINTS
    if point.startswith(("run.", "claim.", "commit.", "terminal.", "fire.", "save."))
]
GC = ["condemn.after", "blob.after-delete", "free.before", "absolve.after"]
RUN_STEPS = ("fresh", "submitted", "growing", "waiting", "worker", "acting", "saving")
"""Scenarios in which steps run; what is killed in the others knows of no executor."""
ON_RAY = ["dispatch.after", "commit.before-telling", "worker.after-encode", "worker.after-outcome"]
if os.environ.get("PERDURE_RAY_POINTS") == "all":
    ON_RAY = sorted(
        point for name in (*RUN_STEPS, "worker that saves") for point in SCENARIOS[name].points
    )
KILLED = -signal.SIGKILL


def test_every_crash_point_has_a_scenario() -> None:
    assert set(SCENARIO_OF) == set(CRASH_POINTS)


@pytest.mark.parametrize("hit", range(1, HITS + 1))
@pytest.mark.parametrize("point", sorted(SCENARIO_OF))
def test_run_goes_on_when_killed_at(
    point: str, hit: int, stage: Stage, undisturbed: Callable[[str], Undisturbed]
) -> None:
    if SCENARIOS[SCENARIO_OF[point]].on_sqlite_alone and stage.is_on_postgres:
        pytest.skip("PostgreSQL has another way to do this")
    wanted = undisturbed(SCENARIO_OF[point])

    die_and_recover(stage, point, hit)

    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted)
    check_nothing_is_left(stage.ledger)


@pytest.mark.postgres
@pytest.mark.parametrize("point", [*COMMITS, *GC])
def test_run_on_postgres_goes_on_when_killed_at(
    point: str, tmp_path: Path, postgres_url: str, undisturbed: Callable[[str], Undisturbed]
) -> None:
    stage = Stage(tmp_path, postgres_url)
    wanted = undisturbed(SCENARIO_OF[point])

    die_and_recover(stage, point, 1)

    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted)
    check_nothing_is_left(stage.ledger)


@pytest.mark.ray
@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", ON_RAY)
def test_run_on_ray_goes_on_when_killed_at(
    point: str, stage_on_ray: Stage, undisturbed: Callable[[str], Undisturbed]
) -> None:
    wanted = undisturbed(SCENARIO_OF[point])

    die_and_recover(stage_on_ray, point, 1)

    with stage_on_ray.open() as client:
        check(stage_on_ray.ledger, client, RUN, wanted)
    check_nothing_is_left(stage_on_ray.ledger)


def die_and_recover(stage: Stage, point: str, hit: int) -> None:
    """Let a process, or one worker of it, die at a point; let a fresh process go on."""
    name = SCENARIO_OF[point]
    passed = stage.folder / "passed"
    code, said = stage.play(name, "act", crash=f"{point}:{hit}:kill@{passed}")
    times = passed.stat().st_size if passed.exists() else 0
    if times < hit and hit > 1:
        pytest.skip(f"{name} passes {point} {times} times only")
    assert times >= hit, f"the scenario {name!r} does not reach {point}: {said}"
    # On Ray the first that passes dies, be it the coordinator or a worker.
    wanted = {0, KILLED} if stage.cluster else {0 if SCENARIOS[name].worker_dies else KILLED}
    assert code in wanted, said
    if not point.startswith("migration."):  # the store may be newer than this code now
        note_committed(stage)
    code, said = stage.play(name, "recover")
    assert code == 0, said
    if point == "cancel.after":
        assert "served: CANCELLED" in said, "a recorded wish to cancel was forgotten"


def note_committed(stage: Stage) -> None:
    """Write into the ledger what the store holds while nobody drives."""
    if not stage.is_on_postgres and not os.path.exists(stage.store):
        return
    with stage.open() as client:
        if client.runtime.store.find_run(RUN) is not None:
            stage.ledger.note_committed(client, RUN)
