from __future__ import annotations

import threading
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from tests.crash.ledger import wait_until
from tests.unit.scheduler.dispatching import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    World,
    definition,
    template,
)

from perdure_scheduler import dispatcher
from perdure_scheduler.moments import Form, Moment, Placeholder
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Digest, RunId, RunPolicy
from perdure_storage.schedule_records import ScheduleChange


@pytest.fixture
def world() -> World:
    return World()


def test_run_is_made_when_it_is_due_and_not_before(world: World) -> None:
    world.registry.register(definition())

    world.at(NOON + 59 * MINUTE)
    before = world.runs
    world.at(NOON + HOUR)

    assert before == []
    assert world.runs == ["h-20260101T130000Z"]
    assert world.told() == ["13:00 fire: on time"]
    assert world.schedule().next_at == NOON + 2 * HOUR


def test_run_is_as_its_schedule_says(world: World) -> None:
    given = world.values.store(3, name="k")
    run = template(
        inputs={"k": given},
        policy=RunPolicy(durability="group"),
        tags={"team": "a"},
        queue="slow",
        priority=2,
        deadline=2 * HOUR,
    )
    world.registry.register(definition(run=run))

    world.at(NOON + HOUR)

    made = world.store.get_run(RunId("h-20260101T130000Z"))
    assert (made.workflow, made.origin, made.plan_digest) == ("iris", "flows:iris", None)
    assert made.inputs == {"k": given}
    assert (made.policy.durability, made.tags) == ("group", {"team": "a"})
    assert (made.queue, made.priority) == ("slow", 2)
    assert (made.created_at, made.deadline) == (NOON + HOUR, NOON + 3 * HOUR)
    assert made.schedule == "h"
    assert world.ticks()[0].code == "flows:iris"


@pytest.mark.parametrize(
    ("moment", "form", "value"),
    [
        (Moment.FIRE_TIME, Form.DATETIME, datetime(2026, 1, 2, 2)),
        (Moment.FIRE_TIME, Form.DATE, date(2026, 1, 2)),
        (Moment.INTERVAL_START, Form.DATE, date(2026, 1, 1)),
        (Moment.INTERVAL_END, Form.TEXT, "2026-01-02T02:00:00+01:00"),
    ],
)
def test_inputs_are_filled_with_the_times_of_the_tick_as_its_zone_shows_them(
    world: World, moment: Moment, form: Form, value: Any
) -> None:
    run = template(placeholders={"when": Placeholder(moment=moment, form=form)})
    world.registry.register(definition(cron="0 2 * * *", tz="Europe/Berlin", run=run))

    world.at(NOON + 13 * HOUR + MINUTE)  # a minute late: the nominal time counts

    made = world.store.get_run(RunId("h-20260102T010000Z"))
    found = world.values.load(made.inputs["when"])
    if isinstance(value, datetime):
        assert found.utcoffset() == HOUR
        found = found.replace(tzinfo=None)
    assert found == value


def test_tick_waits_for_the_end_of_a_run_and_goes_on_then(world: World) -> None:
    world.registry.register(definition())
    world.at(NOON + HOUR)
    world.at(NOON + 2 * HOUR)
    waiting = world.runs

    world.end("h-20260101T130000Z")
    world.at(NOON + 2 * HOUR + MINUTE)

    assert waiting == ["h-20260101T130000Z"]
    assert world.runs == ["h-20260101T130000Z", "h-20260101T140000Z"]
    assert world.told() == ["13:00 fire: on time", "14:00 fire: turn came"]


def test_run_that_goes_on_is_asked_to_end_for_the_next_tick(world: World) -> None:
    world.registry.register(definition(overlap="cancel_running"))
    world.at(NOON + HOUR)

    world.at(NOON + 2 * HOUR)
    world.at(NOON + 2 * HOUR + MINUTE)

    first = world.store.get_run(RunId("h-20260101T130000Z"))
    assert first.status is RunStatus.CANCELLED
    assert world.runs == ["h-20260101T130000Z", "h-20260101T140000Z"]


