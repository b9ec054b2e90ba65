"""Seeded worlds with dying, freezing and failing coordinators and workers: all must hold."""

from __future__ import annotations

import logging
import os

import pytest
from tests.crash.simulation import simulate
from tests.reliability.figures import tell_figures

SEEDS = int(os.environ.get("PERDURE_SIMULATION_SEEDS", "300"))
FIRST = int(os.environ.get("PERDURE_SIMULATION_FIRST", "0"))


@pytest.mark.timeout(120 + SEEDS / 4)
@pytest.mark.parametrize("durability", ["step", "group"])
def test_simulation_holds_for_every_seed(durability: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    worlds = [simulate(seed, durability) for seed in range(FIRST, FIRST + SEEDS)]

    assert sum(world.deaths for world in worlds) > SEEDS / 20, "the seeds kill too rarely"
    tell_figures(worlds=len(worlds), deaths=sum(world.deaths for world in worlds))


def test_simulation_replays_a_seed_exactly() -> None:
    first, second = simulate(11), simulate(11)

    assert first.dispatched == second.dispatched
    assert first.committed == second.committed
