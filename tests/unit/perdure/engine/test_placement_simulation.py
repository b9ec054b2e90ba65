"""Tasks and actors on few CPUs, by the rules of placement alone: all is done, and nobody starves.

One thread and a clock that is turned by hand. An actor's calls come one after the other; its
process lives from its first call until it is ended to make room. ``PERDURE_SIMULATION_WORLDS`` sets
how many worlds there are.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - worlds by chance, each from its seed
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from perdure.engine.placement import (
    PATIENCE_S,
    Pool,
    Shape,
    Waiting,
    call_shape,
    choose,
    make_room,
    process_shape,
    shape_of,
)
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions

WORLDS = int(os.environ.get("PERDURE_SIMULATION_WORLDS", "300"))
TWO_CORES = Capacity(cpus=2, gpu_ids=("0",), memory_bytes=100, slots=2)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=0.5)
ENDING = timedelta(seconds=1)
LONGEST = 6


@dataclass
class Work:
    """A task, or a call of an actor, which begins when the call before it has ended.

    Attributes:
        ticks: how long it takes.
        actor: whose call it is; None for a task.
    """

    name: str
    position: int
    options: StepOptions
    ticks: int
    actor: str | None = None
    ready_at: datetime | None = None
    began_at: datetime | None = None


class World:
    """What the engine and its executor do, with the decisions of ``placement`` alone."""

    def __init__(self, works: list[Work], capacity: Capacity = TWO_CORES) -> None:
        self.pool = Pool(capacity)
        self.now = BEGIN
        self.todo = works
        self.running: dict[str, tuple[Work, Shape, datetime]] = {}
        self.processes: set[str] = set()
        self.ending: dict[str, datetime] = {}
        self.ended = 0

    def run(self, at_most: int) -> None:
        """Let time pass until all is done; fail if it is not in so many ticks, or nothing moves."""
        for _ in range(at_most):
            self._settle()
            self._start()
            if not (self.todo or self.running):
                return
            assert self.running or self.ending, f"deadlock: {[w.name for w in self._ready()]}"
            self.now += TICK
        raise AssertionError(f"not done: {[work.name for work in self.todo]}")

    def _settle(self) -> None:
        for actor, at in list(self.ending.items()):
            if at <= self.now:
                del self.ending[actor]
                self.processes.discard(actor)
                self.pool.leave(actor)
        for name, (work, shape, until) in list(self.running.items()):
            if until <= self.now:
                del self.running[name]
                self.pool.give(shape, name)
                if work.actor is not None:
                    self.pool.rest(work.actor)

    def _ready(self) -> Iterator[Work]:
        busy = {work.actor for work, _, _ in self.running.values()}
        for work in self.todo:
            if work.actor is None or work.actor not in busy:
                busy.add(work.actor)
                if work.actor not in self.ending:
                    work.ready_at = work.ready_at or self.now
                    yield work

    def _start(self) -> None:
        while True:
            ready = {work.position: work for work in self._ready()}
            waiting = [Waiting(self._shape(w), w.position, w.ready_at) for w in ready.values()]
            choice = choose(self.pool, waiting, self.now)
            if choice.start is not None:
                self._begin(ready[choice.start.position])
                continue
            for holder in make_room(self.pool, waiting, self.now):
                assert isinstance(holder, str)
                self.ending[holder] = self.now + ENDING
                self.ended += 1
            return

    def _shape(self, work: Work) -> Shape:
        """Return what it holds: a call of an actor that lives nothing but its CPUs."""
        if work.actor in self.processes:
            return call_shape(work.options)
        return shape_of(work.options, is_async=False)

    def _begin(self, work: Work) -> None:
        shape = shape_of(work.options, is_async=False)
        if work.actor is not None:
            shape = call_shape(work.options)
            if work.actor in self.processes:
                assert self.pool.rouse(work.actor)
            else:
                self.processes.add(work.actor)
                self.pool.settle(work.actor, process_shape(work.options))
        self.pool.take(shape, work.name)
        work.began_at = self.now
        self.todo.remove(work)
        self.running[work.name] = work, shape, self.now + work.ticks * TICK
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
        works.append(Work(f"work-{position}", position, options, ticks, actor))
    return works


@pytest.mark.parametrize("block", range(10))
def test_all_is_done_in_worlds_of_tasks_and_actors(block: int) -> None:
    ended = 0
    for seed in range(block * WORLDS // 10, (block + 1) * WORLDS // 10):
        works = some_works(random.Random(seed))
        world = World(works)

        # Each alone, with patience and the end of every process before it: worse is no progress.
        world.run(at_most=len(works) * (LONGEST + 3 * int(ENDING / TICK)) + 20)

        assert not world.running, f"seed {seed}"
        ended += world.ended

    assert ended  # else nothing was in the way of anything


def test_idle_actors_that_hold_every_place_make_room_for_a_task() -> None:
    calls = [Work(f"call-{n}", n, StepOptions(), 1, f"actor-{n}") for n in range(2)]
    task = Work("task", 2, StepOptions(), 1)
    world = World([*calls, task])

    world.run(at_most=10)

    assert world.ended == 1


def test_large_task_begins_though_small_calls_never_cease() -> None:
    calls = [Work(f"call-{n}", n + 1, StepOptions(), 2, f"actor-{n % 3}") for n in range(90)]
    small = [Work(f"small-{n}", n + 100, StepOptions(cpus=0.5), 1) for n in range(60)]
    large = Work("large", 1_000, StepOptions(cpus=2, memory_bytes=100, gpus=1), 1)
    world = World([*calls, *small, large])

    world.run(at_most=1_000)

    assert large.began_at is not None
    waited = large.began_at - BEGIN
    assert waited <= timedelta(seconds=PATIENCE_S) + LONGEST * TICK + 2 * ENDING


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
