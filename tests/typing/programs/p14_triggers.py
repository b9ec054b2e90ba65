"""Triggers: conditions are values, facts are expressions, a comparison is a filter."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import assert_type

from perdure import (
    Arrival,
    Batch,
    Event,
    Files,
    Listen,
    RunFinished,
    Source,
    Trigger,
    Webhook,
    all_of,
    any_of,
    event,
    task,
    workflow,
)
from perdure_scheduler.conditions import Condition
from perdure_scheduler.facts import Fact, Filter


@task
def size(path: Path, k: int) -> int:
    return k


@workflow
def flow(path: Path, k: int = 3) -> int:
    return size.bind(path, k)


class Queue:
    async def listen(self, cursor: str | None) -> AsyncIterator[Batch | Arrival]:
        yield Arrival(key="1", facts={"row": 1})
        yield Batch(arrivals=(Arrival(key="2"),), cursor="2")


queue: Source = Queue()
conditions: list[Condition] = [
    Files(Path("in") / "*.csv", stable_for="5s", every=timedelta(minutes=1), existing="skip"),
    Files("s3://bucket/*.csv", change=True, ignore=["*.tmp"]),
    Webhook(keys=["K", "OLD"], scheme="github", headers=["x-github-event"]),
    Event("price", match={"symbol": "X"}),
    RunFinished(flow, states=["SUCCEEDED", "FAILED"], tags={"team": "a"}),
    RunFinished("other", states="FAILED"),
    Listen(queue),
    Listen("queues:orders"),
    all_of(a=Event("a"), b=Event("b"), within="1h"),
    any_of(Event("a"), b=Event("b")),
]
assert_type(event.body.items[0]["full name"], Fact)
assert_type(event.size > 0, Filter)
assert_type((event.size != 0) & ~event.name.matches("*.tmp") | event.kind.is_in(["a"]), Filter)
landed = Trigger(
    "landed", flow, on=conditions[0], where=event.size > 0, inputs={"path": event.path, "k": 3}
)
assert_type(landed, Trigger)
