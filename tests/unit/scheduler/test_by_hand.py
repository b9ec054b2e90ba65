from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from tests.unit.scheduler.dispatching import HOUR, MINUTE, NOON, World, definition

from perdure_scheduler.by_hand import ByHand, Reprocess, Wish, times_within
from perdure_scheduler.decide import Why
from perdure_scheduler.definition import Definition
from perdure_scheduler.errors import ScheduleError
from perdure_storage.lifecycle import RunStatus


@pytest.fixture
def world() -> World:
    return World()


def by_hand(world: World) -> ByHand:
    return ByHand(world.store, world.registry)


def hourly(world: World, **options: Any) -> Definition:
    """Register an hourly schedule, and return it."""
    made = definition(**options)
    world.registry.register(made)
    return made


def let_pass(world: World, hours: int) -> None:
    """Let some hours pass, each with its tick."""
    for _ in range(hours):
        world.at(world.clock.now() + HOUR)


def wishes(
    world: World, first: datetime, last: datetime, reprocess: str = "none", backfill: str = "b"
) -> list[Wish]:
    schedule = Definition.from_json(world.schedule().definition).schedule
    times = times_within(schedule, first, last)
    return by_hand(world).wishes(schedule, times, Reprocess(reprocess), backfill)


def backfill(world: World, *args: Any, upto: int = 1000, **options: Any) -> list[str]:
    """Make at most so many runs of a backfill, and return their ids."""
    wanted = [each for each in wishes(world, *args, **options) if each.is_made][:upto]
    return [each.run_id for each in wanted if by_hand(world).grant("h", each, Why.BACKFILL)]


def test_triggered_run_has_its_own_id_and_is_noted_as_by_hand(world: World) -> None:
    hourly(world)
    world.at(NOON + 30 * MINUTE)

    run_id = by_hand(world).trigger("h")

    assert run_id == "h-manual-20260101T123000Z"
    assert world.runs == [run_id]
    assert world.told() == ["12:30 fire: triggered"]


def test_run_by_hand_holds_no_tick_up_and_waits_for_none(world: World) -> None:
    hourly(world, overlap="skip")
    world.at(NOON + HOUR)
    by_hand(world).trigger("h")
    world.end("h-20260101T130000Z")

    world.at(NOON + 2 * HOUR)

    assert world.told()[-1] == "14:00 fire: on time"


def test_run_by_hand_that_fails_does_not_pause_the_schedule(world: World) -> None:
    hourly(world, on_failure="pause_after(1)")
    world.end(by_hand(world).trigger("h"), RunStatus.FAILED)

    let_pass(world, 1)

    assert world.told()[-1] == "13:00 fire: on time"


def test_tick_that_waits_goes_on_when_the_run_before_it_ends_beside_runs_by_hand(
    world: World,
) -> None:
    hourly(world)
    let_pass(world, 2)
    by_hand(world).trigger("h")
    assert world.told()[1:] == ["14:00 defer: waits", "14:00 fire: triggered"]

    world.end("h-20260101T130000Z")
    world.at(world.clock.now())

    assert world.told()[1] == "14:00 fire: turn came"


def test_end_of_a_run_by_hand_lets_no_tick_go_on_that_waits_for_another(world: World) -> None:
    hourly(world)
    run_id = by_hand(world).trigger("h")
    let_pass(world, 2)

    world.end(run_id)
    world.at(world.clock.now())

    assert world.told()[-1] == "14:00 defer: waits"
    assert world.dispatcher.dispatch().landed == 0, "there is nothing to decide"


def test_backfill_makes_a_run_of_each_time_that_had_none_and_no_other(world: World) -> None:
    hourly(world)
    world.at(NOON + HOUR)

    made = backfill(world, NOON - 2 * HOUR, NOON + HOUR)

    assert made == [f"h-20260101T{hour}0000Z" for hour in (10, 11, 12)]
    assert world.told() == [
        "10:00 fire: backfill",
        "11:00 fire: backfill",
        "12:00 fire: backfill",
        "13:00 fire: on time",
    ]


def test_backfill_that_is_begun_again_makes_what_is_left(world: World) -> None:
    hourly(world)
    backfill(world, NOON - 5 * HOUR, NOON, upto=2)

    left = backfill(world, NOON - 5 * HOUR, NOON)

    assert len(left) == 4
    assert backfill(world, NOON - 5 * HOUR, NOON) == []
    assert len(world.runs) == 6


