"""Who listens hands in all that sources give, and no source disturbs another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.scheduler.dispatching import NO_BLOBS, template

from perdure_scheduler import listener as listening
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import TriggerState
from perdure_scheduler.conditions import AnyOf, Condition, Files, Listen
from perdure_scheduler.intake import Intake
from perdure_scheduler.ledger import Ledger, Retention
from perdure_scheduler.listener import Listener
from perdure_scheduler.sources import Batch, Source
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import state_of
from perdure_storage.clock import SystemClock
from perdure_storage.codecs import Codecs
from perdure_storage.contract_samples import an_owner
from perdure_storage.errors import StoreUnavailable
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import RunQuery
from perdure_storage.trigger_records import ArrivalQuery, TriggerChange, TriggerRecord
from perdure_storage.values import Values

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_EVERY_S", "REST_S", "AGAIN_S"):
        monkeypatch.setattr(listening, name, 0.01)
    monkeypatch.setattr(listening, "LONGEST_REST_S", 0.05)


class Rows:
    """Rows of a table that grows; the cursor is the number of the last one."""

    def __init__(self, *rows: str) -> None:
        self.rows = list(rows)
        self.begun_at: list[str | None] = []

    async def listen(self, cursor: str | None) -> AsyncIterator[Batch | Arrival]:
        self.begun_at.append(cursor)
        at = int(cursor or 0)
        while True:
            while at < len(self.rows):
                row, at = self.rows[at], at + 1
                yield Batch(arrivals=(Arrival(key=row, facts={"row": row}),), cursor=str(at))
            await asyncio.sleep(0.01)


class World:
    """A store in memory with triggers that listen, and the sources that they name."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.store = MemoryRunStore(self.clock)
        self.sources: dict[str, Source] = {}
        self.owner = an_owner()
        self.store.register(self.owner, 60.0)

    def register(self, name: str, on: Condition, *, version: int = 0) -> None:
        declared = Trigger(name=name, on=on, run=template())
        record = TriggerRecord(
            name=name,
            definition=declared.to_json(),
            digest=declared.digest,
            listens=True,
            state=TriggerState().to_json(),
            version=version,
        )
        assert self.store.triggers.register(TriggerChange(trigger=record)) is not None

    def listens(self, name: str, source: Source) -> None:
        """Register a trigger of a source."""
        self.sources[f"mine:{name}"] = source
        self.register(name, Listen(source=f"mine:{name}"))

    def pause(self, name: str, *, paused: bool) -> None:
        record = self.store.triggers.get_trigger(name)
        state = TriggerState()
        change = TriggerChange(
            trigger=msgspec.structs.replace(record, paused=paused, state=state.to_json())
        )
        assert name in self.store.triggers.accept([change]).accepted

    def load(self, entry: str) -> Source:
        return self.sources[entry]

    def listener(self) -> Listener:
        intake = Intake(self.store.triggers, Values(Codecs(), NO_BLOBS), self.clock)
        retention = Retention(keep=timedelta(0), keep_last=1, keep_arrivals=timedelta(0))
        ledger = Ledger(self.store.schedules, self.store.triggers, self.clock, retention)
        return Listener(self.store, intake, self.owner.token, self.load, self.clock, ledger=ledger)

    def listen_until(self, *conditions: Callable[[], object]) -> None:
        """Listen until these hold, in this order."""

        async def run() -> None:
            stop = asyncio.Event()
            serving = asyncio.create_task(self.listener().serve(stop))
            for condition in conditions:
                async with asyncio.timeout(PATIENCE_S):
                    while not condition():
                        await asyncio.sleep(0.005)
            stop.set()
            await serving

        asyncio.run(run())

    def keys(self, name: str = "t") -> list[str]:
        """The keys of what arrived for a trigger, the first one first."""
        query = ArrivalQuery(trigger=name, oldest_first=True, limit=10_000)
        return [arrival.key for arrival in self.store.triggers.list_arrivals(query)]

    def state(self, name: str = "t") -> TriggerState:
        return state_of(self.store.triggers.get_trigger(name))

    @property
    def runs(self) -> int:
        return len(self.store.list_runs(RunQuery(limit=10_000)))


@pytest.fixture
def world() -> World:
    return World()