def test_schedule_pauses_after_failures_and_says_so(world: World) -> None:
    world.registry.register(definition(on_failure="pause_after(1)"))
    world.at(NOON + HOUR)
    world.end("h-20260101T130000Z", RunStatus.FAILED)

    world.at(NOON + 2 * HOUR)

    assert world.runs == ["h-20260101T130000Z"]
    assert world.schedule().paused
    assert world.ticks()[-1].reason.endswith("1 runs in a row failed")


def test_schedule_that_cannot_be_read_stands_still_and_the_others_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.registry.register(definition("bad"))
    world.registry.register(definition("good"))
    broken = msgspec.structs.replace(world.schedule("bad"), definition='{"new": 1}', digest="x")
    world.store.schedules.register(ScheduleChange(schedule=broken))

    world.at(NOON + HOUR)
    world.at(NOON + 2 * HOUR)

    assert world.runs == ["good-20260101T130000Z"]
    assert [record.message[:36] for record in caplog.records if record.levelname == "ERROR"] == [
        "schedule bad stands still: a stored "
    ]


def test_many_dispatchers_make_each_run_once(world: World) -> None:
    names = [f"s{n}" for n in range(30)]
    for name in names:
        world.registry.register(definition(name, interval="10m"))
    others = [world.another_dispatcher() for _ in range(4)]
    made: list[str] = []

    for minute in range(60):
        world.clock.jump(60)
        for each in (*others[minute % 4 :], *others[: minute % 4]):
            made += each.dispatch().made
        for run_id in made[-30:]:
            if world.store.get_run(RunId(run_id)).status is RunStatus.QUEUED and minute % 10 == 5:
                world.end(run_id)

    assert len(made) == len(set(made)) == 30 * 6
    assert sorted(made) == sorted(world.runs)


class Racing:
    """Schedules of a store, which another dispatcher changes just before each write."""

    def __init__(self, schedules: Any, other: Any) -> None:
        self._schedules = schedules
        self._other = other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._schedules, name)

    def fire(self, batch: Any) -> Any:
        self._other.dispatch()
        return self._schedules.fire(batch)


def test_dispatcher_that_is_second_changes_nothing(world: World) -> None:
    world.registry.register(definition())
    slow = world.another_dispatcher()
    slow._schedules = Racing(world.store.schedules, world.dispatcher)  # type: ignore[assignment]
    world.clock.jump(HOUR.total_seconds())

    second = slow.dispatch()

    assert (second.made, second.landed, second.left) == ((), 0, 1)
    assert world.runs == ["h-20260101T130000Z"]
    assert world.schedule().version == 2


def test_clock_that_goes_back_doubles_nothing(world: World) -> None:
    world.registry.register(definition(overlap="allow(max=9)"))
    world.at(NOON + HOUR)

    for when in (NOON, NOON + HOUR, NOON + HOUR + MINUTE, NOON - DAY, NOON + 2 * HOUR):
        world.at(when)

    assert world.runs == ["h-20260101T130000Z", "h-20260101T140000Z"]


def test_pinned_run_has_the_plan_of_its_schedule(world: World) -> None:
    from perdure_storage.contract_samples import a_plan

    plan = a_plan("pinned")
    pinned = definition(run=template(plan_digest=plan.digest))
    world.registry.register(pinned, plan=plan)

    world.at(NOON + HOUR)

    assert world.store.get_run(RunId("h-20260101T130000Z")).plan_digest == plan.digest
    assert world.ticks()[0].code == Digest(plan.digest)


# --- concurrency keys -----------------------------------------------------------------------------
def of_warehouse(world: World, name: str, **options: Any) -> None:
    """Register an hourly schedule under a key."""
    world.registry.register(definition(name, concurrency="warehouse", **options))