def test_row_of_missed_ticks_is_parted_so_that_each_time_is_told_of_once(world: World) -> None:
    hourly(world, catchup="none")
    world.at(NOON + 6.5 * HOUR)
    assert world.told() == ["13:00 miss: superseded x5", "18:00 fire: on time"]

    backfill(world, NOON + 3 * HOUR, NOON + 3 * HOUR)
    backfill(world, NOON + HOUR, NOON + HOUR)

    assert world.told() == [
        "13:00 fire: backfill",
        "14:00 miss: superseded",
        "15:00 fire: backfill",
        "16:00 miss: superseded x2",
        "18:00 fire: on time",
    ]


def test_time_that_was_run_by_hand_before_it_came_is_not_run_again(world: World) -> None:
    hourly(world)
    backfill(world, NOON + HOUR, NOON + HOUR)

    world.at(NOON + HOUR)

    assert world.runs == ["h-20260101T130000Z"]
    assert world.told() == ["13:00 fire: backfill"]


@pytest.mark.parametrize(
    ("reprocess", "again"),
    [("none", []), ("failed", ["13"]), ("all", ["13", "14"])],
)
def test_runs_that_are_over_are_followed_by_others_as_reprocess_says(
    world: World, reprocess: str, again: list[str]
) -> None:
    hourly(world, overlap="allow(max=9)")
    let_pass(world, 3)
    world.end("h-20260101T130000Z", RunStatus.FAILED)
    world.end("h-20260101T140000Z")

    made = backfill(world, NOON + HOUR, NOON + 3 * HOUR, reprocess=reprocess)

    assert made == [f"h-20260101T{hour}0000Z-again-b" for hour in again]
    assert backfill(world, NOON + HOUR, NOON + 3 * HOUR, reprocess=reprocess) == []
    named = {tick.run_id for tick in world.ticks()}
    assert named >= set(made), "the ledger names the newest run of a time"


def test_backfill_that_has_been_done_is_not_done_again_though_its_runs_failed(
    world: World,
) -> None:
    hourly(world)
    world.at(NOON + HOUR)
    world.end("h-20260101T130000Z", RunStatus.FAILED)
    (again,) = backfill(world, NOON + HOUR, NOON + HOUR, reprocess="failed")
    world.end(again, RunStatus.FAILED)

    assert backfill(world, NOON + HOUR, NOON + HOUR, reprocess="failed") == []
    assert backfill(world, NOON + HOUR, NOON + HOUR, reprocess="failed", backfill="c")


def test_bounds_without_a_time_are_answered_with_the_nearest(world: World) -> None:
    schedule = hourly(world).schedule

    with pytest.raises(ScheduleError, match=r"no time in there: .*12:00 UTC and .*13:00 UTC"):
        times_within(schedule, NOON + MINUTE, NOON + 2 * MINUTE)


def test_bounds_that_end_before_they_begin_are_refused(world: World) -> None:
    schedule = hourly(world).schedule

    with pytest.raises(ScheduleError, match=r"13:00 UTC is later than .* 12:00 UTC"):
        times_within(schedule, NOON + HOUR, NOON)


def test_bounds_with_more_times_than_anybody_means_are_refused(world: World) -> None:
    schedule = hourly(world, interval="1s").schedule

    with pytest.raises(ScheduleError, match="has 172,801 times in there"):
        times_within(schedule, NOON, NOON + 48 * HOUR)


def test_run_that_two_backfills_want_is_said_to_be_made_by_one_of_them(world: World) -> None:
    hourly(world)
    world.clock.jump((2 * HOUR).total_seconds())
    [wish] = wishes(world, NOON + HOUR, NOON + HOUR)
    one, other = by_hand(world), by_hand(world)
    fire, told = world.store.schedules.fire, []

    def first(changes: Any) -> Any:
        """Let the other one be first, between what this one reads and what it writes."""
        world.store.schedules.fire = fire  # type: ignore[method-assign]
        told.append(other.grant("h", wish, Why.BACKFILL))
        return fire(changes)

    world.store.schedules.fire = first  # type: ignore[method-assign]
    told.append(one.grant("h", wish, Why.BACKFILL))

    assert told == [True, False]
    assert world.runs == [wish.run_id]
