"""Ten years of ticks in six zones, with outages, jumps of the clock, failures, pauses and edits.

A dispatcher is played by a loop that asks ``decide`` at odd moments and keeps what it answers, as a
store would. Afterwards the ledger must explain each nominal time, and have fired none twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251 - by seed
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.brute_force import SIX_ZONES

from perdure_scheduler.decide import (
    Outcome,
    Runs,
    ScheduleState,
    TickDecision,
    Verdict,
    decide,
    pause,
    register_again,
    registered,
    resume,
)
from perdure_scheduler.declaration import declared
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.schedule import Schedule

YEARS = int(os.environ.get("PERDURE_TEST_YEARS", "10"))
SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", "1"))
"""How many kinds of schedules each zone has; six are all of them."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=366 * YEARS)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

KINDS: dict[str, dict[str, Any]] = {
    "nightly": {"cron": "30 2 * * *"},
    "midnight": {"cron": "@daily", "dst": "gap=skip, fold=both", "overlap": "skip"},
    "twelve hourly": {"cron": "15 */12 * * *", "overlap": "cancel_running", "jitter": "20m"},
    "business": {"cron": "0 9,17 * * 1-5", "overlap": "queue_all(3)", "catchup": "all(3)"},
    "last friday": {"cron": "0 1,2,3 * * 5L", "overlap": "allow(2)", "catchup": "none"},
    "interval": {"interval": "11h", "jitter": "1h", "grace": "5m", "on_failure": "pause_after(2)"},
}  # fmt: skip


@dataclass
class World:
    """A store, its runs, and a clock that everyone reads and nobody trusts."""

    schedule: Schedule
    chance: Random
    real: datetime = BEGIN
    error: timedelta = timedelta(0)
    state: ScheduleState = field(init=False)
    ledger: dict[datetime, TickDecision] = field(default_factory=dict)
    rows: list[TickDecision] = field(default_factory=list)
    live: dict[str, datetime] = field(default_factory=dict)
    fired: list[str] = field(default_factory=list)
    failed_in_a_row: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.state = registered(self.schedule, self.now)

    @property
    def now(self) -> datetime:
        return self.real + self.error

    @property
    def runs(self) -> Runs:
        return Runs(live=tuple(self.live), failed_in_a_row=self.failed_in_a_row)

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome as the dispatcher's transaction does, and check what must hold in it."""
        assert outcome.state.decided_through >= self.state.decided_through
        self.state = outcome.state
        for each in outcome.decisions:
            assert each.reason
            self._write(each)
        self.most_at_once = max(self.most_at_once, len(self.live))

    def _write(self, decision: TickDecision) -> None:
        before = self.ledger.get(decision.at)
        assert before is None or before.verdict is Verdict.DEFER, "decided twice"
        if decision.count > 1:
            self.rows.append(decision)
        self.ledger[decision.at] = decision
        if decision.run_id is not None:
            assert decision.run_id not in self.fired, "fired twice"
            self.fired.append(decision.run_id)
            self.live[decision.run_id] = self.real + self.chance.random() * 2 * DAY
        for run_id in decision.cancels:
            self.live[run_id] = self.real + MINUTE

    def end_runs(self) -> None:
        for run_id in [each for each, until in self.live.items() if until <= self.real]:
            del self.live[run_id]
            self.failed_in_a_row = self.failed_in_a_row + 1 if self.chance.random() < 0.3 else 0

    def step(self) -> None:
        """Let time go by, most often to where the dispatcher would wake, sometimes far past it."""
        dice = self.chance.random()
        wake = (self.next_wake() - self.error) if dice < 0.9 else self.real
        if dice < 0.9:
            self.real = max(self.real, wake) + self.chance.random() * MINUTE
        elif dice < 0.96:
            self.real += self.chance.random() * 6 * HOUR
        else:
            self.real += self.chance.random() * 20 * DAY  # an outage
        if self.chance.random() < 0.02:
            self.error = self.chance.choice([-1, 0, 0, 1]) * self.chance.random() * 3 * DAY
        self.end_runs()

    def next_wake(self) -> datetime:
        """Return when the dispatcher looks next: at the next due time, or when a run ends."""
        ends = [until + self.error for until in self.live.values()]
        at = self.schedule.next(self.state.decided_through)
        due = [self.schedule.due(at)] if at is not None else []
        waits = self.state.waiting or self.state.held or self.state.paused
        return min((ends if waits and ends else due) or [self.now + DAY])

    def act(self) -> None:
        """Ask, and now and then pause, resume, register again, or crash before the commit."""
        dice = self.chance.random()
        if self.state.paused is not None and dice < 0.3:
            self.keep(resume(self.schedule, self.state, self.now, self.runs))
            self.failed_in_a_row = 0
        elif dice > 0.995:
            self.state = pause(self.state, self.now, "by hand")
        elif dice > 0.9:
            again = Schedule.from_json(self.schedule.to_json())
            self.keep(register_again(self.schedule, again, self.state, self.now, self.runs))
        elif dice > 0.85:
            decide(self.schedule, self.state, self.now, self.runs)  # and it dies
        else:
            self.keep(decide(self.schedule, self.state, self.now, self.runs))