def test_ticks_of_one_key_at_one_time_fire_one_after_the_other(world: World) -> None:
    for name in ("b", "a", "c"):
        of_warehouse(world, name)

    world.at(NOON + HOUR)
    waiting = [world.told(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        world.end(f"{name}-20260101T130000Z")
        world.at(world.clock.now() + MINUTE)

    assert waiting == [["13:00 fire: on time"], ["13:00 defer: waits"], ["13:00 defer: waits"]]
    assert world.runs == [f"{name}-20260101T130000Z" for name in ("a", "b", "c")]
    assert world.told("c") == ["13:00 fire: turn came"]


def test_tick_that_waits_for_a_run_of_another_schedule_names_both(world: World) -> None:
    of_warehouse(world, "nightly")
    of_warehouse(world, "hourly", cron="30 13 * * *")
    world.at(NOON + HOUR)

    world.at(NOON + 90 * MINUTE)

    reason = world.ticks("hourly")[-1].reason
    assert reason == "waits for its turn: nightly-20260101T130000Z of schedule nightly goes on"


@pytest.mark.parametrize(
    ("overlap", "told"),
    [
        ("skip", "13:30 skip: overlap"),
        ("queue", "13:30 defer: waits"),
        ("queue_all(2)", "13:30 defer: waits"),
        ("cancel_running", "13:30 fire: turn came"),  # that run had not begun
        ("allow(1)", "13:30 skip: overlap"),
        ("allow(2)", "13:30 fire: on time"),
    ],
)
def test_each_overlap_policy_counts_runs_of_the_key(world: World, overlap: str, told: str) -> None:
    of_warehouse(world, "nightly")
    of_warehouse(world, "h", cron="30 13 * * *", overlap=overlap)

    world.at(NOON + HOUR)
    world.at(NOON + 90 * MINUTE)

    assert world.told("h")[-1] == told
    cancelled = world.store.get_run(RunId("nightly-20260101T130000Z")).cancel_requested
    assert cancelled == (overlap == "cancel_running")


def test_who_has_waited_longest_under_a_key_is_not_overtaken_by_later_ticks(world: World) -> None:
    of_warehouse(world, "nightly")
    of_warehouse(world, "often", cron="*/10 * * * *", overlap="allow(3)")
    world.at(NOON + 50 * MINUTE)
    often = world.runs
    world.at(NOON + HOUR)
    for run_id in often:
        world.end(run_id)
    world.end("often-20260101T130000Z")

    world.at(NOON + 70 * MINUTE)

    assert world.told("nightly") == ["13:00 fire: turn came"]
    assert world.told("often")[-1] == "13:10 skip: overlap"
    assert "schedule nightly has waited since" in world.ticks("often")[-1].reason


def test_schedule_that_is_paused_while_it_waits_holds_nobody_up(world: World) -> None:
    for name in ("a", "b", "c"):
        of_warehouse(world, name)
    world.at(NOON + HOUR)
    world.registry.pause("b", "by hand")
    world.end("a-20260101T130000Z")

    world.at(NOON + 61 * MINUTE)

    assert world.runs[-1] == "c-20260101T130000Z"


def test_schedule_that_gets_a_key_counts_the_runs_of_the_others_from_then_on(world: World) -> None:
    of_warehouse(world, "nightly")
    world.registry.register(definition("h", cron="30 13 * * *"))
    world.at(NOON + HOUR)

    of_warehouse(world, "h", cron="30 13 * * *")
    world.at(NOON + 90 * MINUTE)

    assert world.told("h") == ["13:30 defer: waits"]


# --- serving --------------------------------------------------------------------------------------
def test_who_serves_looks_when_it_is_told_of_a_change_and_ends_when_it_is_told_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_EVERY_S", 3600.0)
    stop = threading.Event()
    serving = threading.Thread(target=world.dispatcher.serve, args=(stop,))
    serving.start()
    world.registry.register(definition())
    world.clock.jump(HOUR.total_seconds())

    world.dispatcher.wake()

    wait_until(lambda: bool(world.runs), 10, "nobody looked")
    stop.set()
    world.dispatcher.wake()
    serving.join(timeout=10)
    assert not serving.is_alive()
