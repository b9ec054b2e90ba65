"""Several dispatchers on one store through the nights on which the clocks change.

They take turns at odd moments, overtake each other between reading and writing, die before and
after the commit, sleep through hours, and have clocks that are apart. Afterwards each nominal time
has one place in the ledger, and each that fired has one run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251 - by seed
from typing import Any

import pytest
from tests.unit.scheduler.dispatching import HOUR, MINUTE, World, definition

from perdure_scheduler.definition import Definition
from perdure_scheduler.dispatcher import Dispatcher
from perdure_storage.clock import ManualClock
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.records import RunId, RunQuery
from perdure_storage.schedule_records import FireReport, ScheduleChange, ScheduleRecord

SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", "2"))
DAYS = int(os.environ.get("PERDURE_TEST_DAYS", "8"))
ZONES = {
    "Europe/Berlin": (datetime(2026, 3, 26, tzinfo=UTC), datetime(2026, 10, 22, tzinfo=UTC)),
    "America/New_York": (datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 10, 29, tzinfo=UTC)),
    "Australia/Lord_Howe": (datetime(2026, 4, 2, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
}
KINDS: tuple[dict[str, Any], ...] = (
    {"cron": "30 * * * *"},
    {"cron": "*/20 1-3 * * *", "overlap": "queue_all(2)", "catchup": "all(5)"},
    {"interval": "50m", "overlap": "allow(3)", "catchup": "none", "grace": "5m", "jitter": "10m"},
    {"cron": "0 2 * * *", "overlap": "cancel_running"},
)


class Died(Exception):
    """A dispatcher's process is gone."""


class Unsteady:
    """Schedules as a dispatcher that dies, or is overtaken, writes them."""

    def __init__(self, schedules: Any, chance: Random, others: Sequence[Dispatcher]) -> None:
        self._schedules = schedules
        self._chance = chance
        self._others = others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._schedules, name)

    def due(self, now: datetime, limit: int) -> list[ScheduleRecord]:
        """Return what is due, as it may come to who looks at another moment."""
        found: list[ScheduleRecord] = self._schedules.due(now, limit)
        return self._chance.sample(found, k=len(found))

    def fire(self, batch: Sequence[ScheduleChange]) -> FireReport:
        dice = self._chance.random()
        if dice < 0.05:
            raise Died
        if dice < 0.2 and self._others:
            self._others[0].dispatch()
        report: FireReport = self._schedules.fire(batch)
        if 0.2 <= dice < 0.25:
            raise Died
        return report


def dispatchers(world: World, chance: Random) -> list[Dispatcher]:
    """Return three: their clocks are apart by seconds, and each may be overtaken by the last."""
    steady = world.another_dispatcher()
    found = []
    for error_s in (-3.0, 0.0, 7.0):
        clock = Apart(world.clock, timedelta(seconds=error_s))
        each = Dispatcher(world.store, world.values, clock)
        each._schedules = Unsteady(world.store.schedules, chance, [steady])  # type: ignore[assignment]
        found.append(each)
    return found


class Apart(ManualClock):
    """A clock that is some time ahead of another one, or behind it."""

    def __init__(self, other: ManualClock, error: timedelta) -> None:
        super().__init__()
        self._other = other
        self._error = error

    def now(self) -> datetime:
        return self._other.now() + self._error


def live(world: World) -> list[RunId]:
    query = RunQuery(status=tuple(RUN_LIVE), limit=1000)
    return [run.id for run in world.store.list_runs(query)]


def live_through(
    world: World, chance: Random, end: datetime, watch: Callable[[], None] = lambda: None
) -> None:
    everyone = dispatchers(world, chance)
    while world.clock.now() < end:
        hours = 5 * chance.random() if chance.random() < 0.03 else chance.random() / 4
        world.clock.jump(hours * HOUR.total_seconds())
        if chance.random() < 0.02:
            world.clock.jump(-chance.random() * 2 * HOUR.total_seconds())
        for run_id in live(world):
            if chance.random() < 0.4:
                failed = chance.random() < 0.2
                world.end(run_id, RunStatus.FAILED if failed else RunStatus.SUCCEEDED)
        for dispatcher in chance.sample(everyone, k=2):
            with suppress(Died):
                dispatcher.dispatch()
            watch()
    for run_id in live(world):
        world.end(run_id)
    world.at(end + 10 * MINUTE)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("zone", ZONES)
def test_each_time_is_decided_once_whoever_decides_it(zone: str, seed: int) -> None:
    for begin in ZONES[zone]:
        for number, options in enumerate(KINDS):
            world = World(begin)
            one = definition("s", tz=zone, **options)
            world.registry.register(one)

            live_through(world, Random(f"{zone} {begin} {seed} {number}"), begin + DAYS * 24 * HOUR)

            check(world, one, begin)


UNDER_ONE_KEY: tuple[dict[str, Any], ...] = (
    {"cron": "0 * * * *"},
    {"cron": "*/20 1-3 * * *", "overlap": "queue_all(2)", "catchup": "all(5)"},
    {"interval": "50m", "overlap": "skip", "jitter": "10m"},
    {"cron": "0 2 * * *", "overlap": "cancel_running"},
)


@pytest.mark.parametrize("seed", range(2 * SEEDS))
def test_runs_of_one_concurrency_key_never_overlap_whoever_decides(seed: int) -> None:
    begin = ZONES["Europe/Berlin"][seed % 2]
    world = World(begin)
    all_of = [
        definition(f"s{number}", tz="Europe/Berlin", concurrency="warehouse", **options)
        for number, options in enumerate(UNDER_ONE_KEY)
    ]
    for one in all_of:
        world.registry.register(one)

    def watch() -> None:
        assert len(live(world)) <= 1

    live_through(world, Random(f"one key {seed}"), begin + DAYS * 24 * HOUR, watch)

    for one in all_of:
        check(world, one, begin)


def check(world: World, one: Definition, begin: datetime) -> None:
    """Compare the ledger with the schedule's times and with the runs."""
    name = one.schedule.name
    ticks = world.ticks(name)
    covered: list[datetime] = []
    for tick in ticks:
        last = tick.last or tick.at
        times = list(one.schedule.between(tick.at - timedelta(microseconds=1), last))
        assert len(times) == tick.count, tick
        assert tick.reason
        covered += times
    assert len(covered) == len(set(covered)), "a time has two places in the ledger"
    assert covered == list(one.schedule.between(begin, covered[-1])), "a time is in no place"
    fired = [tick.run_id for tick in ticks if tick.decision == "fire"]
    runs = [run_id for run_id in world.runs if run_id.startswith(f"{name}-")]
    assert sorted(fired) == sorted(runs), "ticks that fired and runs are not the same"
    assert len(fired) > 3