def run(schedule: Schedule, seed: int, until: datetime = END) -> World:
    world = World(schedule, Random(seed))
    while world.real < until:
        world.step()
        world.act()
    return world


def explained(world: World) -> Iterator[tuple[datetime, TickDecision]]:
    """Yield each nominal time up to where the world is, with the decision that explains it."""
    rows = sorted(world.rows, key=lambda row: row.at)
    for at in world.schedule.between(BEGIN, world.state.decided_through):
        while rows and rows[0].last < at:
            rows.pop(0)
        decision = world.ledger.get(at)
        if rows and rows[0].at <= at:
            assert decision is None or decision is rows[0]
            yield at, rows[0]
        else:
            assert decision is not None, f"{at} has no decision"
            yield at, decision


def check(world: World) -> None:
    """Check that each nominal time has one decision, and that runs and state agree with them."""
    ticks = list(explained(world))
    single = [at for at, decision in ticks if decision.count == 1]
    assert set(single) | {row.at for row in world.rows} == set(world.ledger) - {world.state.held}
    assert len(ticks) == len(single) + sum(row.count for row in world.rows)
    fires = [at for at, decision in ticks if decision.verdict is Verdict.FIRE]
    assert sorted(world.fired) == [world.schedule.run_id(at) for at in fires]
    assert len(fires) == world.state.fired
    deferred = [at for at, decision in ticks if decision.verdict is Verdict.DEFER]
    assert tuple(deferred) == world.state.waiting


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("zone", SIX_ZONES)
def test_each_tick_of_ten_years_is_decided_once_and_explained(zone: str, seed: int) -> None:
    kind = list(KINDS)[(SIX_ZONES.index(zone) + seed) % len(KINDS)]
    tz = {} if "interval" in KINDS[kind] else {"tz": zone}
    schedule = declared(zone.replace("/", "-"), **KINDS[kind], **tz)

    world = run(schedule, seed)

    check(world)
    assert world.most_at_once <= (2 if kind == "last friday" else 1)
    assert world.state.fired > 20 * min(YEARS, 3)


@given(
    when=st.sampled_from([{"cron": "0 */2 * * *"}, {"interval": "5h"}, {"cron": "30 1,2,3 * * *"}]),
    overlap=st.sampled_from(
        ["skip", "queue", "queue(3)", "queue_all(9)", "cancel_running", "allow(9)"]
    ),
    catchup=st.sampled_from(["none", "latest", "all(1)", "all(3)", "all(9, window=1d)"]),
    grace=st.sampled_from([None, "1m", "1h", "1d"]),
    jitter=st.sampled_from([0, "5m", "59m"]),
    max_runs=st.sampled_from([None, 30]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=int(os.environ.get("PERDURE_TEST_POLICIES", "40")))
def test_each_tick_is_decided_once_and_explained_under_any_policies(
    when: dict[str, str], catchup: str, seed: int, **policies: Any
) -> None:
    try:
        schedule = declared("any", **when, catchup=catchup, tz="Europe/Berlin", **policies)
    except ScheduleError:  # a catch-up that the overlap policy would drop
        assume(False)

    world = run(schedule, seed, BEGIN + 120 * DAY)

    check(world)
    assert schedule.max_runs is None or world.state.fired <= schedule.max_runs


@pytest.mark.parametrize(
    ("zone", "kind"), list(zip(SIX_ZONES, ["nightly", "business", "last friday"] * 2))
)
def test_an_undisturbed_dispatcher_fires_each_tick_of_ten_years_on_time(
    zone: str, kind: str
) -> None:
    options = {**KINDS[kind], "overlap": "allow(9)"}
    schedule = declared("undisturbed", tz=zone, **options)
    state = registered(schedule, BEGIN)
    fired: list[datetime] = []

    wake = schedule.next(BEGIN)
    while wake is not None and wake <= END:
        outcome = decide(schedule, state, wake, Runs())
        state, wake = outcome.state, outcome.wake_at
        fired += [each.at for each in outcome.decisions if each.verdict is Verdict.FIRE]

    assert fired == list(schedule.between(BEGIN, END))
    local_days = [at.astimezone(schedule.zone).date() for at in fired]
    if kind == "nightly":  # named times come once a day, also where the clocks change
        assert len(local_days) == len(set(local_days)) == (END - BEGIN).days
