"""Tasks, actors and pools on few CPUs, by placement alone: all is done, and nobody starves.

One thread and a clock that is turned by hand. An actor's calls come one after the other, those of a
pool as many at a time as it has processes; these live until they are ended to make room.
``PERDURE_SIMULATION_WORLDS`` sets how many worlds there are.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - worlds by chance, each from its seed
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.engine.placement import (
    PATIENCE,
    Line,
    Pool,
    Seat,
    Waiting,
    choose,
    make_room,
    shape_of,
)
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions

WORLDS = int(os.environ.get("PERDURE_SIMULATION_WORLDS", "300"))
TWO_CORES = Capacity(cpus=2, gpu_ids=("0",), memory_bytes=100, slots=2)
TWO_GPUS = Capacity(cpus=8, gpu_ids=("0", "1"), slots=8)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=0.5)
LONGEST = 6


@dataclass
class Work:
    """A task, or a call of an actor, which begins when the call before it has ended.

    Attributes:
        ticks: how long it takes.
        actor: whose call it is; None for a task.
        pool: how many processes that has: then its calls have no order.
        arrives: after how many ticks it is there.
    """

    name: str
    position: int
    options: StepOptions
    ticks: int
    actor: str | None = None
    pool: int = 1
    arrives: int = 0
    ready_at: datetime | None = None
    began_at: datetime | None = None

    @property
    def line(self) -> Line:
        """Return in which queue it waits."""
        seat = None if self.actor is None else Seat("run", self.actor, self.pool)
        return Line(shape_of(self.options, is_async=False), seat)


class World:
    """What the engine and its executor do, with the decisions of ``placement`` alone."""

    def __init__(self, works: list[Work], capacity: Capacity = TWO_CORES) -> None:
        self.pool = Pool(capacity)
        self.now = BEGIN
        self.todo = works
        self.running: dict[str, tuple[Work, datetime]] = {}
        self.processes: set[tuple[str, int]] = set()
        self.made = 0
        self.ended = 0

    def run(self, at_most: int) -> None:
        """Let time pass until all is done; fail if it is not in so many ticks, or nothing moves."""
        for _ in range(at_most):
            self._settle()
            self._start()
            if not (self.todo or self.running):
                return
            ready = [work.name for work in self._ready()]
            assert self.running or not ready, f"deadlock: {ready}"
            self.now += TICK
        raise AssertionError(f"not done: {[work.name for work in self.todo]}")

    def _settle(self) -> None:
        for name, (work, until) in list(self.running.items()):
            if until <= self.now:
                del self.running[name]
                self.pool.give(work.line.shape, name)

    def _ready(self) -> Iterator[Work]:
        busy = {work.actor for work, _ in self.running.values()}
        for work in self.todo:
            if self.now < BEGIN + work.arrives * TICK:
                continue
            if work.actor is None or work.pool > 1 or work.actor not in busy:
                busy.add(work.actor)
                work.ready_at = work.ready_at or self.now
                yield work

    def _start(self) -> None:
        while True:
            ready = {work.position: work for work in self._ready()}
            waiting = [Waiting(w.line, (w.position,), w.ready_at) for w in ready.values()]
            choice = choose(self.pool, waiting, self.now)
            if choice.start is not None:
                self._begin(ready[choice.start.rank[0]])
                continue
            ended = make_room(self.pool, waiting, self.now, choice.kept)
            if not ended:
                return
            self.processes -= {(each.actor, each.number) for each in ended}
            self.ended += len(ended)

    def _begin(self, work: Work) -> None:
        self.pool.take(work.line, work.name)
        if work.actor is not None:
            process = (work.actor, self.pool.home(work.name))
            self.made += process not in self.processes
            self.processes.add(process)
        work.began_at = self.now
        self.todo.remove(work)
        self.running[work.name] = work, self.now + work.ticks * TICK
        self._check()

    def _check(self) -> None:
        free = self.pool.free
        assert free.slots >= 0
        assert free.cpus > -1e-6
        assert free.memory_bytes >= 0
        assert min(free.gpus, default=0) > -1e-6


def some_works(chance: random.Random) -> list[Work]:
    """Return tasks and actors whose calls are mixed, all of which fit by themselves."""
    actors = {
        f"actor-{n}": StepOptions(
            cpus=chance.choice([0, 0.5, 1, 2]),
            gpus=chance.choice([0, 0, 0.5, 1]),
            memory_bytes=chance.choice([None, 30, 60, 100]),
        )
        for n in range(chance.randint(1, 4))
    }
    pools = {actor: chance.choice([1, 1, 2, 3]) for actor in actors}
    works = []
    for position in range(chance.randint(5, 30)):
        actor = chance.choice([None, *actors])
        options = (
            actors[actor]
            if actor
            else StepOptions(
                cpus=chance.choice([0.5, 1, 1, 2]),
                gpus=chance.choice([0, 0, 1]),
                memory_bytes=chance.choice([None, None, 40, 100]),
            )
        )
        ticks = chance.randint(1, LONGEST)
        pool = pools[actor] if actor else 1
        works.append(Work(f"work-{position}", position, options, ticks, actor, pool))
    return works


@pytest.mark.parametrize("block", range(10))
def test_all_is_done_in_worlds_of_tasks_and_actors(block: int) -> None:
    ended = 0
    for seed in range(block * WORLDS // 10, (block + 1) * WORLDS // 10):
        works = some_works(random.Random(seed))
        world = World(works)

        # Each alone, with patience and the end of every process before it: worse is no progress.
        world.run(at_most=len(works) * LONGEST + 20)

        assert not world.running, f"seed {seed}"
        ended += world.ended

    assert ended  # else nothing was in the way of anything


def test_idle_actors_do_not_hold_the_places_of_tasks() -> None:
    calls = [Work(f"call-{n}", n, StepOptions(), 1, f"actor-{n}") for n in range(2)]
    tasks = [Work(f"task-{n}", n + 2, StepOptions(), 1) for n in range(2)]
    world = World([*calls, *tasks])

    world.run(at_most=3)

    assert world.ended == 0


def test_idle_actor_that_holds_the_gpu_makes_room_for_a_task() -> None:
    call = Work("call", 0, StepOptions(gpus=1), 1, "actor")
    task = Work("task", 1, StepOptions(gpus=1), 1)
    world = World([call, task])

    world.run(at_most=3)

    assert world.ended == 1


def test_pool_grows_to_its_size_and_no_further() -> None:
    calls = [Work(f"call-{n}", n, StepOptions(cpus=0.25), 2, "model", 3) for n in range(20)]
    world = World(calls, Capacity(cpus=8, slots=8))

    world.run(at_most=20)

    assert world.made == 3
    assert world.ended == 0


def some_calls(count: int, arrives: float, **options: Any) -> list[Work]:
    """Return calls of a pool of two, each of which comes so many ticks after the one before."""
    asked = StepOptions(gpus=1, cpus=0.1)
    return [
        Work(f"call-{n}", n, asked, arrives=int(n * arrives), actor="model", pool=2, **options)
        for n in range(count)
    ]


def test_pool_shrinks_for_a_task_and_grows_again_after_it() -> None:
    calls = [*some_calls(4, 1, ticks=2), *some_calls(14, 1, ticks=2)[10:]]
    task = Work("task", 4, StepOptions(gpus=2), 2, arrives=6)
    world = World([*calls, task], TWO_GPUS)

    world.run(at_most=40)

    assert task.began_at is not None
    assert task.began_at < BEGIN + 10 * TICK
    assert world.ended == 2
    assert world.made == 4


def test_task_that_wants_a_gpu_begins_though_calls_of_a_pool_never_cease() -> None:
    task = Work("task", 100, StepOptions(gpus=1, cpus=0), 1)
    world = World([*some_calls(99, 0.5, ticks=1), task], TWO_GPUS)

    world.run(at_most=300)

    assert task.began_at is not None
    assert task.began_at - BEGIN <= PATIENCE + 3 * TICK


def test_call_of_a_pool_begins_though_tasks_that_want_the_gpu_never_cease() -> None:
    tasks = [Work(f"task-{n}", n, StepOptions(gpus=1), 2, arrives=n) for n in range(99)]
    call = Work("call", 100, StepOptions(gpus=1), 1, "model", 2)
    world = World([*tasks, call], TWO_GPUS)

    world.run(at_most=300)

    assert call.began_at is not None
    assert call.began_at - BEGIN <= PATIENCE + 3 * TICK


def test_idle_pool_is_not_ended_for_what_fits_when_a_task_has_ended() -> None:
    call = Work("call", 0, StepOptions(cpus=0, memory_bytes=40), 1, "model", 2)
    tasks = [Work(f"task-{n}", n + 1, StepOptions(memory_bytes=60), 4) for n in range(4)]
    again = Work("again", 9, StepOptions(cpus=0, memory_bytes=40), 1, "model", 2)
    world = World([call, *tasks, again], Capacity(cpus=3, memory_bytes=100, slots=8))

    world.run(at_most=40)

    assert world.ended == 0


def test_large_task_begins_though_small_calls_never_cease() -> None:
    calls = [Work(f"call-{n}", n + 1, StepOptions(), 2, f"actor-{n % 3}") for n in range(90)]
    small = [Work(f"small-{n}", n + 100, StepOptions(cpus=0.5), 1) for n in range(60)]
    large = Work("large", 1_000, StepOptions(cpus=2, memory_bytes=100, gpus=1), 1)
    world = World([*calls, *small, large])

    world.run(at_most=1_000)

    assert large.began_at is not None
    waited = large.began_at - BEGIN
    assert waited <= PATIENCE + LONGEST * TICK


def test_actor_is_not_ended_while_others_fit_beside_it() -> None:
    call = Work("call", 0, StepOptions(memory_bytes=40), 1, "actor")
    tasks = [Work(f"task-{n}", n + 1, StepOptions(memory_bytes=20), 2) for n in range(6)]
    again = Work("again", 9, StepOptions(memory_bytes=40), 1, "actor")
    world = World([call, *tasks, again], Capacity(cpus=3, memory_bytes=100, slots=8))

    world.run(at_most=40)

    assert world.ended == 0


def test_task_that_waits_for_a_gpu_does_not_hold_up_those_that_want_cpus_alone() -> None:
    holder = Work("holder", 0, StepOptions(cpus=0, gpus=1), 60)
    waits = Work("waits", 1, StepOptions(cpus=1, gpus=1), 1)
    small = [Work(f"small-{n}", n + 2, StepOptions(), 2) for n in range(20)]
    world = World([holder, waits, *small], Capacity(cpus=2, gpu_ids=("0",), slots=8))

    world.run(at_most=100)

    assert waits.began_at == BEGIN + 60 * TICK
    assert all(work.began_at is not None and work.began_at < waits.began_at for work in small)
