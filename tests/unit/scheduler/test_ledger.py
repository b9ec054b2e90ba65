from __future__ import annotations

import threading
from datetime import timedelta

from tests.unit.scheduler.dispatching import DAY, HOUR, NOON, World, definition, trigger

from perdure_scheduler.conditions import AnyOf, Event, Files, Webhook
from perdure_scheduler.ledger import Ledger, Retention


def world_with(hours: int, *names: str) -> World:
    """Return a store in which hourly schedules have fired for some hours."""
    world = World()
    for name in names:
        world.registry.register(definition(name, overlap="allow(1000)"))
    for hour in range(hours):
        world.at(NOON + (hour + 1) * HOUR)
    return world


def ledger(world: World, *, keep: timedelta = 365 * DAY, keep_last: int = 1000) -> Ledger:
    retention = Retention(keep=keep, keep_last=keep_last, keep_arrivals=keep)
    return Ledger(world.store.schedules, world.store.triggers, world.clock, retention)


def test_ticks_that_are_too_old_are_forgotten() -> None:
    world = world_with(10, "a", "b")

    gone = ledger(world, keep=3 * HOUR).sweep()

    assert gone == 12
    assert [tick.at for tick in world.ticks("a")] == [NOON + n * HOUR for n in (7, 8, 9, 10)]


def test_of_each_schedule_the_newest_ticks_are_kept() -> None:
    world = world_with(10, "a", "b")

    assert ledger(world, keep_last=3).sweep() == 14

    assert [tick.at for tick in world.ticks("b")] == [NOON + n * HOUR for n in (8, 9, 10)]
    assert len(world.runs) == 20
    assert ledger(world, keep_last=3).sweep() == 0


def test_sweep_ends_when_it_is_told_to() -> None:
    world = world_with(3, "a")
    stop = threading.Event()
    stop.set()

    assert ledger(world, keep_last=1).sweep(stop) == 0


def test_schedule_goes_on_where_it_stood_after_its_ticks_are_forgotten() -> None:
    world = world_with(2, "a")
    ledger(world, keep_last=1).sweep()

    world.at(NOON + 3 * HOUR)

    assert world.told("a") == ["14:00 fire: on time", "15:00 fire: on time"]


# --- arrivals -------------------------------------------------------------------------------------
def test_arrivals_that_are_too_old_are_forgotten() -> None:
    world = World()
    world.triggers.register(trigger("hook", Webhook(keys=("K",))))
    for hour in range(5):
        world.at(NOON + hour * HOUR)
        world.bring("hook", f"k{hour}")

    gone = ledger(world, keep=2 * HOUR).sweep()

    assert gone == 2
    assert list(world.became("hook")) == ["k2", "k3", "k4"]


def test_arrival_that_is_put_off_is_not_forgotten() -> None:
    world = World()
    world.triggers.register(trigger("hook", Webhook(keys=("K",))))
    world.triggers.pause("hook", "a person did")
    world.bring("hook", "k")
    world.at(NOON + 3 * DAY)

    assert ledger(world, keep=DAY).sweep() == 0

    world.triggers.resume("hook")
    assert world.became("hook") == {"k": "fired"}


def test_files_are_not_forgotten_by_who_does_not_list_them() -> None:
    world = World()
    landed = Files(url="in/*.csv")
    world.triggers.register(trigger("t", AnyOf(of={"file": landed, "event": Event(name="e")})))
    world.bring("t", "in/a.csv", condition="file")
    world.at(NOON + 3 * DAY)

    assert ledger(world, keep=DAY).sweep() == 0

    (again,) = world.bring("t", "in/a.csv", condition="file")
    assert not again.is_new
