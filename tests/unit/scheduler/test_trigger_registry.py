"""Triggers are registered, changed, paused and resumed, and nothing that came is lost by it."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.scheduler.dispatching import HOUR, MINUTE, NOON, World, template, trigger

from perdure_scheduler import trigger_registry
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import AllOf, AnyOf, Event, Files, Listen, RunFinished
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.facts import event
from perdure_scheduler.file_source import passing_over
from perdure_scheduler.registered import NOT_DECLARED, Registered
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import state_of
from perdure_storage.errors import TriggerNotFound
from perdure_storage.lifecycle import RunStatus
from perdure_storage.trigger_records import TriggerChange

BOTH = AllOf(of={"a": Listen(source="m:a"), "b": Listen(source="m:b")}, within=HOUR)


@pytest.fixture
def world() -> World:
    return World()


def after(workflow: str, name: str, runs: str, **more: str) -> Trigger:
    """Return a trigger that runs a workflow after another one, with tags if they are given."""
    return trigger(
        name,
        RunFinished(workflow=workflow, tags=more),
        run=template(workflow=runs, tags={"by": name}),
    )


def test_registering_again_what_is_there_changes_nothing(world: World) -> None:
    assert world.triggers.register(trigger()) is Registered.NEW
    before = world.trigger()

    assert world.triggers.register(trigger()) is Registered.UNCHANGED

    assert world.trigger() == before


def test_row_says_what_a_store_has_to_ask_about(world: World) -> None:
    on = AnyOf(of={"a": Event(name="y"), "b": Event(name="x"), "c": Files(url="in/*")})
    world.triggers.register(trigger(on=on), module="m")
    world.triggers.register(trigger("after", RunFinished(workflow="w")))

    several, after_run = world.trigger(), world.trigger("after")

    assert (several.events, several.listens, several.watches_runs) == (("x", "y"), True, False)
    assert several.module == "m"
    assert (after_run.events, after_run.listens, after_run.watches_runs) == ((), False, True)


def test_changed_trigger_decides_what_comes_from_now_on(world: World) -> None:
    world.triggers.register(trigger(where=event.size > 0))
    world.bring("t", "early", size=0)

    assert world.triggers.register(trigger(where=event.size == 0)) is Registered.CHANGED
    world.bring("t", "early", "late", size=0)

    assert world.became() == {"early": "filtered", "late": "fired"}


def test_cursor_outlives_a_change_that_leaves_the_source_as_it_is(world: World) -> None:
    world.triggers.register(trigger())
    world.intake.receive("t", [], cursor="7")

    world.triggers.register(trigger(inputs={"x": event.row}))

    assert '"cursors":{"":"7"}' in world.trigger().state


def test_what_waits_is_told_when_nobody_waits_for_it_any_more(world: World) -> None:
    world.triggers.register(trigger(on=BOTH))
    world.bring("t", "k", condition="a")

    world.triggers.register(
        trigger(on=AllOf(of={**BOTH.of, "a": Listen(source="m:c")}, within=HOUR))
    )

    assert world.became() == {"a:k": "expired"}
    assert world.trigger().next_at is None


# --- events ---------------------------------------------------------------------------------------
def test_new_trigger_hears_no_event_of_before(world: World) -> None:
    world.emit("price")
    world.triggers.register(trigger(on=Event(name="price")))

    world.at(NOON + MINUTE)
    assert world.became() == {}
    world.emit("price")
    world.at(NOON + MINUTE)

    assert world.became() == {"event-2": "fired"}


def test_events_of_before_a_change_are_decided_by_what_the_trigger_was(world: World) -> None:
    world.triggers.register(trigger(on=Event(name="a"), where=event.payload > 1))
    world.emit("a", 1)
    world.emit("b", 1)
    world.emit("a", 2)

    world.triggers.register(trigger(on=AnyOf(of={"a": Event(name="a"), "b": Event(name="b")})))
    world.emit("b", 3)
    world.at(NOON)

    assert world.became() == {"event-1": "filtered", "event-3": "fired", "event-4": "fired"}


# --- pauses ---------------------------------------------------------------------------------------
def test_what_came_during_a_pause_is_decided_in_its_order_when_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_registry, "_AT_ONCE", 3)
    keys = [f"k{number}" for number in range(8)]
    world.triggers.register(trigger(where=event.size > 0))
    world.triggers.pause("t", "by hand")
    for key in keys:
        world.bring("t", key, size=0 if key == "k2" else 1)
    assert set(world.became().values()) == {"deferred"}
    assert world.runs == []

    after_it = world.triggers.resume("t")

    assert not after_it.paused
    assert world.became() == {key: "filtered" if key == "k2" else "fired" for key in keys}
    assert len(world.runs) == 7
    assert world.triggers.resume("t") == after_it


def test_files_that_landed_during_a_pause_can_be_skipped(world: World) -> None:
    on = AnyOf(of={"files": Files(url="in/*"), "rows": Listen(source="m:rows")})
    world.triggers.register(trigger(on=on))
    world.intake.receive("t", [], condition="files", cursor="begun")
    world.intake.receive("t", [], condition="rows", cursor="7")
    world.triggers.pause("t", "by hand")

    world.triggers.resume("t", skip=True)

    assert state_of(world.trigger()).cursors == {"files": passing_over(NOON), "rows": "7"}


def test_what_came_during_a_pause_can_be_skipped(world: World) -> None:
    world.triggers.register(trigger())
    world.triggers.pause("t", "by hand")
    world.bring("t", "k")

    world.triggers.resume("t", skip=True)
    world.bring("t", "k", "l")

    assert world.became() == {"k": "skipped", "l": "fired"}


def test_windows_are_of_when_something_came_not_of_when_the_pause_ended(world: World) -> None:
    world.triggers.register(trigger(on=BOTH))
    world.triggers.pause("t", "by hand")
    world.bring("t", "1", condition="a")
    world.at(NOON + MINUTE)
    world.bring("t", "1", condition="b")
    world.at(NOON + 2 * HOUR)
    world.bring("t", "2", condition="a")
    world.at(NOON + 4 * HOUR)

    world.triggers.resume("t")

    assert world.became() == {"a:1": "used", "b:1": "fired", "a:2": "expired"}


def test_paused_again_stays_paused_for_its_reason(world: World) -> None:
    world.triggers.register(trigger())

    first = world.triggers.pause("t", "by hand")

    assert first.paused
    assert world.triggers.pause("t", "again") == first


def test_what_is_not_declared_any_more_is_paused_and_goes_on_when_it_is_again(world: World) -> None:
    for name in ("t", "stays", "other"):
        world.triggers.register(trigger(name), module="other" if name == "other" else "m")

    left = world.triggers.pause_left("m", {"stays"})
    world.bring("t", "k")
    again = world.triggers.register(trigger(), module="m")

    assert left == ["t"]
    assert again is Registered.RESUMED
    assert world.became() == {"k": "fired"}
    assert NOT_DECLARED not in world.trigger().state


def test_paused_by_hand_stays_so_when_it_is_declared_again(world: World) -> None:
    world.triggers.register(trigger(), module="m")
    world.triggers.pause("t", "by hand")

    assert world.triggers.register(trigger(), module="m") is Registered.UNCHANGED
    assert world.triggers.register(trigger(where=event.a == 1), module="m") is Registered.CHANGED
    assert world.trigger().paused


def test_verbs_of_what_is_not_there_say_so(world: World) -> None:
    for verb in (world.triggers.resume, world.bring, lambda name: world.triggers.pause(name, "")):
        with pytest.raises(TriggerNotFound):
            verb("nothing")  # type: ignore[operator]


# --- circles --------------------------------------------------------------------------------------
def test_triggers_that_would_start_each_other_for_ever_are_refused(world: World) -> None:
    world.triggers.register(after("load", "one", "report"))
    world.triggers.register(after("report", "two", "send"))

    with pytest.raises(
        TriggerError,
        match=r"'three': triggers would start each other for ever: three -> runs of load -> one -> "
        r"runs of report -> two -> runs of send -> three[.]",
    ):
        world.triggers.register(after("send", "three", "load"))

    with pytest.raises(TriggerError, match="self -> runs of load -> self"):
        world.triggers.register(after("load", "self", "load"))
    with pytest.raises(TriggerNotFound):
        world.trigger("three")


def test_circle_by_any_of_several_is_refused_too(world: World) -> None:
    world.triggers.register(after("load", "one", "report"))
    on = AnyOf(of={"a": Event(name="x"), "b": RunFinished(workflow="report")})

    with pytest.raises(TriggerError, match="for ever"):
        world.triggers.register(trigger("two", on, run=template(workflow="load")))


def test_runs_that_lack_the_tags_that_are_waited_for_close_no_circle(world: World) -> None:
    first_only = after("load", "again", "load", by="a person")

    assert world.triggers.register(first_only) is Registered.NEW
    with pytest.raises(TriggerError, match="for ever"):
        world.triggers.register(after("load", "again", "load", by="again"))


def test_circle_that_is_registered_from_two_sides_at_once_runs_out(world: World) -> None:
    world.triggers.register(after("load", "one", "report"))
    back = after("report", "two", "load")
    # As if it had been read before the other one was written.
    record = world.trigger("one")
    renamed = {"name": "two", "definition": back.to_json(), "digest": back.digest, "version": 0}
    world.store.triggers.register(TriggerChange(trigger=msgspec.structs.replace(record, **renamed)))
    world.bring_run("load", "first")

    for _ in range(6):
        for run_id in world.live:
            world.end(run_id, RunStatus.SUCCEEDED)
        world.at(world.clock.now() + MINUTE)

    (made,) = world.arrivals("two")
    assert made.decision == "fired"
    first, second = world.arrivals("one")
    assert (first.decision, second.decision) == ("fired", "refused")
    assert second.reason == "triggers would start each other for ever: one -> two -> one"
    assert len(world.runs) == 3


def test_trigger_that_was_removed_and_declared_again_makes_a_run_of_its_own(world: World) -> None:
    world.triggers.register(trigger())
    [before] = world.intake.receive("t", [Arrival(key="k")])
    world.store.triggers.remove("t")
    world.clock.jump(MINUTE.total_seconds())

    world.triggers.register(trigger())
    [after] = world.intake.receive("t", [Arrival(key="k")])

    assert (before.decision, after.decision, after.is_new) == ("fired", "fired", True)
    assert before.run_id != after.run_id
    assert len(world.runs) == 2


def test_conditions_that_ask_for_other_things_read_otherwise() -> None:
    on = AnyOf(
        of={
            "a": Event(name="price", match={"symbol": "X", "day": 3}),
            "b": Event(name="price"),
            "c": RunFinished(workflow="load", tags={"team": "a"}),
        }
    )

    assert str(on) == (
        "any of a: event price with symbol=X, day=3, b: event price, "
        "c: run of load SUCCEEDED with team=a"
    )