# --- what arrives ---------------------------------------------------------------------------------
def test_what_a_source_gives_makes_runs_and_moves_its_cursor(world: World) -> None:
    world.listens("t", Rows("a", "b", "c"))

    world.listen_until(lambda: world.runs == 3)

    assert world.keys() == ["a", "b", "c"]
    assert world.state().cursors == {"": "3"}


def test_next_listener_goes_on_from_the_cursor(world: World) -> None:
    rows = Rows("a", "b")
    world.listens("t", rows)
    world.listen_until(lambda: world.runs == 2)
    rows.rows += ["c"]

    world.listen_until(lambda: world.runs == 3)

    assert rows.begun_at == [None, "2"]


def test_each_condition_has_a_source_and_a_cursor_of_its_own(world: World) -> None:
    world.sources = {"mine:one": Rows("a"), "mine:other": Rows("a", "b")}
    world.register(
        "t", AnyOf(of={"one": Listen(source="mine:one"), "other": Listen(source="mine:other")})
    )

    world.listen_until(lambda: world.runs == 3)

    assert world.state().cursors == {"one": "1", "other": "2"}


def test_old_file_is_forgotten_once_it_is_gone_and_arrives_when_it_comes_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SWEEP_EVERY_S", 0.0)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("1")
    world.register("t", Files(url=f"{tmp_path}/*.csv", every=timedelta(seconds=1)))
    at = f"file://{tmp_path}"

    world.listen_until(
        lambda: world.runs == 2 and not (tmp_path / "a.csv").unlink(),
        lambda: world.keys() == [f"{at}/b.csv"],
        lambda: (tmp_path / "a.csv").write_text("2"),
        lambda: world.keys() == [f"{at}/b.csv", f"{at}/a.csv"],
    )

    assert world.runs == 2, "the run of then is there: it is named, and not made again"


def test_source_is_told_what_is_committed_after_it_is(world: World) -> None:
    told: list[tuple[list[str], list[str]]] = []

    class Queue(Rows):
        async def committed(self, arrivals: Sequence[Arrival]) -> None:
            told.append(([each.key for each in arrivals], world.keys()))

    world.listens("t", Queue("a", "b"))

    world.listen_until(lambda: len(told) == 2)

    assert told == [(["a"], ["a"]), (["b"], ["a", "b"])]


def test_source_that_ends_is_begun_again(world: World) -> None:
    class Looks(Rows):
        async def listen(self, cursor: str | None) -> AsyncIterator[Batch | Arrival]:
            self.begun_at.append(cursor)
            for row in self.rows:
                yield Arrival(key=row)

    looks = Looks("a", "b")
    world.listens("t", looks)

    world.listen_until(lambda: len(looks.begun_at) == 3)

    assert world.keys() == ["a", "b"]


# --- sources that fail ----------------------------------------------------------------------------
class Fails(Rows):
    """Raises until it is mended."""

    error: BaseException | None = ConnectionError("no route to host")

    async def listen(self, cursor: str | None) -> AsyncIterator[Batch | Arrival]:
        if self.error is not None:
            raise self.error
        async for each in super().listen(cursor):
            yield each


def mend(source: Fails) -> bool:
    source.error = None
    return True


def test_source_that_raises_is_told_of_with_its_trigger_until_it_gives_again(world: World) -> None:
    fails = Fails("a")
    world.listens("t", fails)

    world.listen_until(
        lambda: world.state().troubles,
        lambda: world.state().troubles[""].message == "ConnectionError: no route to host",
        lambda: mend(fails),
        lambda: world.runs == 1,
    )

    assert world.state().troubles == {}


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("x" * 10_000), KeyError("rows")])
def test_whatever_a_source_raises_it_is_listened_to_again(
    world: World, error: BaseException
) -> None:
    fails = Fails("a")
    fails.error = error
    world.listens("t", fails)

    world.listen_until(lambda: world.state().troubles, lambda: mend(fails), lambda: world.runs == 1)


def test_source_that_cannot_be_loaded_is_told_of_and_holds_up_no_other(world: World) -> None:
    world.register("lost", Listen(source="mine:nothing"))
    world.listens("t", Rows("a"))

    world.listen_until(lambda: world.runs == 1, lambda: world.state("lost").troubles)

    assert "KeyError" in world.state("lost").troubles[""].message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": "a"}, "gives Arrival or Batch, and this gave dict"),
        (Arrival(key=7), "a key that is text"),  # type: ignore[arg-type]
        (Arrival(key=""), "a key that is text"),
        (Batch(arrivals=("a",)), "a key that is text"),  # type: ignore[arg-type]
        (Batch(cursor="x" * 20_000), "at most 10,000 characters"),
    ],
)
def test_source_that_gives_anything_else_is_told_what_it_has_to_give(
    world: World, given: Any, said: str
) -> None:
    class Wrong:
        async def listen(self, cursor: str | None) -> AsyncIterator[Any]:
            yield given

    world.listens("t", Wrong())

    world.listen_until(lambda: world.state().troubles)

    assert said in world.state().troubles[""].message


