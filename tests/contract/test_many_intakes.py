"""Several intakes and dispatchers on one store, in which everything arrives once.

They bring the same things at odd moments and more than once, overtake each other between reading
and writing, and die before and after the commit, while people pause, resume and change triggers.
Afterwards each thing has one row, each that fired has one run, and no run is without its arrival.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random  # noqa: TID251 - by seed
from typing import Any

import msgspec
import pytest
from tests.unit.scheduler.dispatching import HOUR, MINUTE, NOON, World, template, trigger

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import AllOf, Event, Listen, RunFinished, Webhook
from perdure_scheduler.facts import event
from perdure_scheduler.hearing import Hearing
from perdure_scheduler.intake import Intake
from perdure_scheduler.trigger_changes import state_of
from perdure_scheduler.trigger_registry import TriggerRegistry
from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import a_value
from perdure_storage.memory import MemoryRunStore
from perdure_storage.protocols import RunStore
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import AcceptReport, ArrivalRecord, TriggerChange

SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", "2"))
THINGS = int(os.environ.get("PERDURE_TEST_THINGS", "12"))
"""How many arrive for each trigger."""
WINDOW = HOUR


class Died(Exception):
    """A process is gone."""


class Unsteady:
    """Triggers as somebody who dies, or is overtaken, writes them."""

    def __init__(self, triggers: TriggerStore, chance: Random) -> None:
        self._triggers = triggers
        self._chance = chance
        self.overtake: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._triggers, name)

    def accept(self, batch: Sequence[TriggerChange], ends: Collection[int] = ()) -> AcceptReport:
        dice = self._chance.random()
        if dice < 0.05:
            raise Died
        if dice < 0.3:
            self.overtake()
        report = self._triggers.accept(batch, ends)
        if 0.3 <= dice < 0.4:
            raise Died
        return report


class Beside:
    """A store in which triggers are unsteady."""

    def __init__(self, store: RunStore, triggers: Any) -> None:
        self._store = store
        self.triggers = triggers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Place:
    """Where things happen, and who brings them in."""

    def __init__(self, opened: Callable[[ManualClock], RunStore], chance: Random) -> None:
        self.world = World(NOON, opened)
        self.chance = chance
        self.delivered: Counter[str] = Counter()
        unsteady = Unsteady(self.world.store.triggers, chance)
        unsteady.overtake = self.somebody_else
        store: Any = Beside(self.world.store, unsteady)
        self.intakes = [
            Intake(store.triggers, self.world.values, self.world.clock) for _ in range(2)
        ]
        self.hearings = [Hearing(store, self.world.values, self.world.clock) for _ in range(2)]
        self.registry = TriggerRegistry(store, self.world.values, self.world.clock)
        self.steady_hearing = Hearing(self.world.store, self.world.values, self.world.clock)
        self.pending = {
            ("hooks", ""): [f"h{n}" for n in range(THINGS)],
            ("both", "a"): [f"a{n}" for n in range(THINGS)],
            ("both", "b"): [f"b{n}" for n in range(THINGS)],
        }
        self.emitted = 0
        for one in DECLARED:
            self.world.triggers.register(one)

    def somebody_else(self) -> None:
        """Do what somebody does who is faster."""
        what = self.chance.randrange(5)
        if what == 0:
            self.steady_hearing.look()
        elif what == 1:
            (name, condition), keys = self.chance.choice(list(self.pending.items()))
            with suppress(IndexError):
                self.world.bring(name, keys[0], condition=condition, n=1)
        elif what == 2:
            self.world.triggers.pause(self.chance.choice(NAMES), "by somebody else")
        elif what == 3:
            self.emit()
        else:
            self.world.triggers.resume(self.chance.choice(NAMES))

    def step(self) -> None:
        """Let one thing happen."""
        self.world.clock.jump(self.chance.random() * MINUTE.total_seconds())
        often = [self.deliver] * 3 + [self.listen] * 2 + [self.look] * 2
        act = self.chance.choice([*often, self.emit, self.end_runs, self.change])
        with suppress(Died):
            act()

    def deliver(self) -> None:
        """Bring the next thing of one kind, until nobody dies of it; or an old one again."""
        (name, condition), keys = self.chance.choice(list(self.pending.items()))
        if not keys:
            return
        arrivals = [Arrival(key=key, facts={"n": 1}) for key in keys[: self.chance.randrange(1, 4)]]
        self.chance.choice(self.intakes).receive(name, arrivals, condition=condition)
        if self.chance.random() < 0.7:  # else it is brought again: the answer did not come
            del keys[: len(arrivals)]

    def listen(self) -> None:
        """Go on from the cursor that is stored."""
        cursor = int(state_of(self.world.trigger("rows")).cursors.get("", "0"))
        upto = min(cursor + self.chance.randrange(1, 5), THINGS)
        rows = [Arrival(key=f"r{n}", facts={"n": n}) for n in range(cursor, upto)]
        self.chance.choice(self.intakes).receive("rows", rows, cursor=str(upto))

    def emit(self) -> None:
        if self.emitted < THINGS:
            self.emitted += 1
            self.world.emit("price", self.emitted)

    def look(self) -> None:
        self.chance.choice(self.hearings).look()

    def end_runs(self) -> None:
        for run_id in self.world.live:
            if self.chance.random() < 0.5:
                self.world.end(run_id)

    def change(self) -> None:
        name = self.chance.choice(NAMES)
        what = self.chance.randrange(3)
        if what == 0:
            self.registry.pause(name, "by hand")
        elif what == 1:
            self.registry.resume(name)
        else:
            tags = {"version": str(self.chance.randrange(3))}
            one = next(each for each in DECLARED if each.name == name)
            run = template(workflow=one.run.workflow, tags=tags)
            self.registry.register(trigger(name, one.on, where=one.where, run=run))

    @property
    def is_over(self) -> bool:
        cursor = state_of(self.world.trigger("rows")).cursors.get("", "0")
        return not any(self.pending.values()) and cursor == str(THINGS) and self.emitted == THINGS

    def settle(self) -> None:
        """Let everything come to rest."""
        for name in NAMES:
            self.world.triggers.resume(name)
        for _ in range(3):
            while self.steady_hearing.look().landed:
                pass
            for run_id in self.world.live:
                self.world.end(run_id)
        self.world.clock.jump(2 * WINDOW.total_seconds())
        while self.steady_hearing.look().landed:
            pass


SOURCES = {"a": Listen(source="m:a"), "b": Listen(source="m:b")}
DECLARED = (
    trigger("hooks", Webhook(keys=("K",)), run=template(workflow="load")),
    trigger("rows", Listen(source="m:rows"), where=event.n != 7),
    trigger("both", AllOf(of=SOURCES, within=WINDOW)),
    trigger("said", Event(name="price")),
    trigger("after", RunFinished(workflow="load"), run=template(workflow="report")),
)
NAMES = [each.name for each in DECLARED]


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[ManualClock], RunStore]]:
    stores: list[RunStore] = []

    def open_it(clock: ManualClock) -> RunStore:
        if request.param == "memory":
            stores.append(MemoryRunStore(clock))
        else:
            is_postgres = request.param == "postgres"
            where = request.getfixturevalue("postgres_url") if is_postgres else tmp_path / "p.db"
            stores.append(open_run_store(where, key=b"k" * 32, clock=clock, lease_clock=clock))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_everything_arrives_once_whoever_brings_it(
    opened: Callable[[ManualClock], RunStore], seed: int
) -> None:
    place = Place(opened, Random(f"intakes {seed}"))

    for _ in range(100 * THINGS):
        if place.is_over:
            break
        place.step()
    place.settle()

    assert place.is_over
    check(place)


def check(place: Place) -> None:
    """Compare what arrived with what was brought, and with the runs."""
    world = place.world
    rows = {name: world.arrivals(name) for name in NAMES}
    keys = {name: sorted(row.key for row in rows[name]) for name in NAMES}
    assert keys["hooks"] == sorted(f"h{n}" for n in range(THINGS))
    assert keys["rows"] == sorted(f"r{n}" for n in range(THINGS))
    assert keys["both"] == sorted(f"{c}:{c}{n}" for c in "ab" for n in range(THINGS))
    assert keys["said"] == sorted(f"event-{n + 1}" for n in range(THINGS))
    # The key of an end says when its run was made, and its id.
    ended = sorted(key.partition("/")[2] for key in keys["after"])
    assert ended == sorted(str(row.run_id) for row in rows["hooks"])
    decisions = {name: Counter(row.decision for row in rows[name]) for name in NAMES}
    for name in ("hooks", "said", "after"):
        assert decisions[name] == {"fired": THINGS}
    assert decisions["rows"] == {"fired": THINGS - 1, "filtered": 1}
    assert decisions["both"].keys() <= {"fired", "used", "expired"}
    assert decisions["both"]["fired"] == decisions["both"]["used"] > 0
    fired = [str(row.run_id) for name in NAMES for row in rows[name] if row.decision == "fired"]
    assert sorted(fired) == sorted(world.runs), "arrivals that fired and runs are not the same"
    check_pairs(rows["both"])


def check_pairs(rows: list[ArrivalRecord]) -> None:
    """See that each run had one of each, near to each other."""
    parts: dict[str, list[ArrivalRecord]] = {}
    for row in rows:
        if row.run_id is not None:
            parts.setdefault(row.run_id, []).append(row)
    for pair in parts.values():
        assert sorted(row.condition for row in pair) == ["a", "b"]
        assert abs(pair[0].at - pair[1].at) < WINDOW


def test_what_a_database_refuses_is_told_alone_and_the_rest_arrives(tmp_path: Path) -> None:
    world = World(NOON, lambda clock: open_run_store(tmp_path / "perdure.db", clock=clock))
    world.triggers.register(trigger())
    too_large = msgspec.structs.replace(a_value(), size_bytes=2**70)
    brought = [Arrival(key="a"), Arrival(key="b", payload=too_large), Arrival(key="c")]

    receipts = world.intake.receive("t", brought, cursor="7")

    assert [each.decision for each in receipts] == ["fired", "refused", "fired"]
    assert receipts[1].reason.startswith("the database refuses it:")
    assert state_of(world.trigger()).cursors == {"": "7"}
    assert world.intake.receive("t", brought)[1].is_new is False
    world.store.close()
