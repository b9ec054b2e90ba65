"""Waits for messages by the decisions alone: what is there is heard by whoever waits for it."""

from __future__ import annotations

from tests.unit.perdure.engine.bench import Bench, plan_of

from perdure.calls import Outcome, Wait
from perdure.engine.events import Ended, Heard
from perdure_storage.records import Cause


def begins(bench: Bench, step: str, name: str) -> Ended:
    """Return the end of the attempt in which a step has said what it waits for."""
    wait = Wait(kind="signal", name=name)
    return Ended(Outcome(id=bench.in_flight.pop(step).id, cause=Cause.SUCCEEDED, wait=wait))


def test_wait_that_begins_after_a_look_for_others_messages_is_looked_for() -> None:
    bench = Bench(plan_of({"first": [], "second": [], "end": ["first", "second"]})).start()
    bench.turn(begins(bench, "first", "never"))
    looked = Heard("r", (), frozenset({"never"}))

    bench.turn(begins(bench, "second", "go"), looked)
    [run] = bench.engine.runs.values()
    is_looked_for = run.unheard
    bench.turn(Heard("r", (), frozenset({"never", "go"})))

    assert is_looked_for, "a message that was there before would never be heard"
    assert not run.unheard