def test_trouble_that_goes_on_is_written_once(world: World) -> None:
    fails = Fails()
    world.listens("t", fails)
    world.listen_until(lambda: world.state().troubles)
    version = world.store.triggers.get_trigger("t").version

    seen: list[int] = []
    world.listen_until(lambda: len(seen) > 20 or seen.append(1))

    assert world.store.triggers.get_trigger("t").version == version


def test_source_that_blocks_holds_up_no_other_and_not_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "GRACE_S", 0.1)
    released = threading.Event()

    class Blocks:
        async def listen(self, cursor: str | None) -> AsyncIterator[Arrival]:
            released.wait(PATIENCE_S)
            yield Arrival(key="late")

    world.listens("blocks", Blocks())
    world.listens("t", Rows("a"))

    world.listen_until(lambda: world.runs == 1)

    released.set()


def test_source_that_gives_without_end_starves_no_other(world: World) -> None:
    class Endless:
        async def listen(self, cursor: str | None) -> AsyncIterator[Arrival]:
            while True:
                yield Arrival(key="again")

    world.listens("a-endless", Endless())
    world.listens("t", Rows(*map(str, range(20))))

    world.listen_until(lambda: len(world.keys("t")) == 20)


def test_store_that_is_away_loses_nothing_of_what_a_source_gave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows("a", "b", "c")
    world.listens("t", rows)
    accept, failures = world.store.triggers.accept, iter([True, True, False, True])

    def refuse(*given: Any) -> Any:
        if next(failures, False):
            raise StoreUnavailable("the database is gone")
        return accept(*given)

    monkeypatch.setattr(world.store.triggers, "accept", refuse)

    world.listen_until(lambda: world.runs == 3)

    assert world.keys() == ["a", "b", "c"]
    assert rows.begun_at == [None]


# --- whose sources they are -----------------------------------------------------------------------
def test_paused_trigger_is_not_listened_for_and_resumed_it_is_again(world: World) -> None:
    rows = Rows("a")
    world.listens("t", rows)

    world.listen_until(
        lambda: world.runs == 1,
        lambda: world.pause("t", paused=True) or True,
        lambda: world.store.triggers.get_trigger("t").listener is None,
    )
    rows.rows += ["b"]
    begun = len(rows.begun_at)
    world.listens("other", Rows("x"))
    world.listen_until(lambda: world.keys("other"))
    assert len(rows.begun_at) == begun
    world.pause("t", paused=False)
    world.listen_until(lambda: world.keys() == ["a", "b"])


def test_trigger_that_is_registered_while_it_listens_is_listened_for(world: World) -> None:
    world.listens("t", Rows("a"))

    world.listen_until(
        lambda: world.runs == 1,
        lambda: world.listens("late", Rows("b")) or True,
        lambda: world.keys("late"),
    )


def test_changed_trigger_is_listened_for_as_it_is_now(world: World) -> None:
    world.listens("t", Rows("a"))
    world.sources["mine:new"] = Rows("b")

    def change() -> bool:
        version = world.store.triggers.get_trigger("t").version
        world.register("t", Listen(source="mine:new"), version=version)
        return True

    world.listen_until(lambda: world.runs == 1, change, lambda: world.keys() == ["a", "b"])


def test_trigger_that_is_made_anew_begins_at_the_beginning(world: World) -> None:
    world.listens("t", Rows("a", "b"))

    world.listen_until(
        lambda: len(world.keys()) == 2,
        lambda: world.store.triggers.remove("t"),
        lambda: world.register("t", Listen(source="mine:t")) or True,
        lambda: len(world.keys()) == 2,
    )


def test_who_stops_leaves_his_triggers_to_others(world: World) -> None:
    world.listens("t", Rows("a"))

    world.listen_until(lambda: world.runs == 1)

    assert world.store.triggers.get_trigger("t").listener is None
