"""What is brought is decided once, whoever brings it, and however often."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.scheduler.dispatching import NO_BLOBS, NOON, template

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import TriggerState
from perdure_scheduler.conditions import Listen
from perdure_scheduler.facts import event, path_of
from perdure_scheduler.intake import Intake, TriggerChanged
from perdure_scheduler.trigger import Trigger
from perdure_storage.clock import ManualClock
from perdure_storage.codecs import Codecs
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import RunId
from perdure_storage.trigger_records import TriggerChange, TriggerRecord
from perdure_storage.values import Values

VALUES = Values(Codecs(), NO_BLOBS)


def trigger(**more: Any) -> Trigger:
    return Trigger(**{"name": "t", "on": Listen(source="mine:rows"), "run": template(), **more})


class Bringing:
    """A store in memory with one trigger, and an intake for it."""

    def __init__(self, declared: Trigger) -> None:
        self.store = MemoryRunStore(ManualClock(NOON))
        self.intake = Intake(self.store.triggers, VALUES, ManualClock(NOON))
        record = TriggerRecord(
            name=declared.name,
            definition=declared.to_json(),
            digest=declared.digest,
            state=TriggerState().to_json(),
        )
        self.store.triggers.register(TriggerChange(trigger=record))


def test_arrival_makes_a_run_with_its_facts_once() -> None:
    bringing = Bringing(trigger(inputs={"row": path_of(event.row)}))
    arrival = Arrival(key="in/a.csv", facts={"row": {"n": 1}})

    (first,) = bringing.intake.receive("t", [arrival])
    (second,) = bringing.intake.receive("t", [arrival])

    assert (first.decision, first.is_new) == ("fired", True)
    assert (second.decision, second.is_new) == ("fired", False)
    assert first.run_id == second.run_id
    run = bringing.store.get_run(RunId(str(first.run_id)))
    assert run.trigger == "t"
    assert run.id.startswith("t-a.csv-")
    assert VALUES.load(run.inputs["row"]) == {"n": 1}


def test_filtered_arrival_says_why_and_makes_no_run() -> None:
    bringing = Bringing(trigger(where=event.size > 0))

    empty, unknown = bringing.intake.receive(
        "t", [Arrival(key="a", facts={"size": 0}), Arrival(key="b", facts={"length": 3})]
    )

    assert (empty.decision, empty.reason) == ("filtered", "event.size > 0 does not hold: it is 0")
    assert (unknown.decision, unknown.reason) == (
        "filtered",
        "event.size is missing: event has 'length'",
    )


def test_cursor_of_a_source_that_is_another_one_now_is_left_alone() -> None:
    bringing = Bringing(trigger())

    with pytest.raises(TriggerChanged, match="is another one"):
        bringing.intake.receive("t", [Arrival(key="a")], cursor="7", digest="of the old one")

    assert bringing.store.triggers.known("t", ["a"]) == {}
