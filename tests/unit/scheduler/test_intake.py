"""What is brought is decided once, whoever brings it, and however often."""

from __future__ import annotations

import pytest
from tests.unit.scheduler.dispatching import NOON, World, trigger

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import AnyOf, Event, Listen, Webhook
from perdure_scheduler.facts import event
from perdure_scheduler.intake import TriggerChanged
from perdure_scheduler.trigger_changes import arrivals_of, state_of
from perdure_storage.errors import TriggerNotFound
from perdure_storage.records import RunId


@pytest.fixture
def world() -> World:
    return World()


def test_arrival_makes_a_run_with_its_facts_once(world: World) -> None:
    world.triggers.register(trigger(inputs={"row": event.row}))

    (first,) = world.bring("t", "in/a.csv", row={"n": 1})
    (second,) = world.bring("t", "in/a.csv", row={"n": 2})

    assert (first.decision, first.is_new) == ("fired", True)
    assert (second.decision, second.is_new) == ("fired", False)
    assert first.run_id == second.run_id
    run = world.store.get_run(RunId(str(first.run_id)))
    assert (run.trigger, arrivals_of(run)) == ("t", ["in/a.csv"])
    assert run.id.startswith("t-a.csv-")
    assert world.inputs(run.id) == {"row": {"n": 1}}


def test_receipts_are_in_the_order_of_what_was_brought_though_a_key_comes_twice(
    world: World,
) -> None:
    world.triggers.register(trigger(where=event.n > 1))
    brought = [Arrival(key=key, facts={"n": n}) for n, key in enumerate("baab")]

    receipts = world.intake.receive("t", brought)

    assert [(each.key, each.decision, each.is_new) for each in receipts] == [
        ("b", "filtered", True),
        ("a", "filtered", True),
        ("a", "filtered", False),
        ("b", "filtered", False),
    ]
    assert [each.key for each in world.arrivals()] == ["b", "a"]


def test_filtered_arrival_says_why_and_makes_no_run(world: World) -> None:
    world.triggers.register(trigger(where=event.size > 0))

    (empty,) = world.bring("t", "a", size=0)
    (unknown,) = world.bring("t", "b", length=3)

    assert (empty.decision, empty.reason) == ("filtered", "event.size > 0 does not hold: it is 0")
    assert unknown.reason == "event.size is missing: event has 'length'"
    assert world.runs == []


@pytest.mark.parametrize("value", [float("nan"), b"x", "\ud800", [[]] * 3 + [{1}]])
def test_facts_that_are_no_json_are_refused_and_their_row_is_kept(
    world: World, value: object
) -> None:
    world.triggers.register(trigger())

    (receipt,) = world.bring("t", "k", x=value)

    (row,) = world.arrivals()
    assert receipt.decision == row.decision == "refused"
    assert row.reason.startswith("its facts are no JSON")
    assert row.facts == "{}"


def test_cursor_stands_together_with_what_came_with_it(world: World) -> None:
    on = AnyOf(of={"a": Listen(source="m:a"), "b": Listen(source="m:b")})
    world.triggers.register(trigger(on=on))

    world.intake.receive("t", [Arrival(key="k")], condition="a", cursor="7")
    world.intake.receive("t", [], condition="b", cursor="x")
    world.intake.receive("t", [Arrival(key="l")], condition="a")

    assert state_of(world.trigger()).cursors == {"a": "7", "b": "x"}
    assert world.became() == {"a:k": "fired", "a:l": "fired"}


def test_cursor_of_a_source_that_is_another_one_now_is_left_alone(world: World) -> None:
    world.triggers.register(trigger())

    with pytest.raises(TriggerChanged, match="is another one"):
        world.intake.receive("t", [Arrival(key="a")], cursor="7", digest="of the old one")

    assert world.became() == {}


def test_what_needs_no_state_moves_none(world: World) -> None:
    world.triggers.register(trigger(on=Webhook(keys=("K",))))
    before = world.trigger()

    world.bring("t", "a", "b")

    assert world.trigger() == before


def test_foreseen_arrivals_are_not_there_afterwards(world: World) -> None:
    world.triggers.register(trigger(where=event.n == 1))
    world.bring("t", "known", n=1)
    come = [Arrival(key="known"), Arrival(key="a", facts={"n": 1}), Arrival(key="b")]

    foreseen = world.intake.foresee("t", come)

    assert [(each.came.key, each.verdict) for each in foreseen] == [
        ("a", "fired"),
        ("b", "filtered"),
    ]
    assert world.became() == {"known": "fired"}
    assert len(world.runs) == 1


def test_trouble_of_a_source_is_told_until_it_is_over(world: World) -> None:
    world.triggers.register(trigger())

    world.intake.note_trouble("t", "", "no such bucket: \ud800")
    told = state_of(world.trigger()).troubles
    world.intake.note_trouble("t", "", "")

    assert (told[""].since, told[""].message) == (NOON, "no such bucket: \\ud800")
    assert state_of(world.trigger()).troubles == {}


def test_run_that_was_deleted_is_not_made_again_when_its_trigger_is(world: World) -> None:
    world.triggers.register(trigger(on=Event(name="e")))
    (first,) = world.bring("t", "k")
    run_id = RunId(str(first.run_id))
    world.end(run_id)
    world.store.delete_run(run_id)
    world.store.triggers.remove("t")

    with pytest.raises(TriggerNotFound):
        world.bring("t", "k")
    world.triggers.register(trigger(on=Event(name="e")))
    (again,) = world.bring("t", "k")

    assert (again.run_id, again.is_new) == (run_id, True)
    assert world.runs == []
