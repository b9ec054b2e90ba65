"""What happens in the store comes to triggers: events, ends of runs, windows that are over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.unit.scheduler.dispatching import HOUR, NOON, SECOND, World, template, trigger

from perdure_scheduler import hearing
from perdure_scheduler.arriving import LONGEST_CHAIN
from perdure_scheduler.conditions import AllOf, AnyOf, Event, Listen, RunFinished
from perdure_scheduler.facts import event
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import TriggerChange

FAILED, SUCCEEDED = RunStatus.FAILED, RunStatus.SUCCEEDED


@pytest.fixture
def world() -> World:
    return World()


def became_of_runs(world: World, name: str = "t") -> dict[str, str]:
    """Return what became of each end of a run, by its id: the key says when it was made, too."""
    return {key.rpartition("/")[2]: decision for key, decision in world.became(name).items()}


# --- events ---------------------------------------------------------------------------------------
def test_event_fires_what_waits_for_its_name_and_match(world: World) -> None:
    on = Event(name="price", match={"symbol": "X"})
    inputs = {"whole": event.payload, "part": event.payload.at, "number": event.number}
    world.triggers.register(trigger(on=on, inputs=inputs))

    world.emit("price", {"at": 3}, symbol="X", kind="a")
    world.emit("price", {"at": 4}, symbol="Y")
    world.emit("other", {"at": 5}, symbol="X")
    world.at(NOON)

    (made,) = world.arrivals()
    assert (made.key, made.decision) == ("event-1", "fired")
    assert world.inputs(made.run_id) == {"whole": {"at": 3}, "part": 3, "number": 1}
    assert world.trigger().heard == 2


def test_payload_that_is_no_json_travels_whole_and_is_not_read(world: World) -> None:
    world.triggers.register(trigger(on=Event(name="e"), inputs={"x": event.payload}))
    world.triggers.register(trigger("part", Event(name="e"), inputs={"x": event.payload.real}))

    world.emit("e", 3 + 4j)
    world.at(NOON)

    (whole,) = world.arrivals()
    (part,) = world.arrivals("part")
    assert world.inputs(whole.run_id) == {"x": 3 + 4j}
    assert part.decision == "refused"
    assert part.reason.startswith("event.payload.real is missing: event has")
    assert part.reason.endswith("A payload that is no JSON, or no small one, only travels whole")


def test_event_that_meets_two_conditions_counts_once_for_any_and_for_each_of_all(
    world: World,
) -> None:
    of = {"a": Event(name="e"), "b": Event(name="e", match={"k": 1})}
    world.triggers.register(trigger("any", AnyOf(of=of)))
    world.triggers.register(trigger("all", AllOf(of=of, within=HOUR)))

    world.emit("e", None, k=1)
    world.at(NOON)

    assert world.became("any") == {"event-1": "fired"}
    assert world.became("all") == {"a:event-1": "used", "b:event-1": "fired"}


def test_many_events_are_heard_in_their_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "BATCH", 3)
    world.triggers.register(trigger(on=Event(name="e")))
    for number in range(10):
        world.emit("e" if number % 3 else "other")

    world.at(NOON)

    assert list(world.became()) == [f"event-{n}" for n in (2, 3, 5, 6, 8, 9)]
    assert world.hearing.look().landed == 0


def test_trigger_that_stood_still_hears_what_came_meanwhile_when_it_is_mended(world: World) -> None:
    world.triggers.register(trigger(on=Event(name="e")))
    world.triggers.register(trigger("well", on=Event(name="e")))
    record = world.store.triggers.get_trigger("t")
    broken = msgspec.structs.replace(record, state="{")
    assert world.store.triggers.accept([TriggerChange(trigger=broken)]).accepted

    world.emit("e")
    world.at(NOON)
    mended = msgspec.structs.replace(world.store.triggers.get_trigger("t"), state=record.state)
    assert world.store.triggers.accept([TriggerChange(trigger=mended)]).accepted
    world.at(NOON + SECOND)

    assert world.became("well") == world.became() == {"event-1": "fired"}


def test_run_that_sends_the_event_that_started_it_is_refused_when_it_comes_to_no_end(
    world: World,
) -> None:
    world.triggers.register(trigger(on=Event(name="e")))
    world.emit("e")
    world.at(NOON)
    for _ in range(LONGEST_CHAIN + 3):
        for run_id in world.live:
            world.emit("e", sender=run_id)
            world.end(run_id)
        world.at(NOON)

    newest = world.arrivals()[-1]
    assert newest.key == f"event-{LONGEST_CHAIN + 1}"
    assert newest.decision == "refused"
    assert newest.reason.startswith("100 runs of triggers have led to it one after the other")


# --- ends of runs ---------------------------------------------------------------------------------
def test_run_that_ends_as_asked_fires_what_waits_for_it(world: World) -> None:
    on = RunFinished(workflow="load", states=(SUCCEEDED,), tags={"team": "a"})
    inputs = {"run": event.run_id, "status": event.status, "team": event.tags.team}
    world.triggers.register(trigger(on=on, inputs=inputs, run=template(workflow="report")))
    for workflow, run_id, team, status in (
        ("load", "good", "a", SUCCEEDED),
        ("load", "bad", "a", FAILED),
        ("load", "theirs", "b", SUCCEEDED),
        ("other", "else", "a", SUCCEEDED),
    ):
        world.bring_run(workflow, run_id, team=team, more="x")
        world.end(run_id, status)

    world.at(NOON)

    (made,) = world.arrivals()
    assert (made.key, made.decision) == (f"{NOON.isoformat()}/good", "fired")
    assert world.inputs(made.run_id) == {"run": "good", "status": "SUCCEEDED", "team": "a"}
    assert world.store.triggers.ends() == []


def test_run_that_fails_again_is_told_again(world: World) -> None:
    on = RunFinished(workflow="load", states=(FAILED, SUCCEEDED))
    world.triggers.register(trigger(on=on, run=template(workflow="report")))
    world.bring_run("load", "r")

    for status in (FAILED, FAILED, SUCCEEDED):
        world.end("r", status)
        world.at(NOON)
        if status is FAILED:
            world.open_again("r")

    assert [each.decision for each in world.arrivals()] == ["fired"] * 3
    assert len({each.run_id for each in world.arrivals()}) == 3


def test_run_that_has_the_id_of_one_that_was_deleted_is_told_of_like_any_other(
    world: World,
) -> None:
    on = RunFinished(workflow="load")
    world.triggers.register(trigger(on=on, run=template(workflow="report")))
    for hours in range(2):
        world.at(NOON + hours * HOUR)
        world.bring_run("load", "r")
        world.end("r")
        world.at(NOON + hours * HOUR)
        world.delete("r")

    assert [each.decision for each in world.arrivals()] == ["fired"] * 2


def test_runs_of_triggers_hand_their_chain_on(world: World) -> None:
    world.triggers.register(trigger("hook", run=template(workflow="load")))
    world.triggers.register(
        trigger("then", RunFinished(workflow="load"), run=template(workflow="report"))
    )
    world.triggers.register(
        trigger("last", RunFinished(workflow="report"), inputs={"chain": event.chain})
    )

    world.bring("hook", "k")
    for _ in range(2):
        for run_id in world.live:
            world.end(run_id)
        world.at(NOON)

    (made,) = world.arrivals("last")
    assert world.inputs(made.run_id) == {"chain": ["hook", "then"]}
    assert world.store.get_run(RunId(str(made.run_id))).trigger == "last"


class Overtaken:
    """A store of triggers beside which something happens once, right after one question."""

    def __init__(self, triggers: TriggerStore, question: str, meanwhile: Callable[[], None]):
        self._triggers = triggers
        self._question = question
        self._meanwhile: list[Callable[[], None]] = [meanwhile]

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._triggers, name)
        if name != self._question or not self._meanwhile:
            return known

        def ask(*given: Any) -> Any:
            answer = known(*given)
            self._meanwhile.pop()()
            return answer

        return ask


@pytest.mark.parametrize("question", ["watching", "ends"])
def test_trigger_that_is_registered_while_ends_are_told_misses_none(
    world: World, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_and_end() -> None:
        world.triggers.register(trigger(on=RunFinished(workflow="load")))
        world.end("r")

    world.bring_run("load", "r")
    overtaken = Overtaken(world.store.triggers, question, begin_and_end)
    monkeypatch.setattr(world.hearing, "_triggers", overtaken)

    for _ in range(2):
        world.hearing.look()

    assert became_of_runs(world) == {"r": "fired"}


# --- windows --------------------------------------------------------------------------------------
def test_window_that_is_over_is_told_when_nothing_comes_any_more(world: World) -> None:
    on = AllOf(of={"a": Listen(source="m:a"), "b": Listen(source="m:b")}, within=HOUR)
    world.triggers.register(trigger(on=on))
    world.bring("t", "k", condition="a")

    world.at(NOON + HOUR - SECOND)
    assert world.became() == {"a:k": "held"}
    assert world.store.triggers.next_due() == NOON + HOUR
    world.at(NOON + HOUR)

    assert world.became() == {"a:k": "expired"}
    assert world.store.triggers.next_due() is None


# --- what cannot be read --------------------------------------------------------------------------
def test_trigger_of_a_newer_perdure_stops_no_other_and_loses_nothing(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "BATCH", 1)
    for name, on in (("e", Event(name="e")), ("r", RunFinished(workflow="load"))):
        world.triggers.register(trigger(f"a-{name}", on))
        world.triggers.register(trigger(f"b-{name}", on))
        newer = msgspec.structs.replace(world.trigger(f"a-{name}"), definition="{}", digest="x")
        world.store.triggers.register(TriggerChange(trigger=newer))
    for number in range(3):
        world.emit("e")
        world.bring_run("load", f"r{number}")
        world.end(f"r{number}")

    with caplog.at_level(logging.ERROR):
        world.at(NOON)

    assert world.became("b-e") == {f"event-{number}": "fired" for number in (1, 2, 3)}
    assert became_of_runs(world, "b-r") == {f"r{number}": "fired" for number in range(3)}
    assert sum("a-e stands still" in each.message for each in caplog.records) == 1
    assert sum("a-r stands still" in each.message for each in caplog.records) == 1
    assert world.trigger("a-e").heard == 0
    # Who can read it is told of them.
    world.store.triggers.remove("a-r")
    world.triggers.register(trigger("a-r", RunFinished(workflow="load")))
    world.at(NOON)
    assert became_of_runs(world, "a-r") == {f"r{number}": "fired" for number in range(3)}
    assert world.store.triggers.ends() == []
