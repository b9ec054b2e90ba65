from __future__ import annotations

import pytest
from tests.unit.scheduler.dispatching import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    World,
    definition,
    template,
)

from perdure_scheduler.registered import NOT_DECLARED, Registered
from perdure_storage.errors import ScheduleNotFound
from perdure_storage.records import RunId


@pytest.fixture
def world() -> World:
    return World()


def test_registering_again_changes_nothing(world: World) -> None:
    assert world.registry.register(definition(interval="90m")) is Registered.NEW
    world.at(NOON + HOUR)
    before = world.schedule()

    assert world.registry.register(definition(interval="90m")) is Registered.UNCHANGED

    assert world.schedule() == before


def test_changed_inputs_move_no_time_and_hold_from_now_on(world: World) -> None:
    world.registry.register(definition(run=template(workflow="old")))
    world.clock.jump(HOUR.total_seconds())  # 13:00 is due, and nobody has decided it yet

    assert world.registry.register(definition(run=template(workflow="new"))) is Registered.CHANGED
    world.end("h-20260101T130000Z")
    world.at(NOON + 2 * HOUR)

    made = [world.store.get_run(RunId(run_id)).workflow for run_id in world.runs]
    assert made == ["old", "new"]
    assert world.told() == ["13:00 fire: on time", "14:00 fire: on time"]


def test_paused_schedule_skips_with_the_reason_and_goes_on_when_it_is_resumed(
    world: World,
) -> None:
    world.registry.register(definition())
    world.registry.pause("h", "the source is down")
    world.at(NOON + 2 * HOUR)

    world.registry.resume("h")
    world.at(NOON + 3 * HOUR)

    assert world.runs == ["h-20260101T150000Z"]
    assert world.told() == ["13:00 skip: paused x2", "15:00 fire: on time"]
    assert "the source is down" in world.ticks()[0].reason


def test_what_a_module_declares_no_more_is_paused_and_comes_back_with_it(world: World) -> None:
    world.registry.register(definition("kept"), module="m")
    world.registry.register(definition("left"), module="m")
    world.registry.register(definition("by_hand"))

    assert world.registry.pause_left("m", {"kept"}) == ["left"]
    paused = world.schedule("left").paused
    assert world.registry.pause_left("m", {"kept"}) == []
    again = world.registry.register(definition("left"), module="m")

    assert paused
    assert again is Registered.RESUMED
    assert not world.schedule("left").paused
    assert not world.schedule("by_hand").paused


def test_schedule_that_its_module_left_while_nobody_served_does_not_fire_for_that(
    world: World,
) -> None:
    world.registry.register(definition("left"), module="m")
    world.clock.jump(2 * HOUR.total_seconds())

    world.registry.pause_left("m", set())
    world.at(world.clock.now() + SECOND)

    assert world.told("left") == ["13:00 skip: paused x2"]
    assert world.runs == []


def test_pause_by_a_person_stays_when_the_module_is_registered_again(world: World) -> None:
    world.registry.register(definition(), module="m")
    world.registry.pause("h", "not this week")

    assert world.registry.register(definition(), module="m") is Registered.UNCHANGED

    assert world.schedule().paused
    assert NOT_DECLARED not in world.schedule().state


def test_unknown_schedule_is_told_by_name(world: World) -> None:
    with pytest.raises(ScheduleNotFound, match="nightly"):
        world.registry.pause("nightly", "x")


def test_all_schedules_are_found_page_by_page(world: World) -> None:
    from perdure_storage.schedule_records import ScheduleQuery

    for n in range(1_203):
        world.registry.register(definition(f"s{n:04}"), module="m" if n % 2 else None)

    assert len(world.registry.all(ScheduleQuery())) == 1_203
    assert len(world.registry.all(ScheduleQuery(module="m"))) == 601


def test_time_that_is_due_while_a_schedule_is_changed_is_decided_by_what_it_was(
    world: World,
) -> None:
    world.registry.register(definition(cron="0 * * * *"))
    world.clock.jump((HOUR + MINUTE).total_seconds())

    world.registry.register(definition(cron="30 * * * *"))
    world.end("h-20260101T130000Z")
    world.at(NOON + 2 * HOUR)

    assert world.told() == ["13:00 fire: on time", "13:30 fire: on time"]


def test_tick_that_waits_when_its_schedule_is_paused_is_told_to_wait_for_that(
    world: World,
) -> None:
    world.registry.register(definition())
    world.at(NOON + HOUR)
    world.at(NOON + 2 * HOUR)
    assert world.ticks()[-1].why == "waits"

    world.registry.pause("h", "for repairs")
    world.end(world.live[0])
    world.at(NOON + 2 * HOUR + SECOND)
    paused = world.ticks()[-1]
    world.registry.resume("h")
    world.at(NOON + 2 * HOUR + 2 * SECOND)

    assert (paused.decision, paused.why) == ("defer", "paused")
    assert "paused while this waited for its turn (for repairs)" in paused.reason
    assert world.ticks()[-1].decision == "fire"
