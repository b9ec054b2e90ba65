"""A writer, collectors and their deaths, in every order of their calls: nothing named is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.boots import boot_id
from perdure_storage.clock import SystemClock
from perdure_storage.collection import (
    MARKS_KEPT,
    Collected,
    collect_garbage,
    find_garbage,
    forget_old_marks,
    reclaim,
)
from perdure_storage.contract_samples import (
    a_message,
    a_plan,
    a_step,
    a_value,
    an_arrival,
    arrived,
    by,
    claimed,
    created,
    digest,
    ended,
    watched,
)
from perdure_storage.errors import BlobsCondemned
from perdure_storage.faults import InjectedCrash
from perdure_storage.memory import MemoryRunStore
from perdure_storage.protocols import RunStore
from perdure_storage.reclaiming import reclaiming
from perdure_storage.records import Digest, Place, RunId, StoredValue
from perdure_storage.trigger_records import TriggerChange

DATA = b"the same content as that of a run that was deleted"
_RUN = RunId("run")


class Turns:
    """Lets actors take one call each in the order of a schedule; what is left, one by one."""

    def __init__(self, schedule: Iterable[int]) -> None:
        self._schedule = schedule
        self._may_go: list[threading.Semaphore] = []
        self._has_stopped = threading.Semaphore(0)
        self._ended: list[bool] = []
        self.errors: list[BaseException] = []

    def play(self, *actors: Callable[[Callable[[], None]], Any]) -> None:
        """Play the actors, each of which is given what it calls before each of its calls."""
        threads = [threading.Thread(target=self._act, args=each) for each in enumerate(actors)]
        self._may_go = [threading.Semaphore(0) for _ in actors]
        self._ended = [False] * len(actors)
        for thread in threads:
            thread.start()
        rest = itertools.chain.from_iterable(itertools.repeat(n, 99) for n in range(len(actors)))
        for number in itertools.chain(self._schedule, rest):
            if not self._ended[number]:
                self._may_go[number].release()
                self._has_stopped.acquire()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def _act(self, number: int, actor: Callable[[Callable[[], None]], Any]) -> None:
        self._may_go[number].acquire()
        try:
            actor(lambda: self._stop(number))
        except InjectedCrash:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the test can see it
            self.errors.append(error)
        self._ended[number] = True
        self._has_stopped.release()

    def _stop(self, number: int) -> None:
        self._has_stopped.release()
        self._may_go[number].acquire()


class InTurn:
    """A store or a blob root each call of which waits for its turn, and may be the last."""

    def __init__(
        self,
        below: Any,
        wait: Callable[[], None],
        *,
        deaths: Deaths | None = None,
        stamp: Callable[[], None] = lambda: None,
    ) -> None:
        self._below = below
        self._wait = wait
        self._deaths = deaths or Deaths(0)
        self._stamp = stamp

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            self._deaths.one_call("before")
            result = getattr(self._below, name)(*args, **kwargs)
            result = iter(list(result)) if name == "survey" else result
            if name in ("put", "renew"):
                self._stamp()
            self._deaths.one_call("after")
            return result

        return call


class Deaths:
    """Dies at the n-th call, before or after it; never if n is 0."""

    def __init__(self, at: int, when: str = "before") -> None:
        self._at, self._when = at, when
        self._calls = 0

    def one_call(self, when: str) -> None:
        self._calls += when == "before"
        if self._calls == self._at and when == self._when:
            raise InjectedCrash("gc")


class World:
    """A store with a run in it, and an old blob that nothing refers to.

    Its time goes on with each thing that happens, so that ages do not depend on how coarse the
    clock of a filesystem is.
    """

    def __init__(self, folder: Path) -> None:
        self.store: RunStore = MemoryRunStore(boot_id=boot_id())
        self.folder = folder
        self.blobs: BlobRoot = open_blobs(folder, "store", bind=True)
        self.run = claimed(self.store)
        self._ticks = itertools.count(1000)
        self.orphan = self.blobs.put([DATA])
        self.stamp()
        self.before = self.now()

    def now(self) -> datetime:
        return datetime.fromtimestamp(next(self._ticks), UTC)

    def stamp(self) -> None:
        """Date what was just put or renewed, whose own time is that of the real world."""
        now = next(self._ticks)
        for path in self.folder.rglob("blake3-*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime > 1e9:
                    os.utime(path, (now, now))

    def write(self, wait: Callable[[], None]) -> None:
        """Store a value and commit its row, as a worker and its coordinator do."""
        blobs = InTurn(self.blobs, wait, stamp=self.stamp)
        store = reclaiming(InTurn(self.store, wait), blobs)  # type: ignore[arg-type]
        for _ in range(9):
            step = a_step("run", "s", value=_value_of(blobs.put([DATA])))
            if _RUN in store.commit([by(self.run, step)]).committed:
                return
        raise AssertionError("the commit is refused for ever")

    def collect(self, deaths: Deaths | None = None) -> Callable[[Callable[[], None]], Collected]:
        """Return a collector without a grace: all that is older than its own start may go."""

        def collect(wait: Callable[[], None]) -> Collected:
            mortal, before = deaths or Deaths(0), self.now()
            store, blobs = (InTurn(each, wait, deaths=mortal) for each in (self.store, self.blobs))
            return collect_garbage(store, blobs, before)  # type: ignore[arg-type]

        return collect

    def check(self) -> None:
        """What is committed can be read; a last gc leaves that alone."""
        for _ in range(2):
            (step,) = self.store.list_steps(_RUN)
            assert step.value is not None
            assert bytes(self.blobs.open(step.value.integrity, len(DATA))) == DATA
            collect_garbage(self.store, self.blobs, self.now())


def _value_of(stored: Digest) -> StoredValue:
    value = a_value(DATA.decode(), place=Place.BLOB)
    return msgspec.structs.replace(value, integrity=stored)


@pytest.fixture
def worlds() -> Iterator[Callable[[], World]]:
    memory = Path("/dev/shm")  # nothing here depends on a disk
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    numbers = itertools.count()
    yield lambda: World(folder / str(next(numbers)))
    shutil.rmtree(folder)


MARKS = {"unmarked": False, "marked by a gc that died": True}


@pytest.mark.parametrize("marked", MARKS.values(), ids=MARKS)
def test_a_value_is_kept_in_every_order_of_a_writers_and_a_collectors_calls(
    worlds: Callable[[], World], marked: bool
) -> None:
    for schedule in itertools.product((0, 1), repeat=10):
        world = worlds()
        if marked:
            world.store.condemn([world.orphan])

        Turns(schedule).play(world.write, world.collect())

        world.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_value_is_kept_whichever_call_a_collector_dies_at(
    worlds: Callable[[], World], at: int, when: str
) -> None:
    for schedule in itertools.product((0, 1), repeat=6):
        world = worlds()

        Turns(schedule).play(world.write, world.collect(Deaths(at, when)))

        world.check()


def test_a_value_is_kept_beside_two_collectors(worlds: Callable[[], World]) -> None:
    for schedule in itertools.product((0, 1, 2), repeat=6):
        world = worlds()

        Turns(schedule).play(world.write, world.collect(), world.collect())

        world.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_the_next_collector_finishes_what_one_that_died_began(
    worlds: Callable[[], World], at: int, when: str
) -> None:
    world = worlds()
    Turns([]).play(world.collect(Deaths(at, when)))

    collect_garbage(world.store, world.blobs, world.before)

    assert list(world.blobs.survey()) == []


# --- one at a time -------------------------------------------------------------------------------
def test_collect_takes_orphans_that_are_old_and_nothing_else(worlds: Callable[[], World]) -> None:
    world = worlds()
    kept = world.blobs.put([b"referred to"])
    world.stamp()
    world.store.commit([by(world.run, a_step("run", "s", value=_value_of(kept)))])
    before = world.now()
    young = world.blobs.put([b"young"])
    world.stamp()

    foreseen = find_garbage(world.store, world.blobs, before)
    collected = collect_garbage(world.store, world.blobs, before)

    assert collected == foreseen == Collected(blobs=1, size_bytes=len(DATA), young=1)
    assert {blob.digest for blob in world.blobs.survey()} == {kept, young}


def test_the_mark_of_a_blob_that_is_gone_stands(worlds: Callable[[], World]) -> None:
    world = worlds()

    collect_garbage(world.store, world.blobs, world.before)

    assert list(world.store.list_condemned()) == [world.orphan]
    step = a_step("run", "s", value=_value_of(world.orphan))
    assert world.store.commit([by(world.run, step)]).refused[_RUN].kind == "condemned"


def test_reclaim_says_what_is_gone_and_lifts_only_the_marks_of_what_is_there(
    worlds: Callable[[], World],
) -> None:
    world = worlds()
    there, gone = world.orphan, Digest(f"blake3:{0:064x}")
    world.store.condemn([there, gone])

    assert not reclaim(world.store, world.blobs, [there, gone])
    assert list(world.store.list_condemned()) == [gone]
    assert reclaim(world.store, world.blobs, [there])


def test_a_run_is_made_at_once_of_blobs_that_were_condemned_and_put_again(
    worlds: Callable[[], World],
) -> None:
    world = worlds()
    plan = msgspec.structs.replace(a_plan("of condemned blobs"), blobs=(world.orphan,))
    world.store.condemn([world.orphan])
    store = reclaiming(world.store, world.blobs)

    created(store, "new", plan=plan)
    store.request_cancel(RunId("new"))

    assert world.store.unreferenced([world.orphan]) == []


def test_a_signal_takes_back_what_is_still_there(worlds: Callable[[], World]) -> None:
    world = worlds()
    world.store.condemn([world.orphan])
    store = reclaiming(world.store, world.blobs)

    assert store.send(a_message(value=_value_of(world.orphan))) is not None

    assert world.store.unreferenced([world.orphan]) == []


def test_arrivals_take_back_what_is_still_there_and_tell_of_their_ends(
    worlds: Callable[[], World],
) -> None:
    world = worlds()
    store = reclaiming(world.store, world.blobs)
    one, other = watched(store, "one"), watched(store, "other", watches_runs=True)
    ended(store, "over")
    numbers = [end.id for end in store.triggers.ends()]
    world.store.condemn([world.orphan])
    carrying = an_arrival(trigger="one", payload=_value_of(world.orphan))
    batch = [TriggerChange(trigger=one, arrivals=(carrying,)), arrived(other, "a")]

    report = store.triggers.accept(batch, numbers)

    assert (report.refused, report.made) == ({}, ("run-a",))
    assert list(report.accepted) == ["other", "one"]
    assert store.triggers.ends() == []
    assert world.store.unreferenced([world.orphan]) == []


def test_a_run_of_blobs_that_are_gone_is_refused(worlds: Callable[[], World]) -> None:
    world = worlds()
    collect_garbage(world.store, world.blobs, world.before)
    (gone,) = world.store.list_condemned()
    plan = msgspec.structs.replace(a_plan("of nothing"), blobs=(gone,))

    with pytest.raises(BlobsCondemned):
        created(reclaiming(world.store, world.blobs), "new", plan=plan)

    assert digest("of nothing") not in world.store.list_condemned()


def test_marks_older_than_any_row_under_way_are_forgotten(worlds: Callable[[], World]) -> None:
    world = worlds()
    now: datetime = SystemClock().now()
    world.store.condemn([digest("x")])

    assert forget_old_marks(world.store, now + MARKS_KEPT / 2) == 0
    assert forget_old_marks(world.store, now + MARKS_KEPT * 2) == 1
