"""Programs of tasks and actors by chance, killed anywhere: each call changes its actor once."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.crash.actor_programs import foretold, plain, playing, programs, snapshots
from tests.crash.counting import Life, MortalExecutor, Tripwire, dead_owner
from tests.crash.here import Here

import perdure
from perdure.calls import CallId, Instance, Outcome, StepCall
from perdure.client import open_store
from perdure.executors.protocol import Capacity
from perdure.results import read_result
from perdure.runtime import Runtime
from perdure.settings import load_settings
from perdure.worker.scope import RunScope
from perdure_storage.faults import InjectedCrash
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Place, RunId

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

NEVER = 1 << 30
RUN = "victim"
EXAMPLES = int(os.environ.get("PERDURE_PROGRAMS", "25"))
ON_RAY = int(os.environ.get("PERDURE_RAY_PROGRAMS", "1"))
"""How many on Ray, where only deaths lose instances and a life takes seconds."""
by_chance = settings(
    max_examples=EXAMPLES,
    derandomize="PERDURE_PROGRAMS" not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # a program of many steps takes long to be made smaller
    suppress_health_check=list(HealthCheck),
)
deaths = st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["before", "after"])), max_size=3)
losses = st.integers(1, 9)
"""Every how many calls the processes of all actors are gone."""


class LossyExecutor(MortalExecutor):
    """Runs steps here, each actor's in as many places as it has processes elsewhere.

    It has one GPU, which one at a time has, and fails if the engine would have it otherwise. Every
    so many calls it has lost the instances of all actors.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.capacity = Capacity(cpus=2, gpu_ids=("0",), memory_bytes=1 << 30, slots=4)
        self._every = every
        self._counted = count(1)
        self._instances: dict[Instance, dict[str, Any]] = {}
        self._gpu: Hashable = None  # who has it: an instance, or a call

    def submit(self, calls: Sequence[StepCall]) -> None:
        waiting = {_home(call) for call in self._calls}
        for call in calls:
            home = _home(call)
            assert not isinstance(home, Instance) or home not in waiting, "it makes a call already"
            waiting.add(home)
            if call.gpu_ids:
                assert self._gpu in (None, home), "somebody else has the GPU"
                self._gpu = home
        super().submit(calls)

    def retire(self, instances: Sequence[Instance]) -> None:
        for instance in instances:
            assert instance not in {_home(call) for call in self._calls}, "it makes a call"
            self._instances.pop(instance, None)
            if self._gpu == instance:
                self._gpu = None

    def close_run(self, run_id: str) -> None:
        self._instances.clear()
        self._gpu = None
        super().close_run(run_id)

    def _run_one(self, call: StepCall, scope: RunScope) -> Outcome:
        if next(self._counted) % self._every == 0:
            self._instances.clear()
        home = _home(call)
        scope.actors = self._instances.setdefault(home, {}) if isinstance(home, Instance) else {}
        return super()._run_one(call, scope)


def _home(call: StepCall) -> Instance | CallId:
    if call.actor is None:
        return call.id
    return Instance(call.id.run_id, call.actor.of.actor, call.actor.number)


class Stage:
    """A folder with a store, on which coordinators live and die."""

    def __init__(self, folder: Path, executor: str, make_executor: Callable[[], Any]) -> None:
        self.store = str(folder / "perdure.db")
        self._executor = executor
        self._make_executor = make_executor
        self._owners = count()

    def live(self, wire: Tripwire, run_id: str = RUN, **options: Any) -> None:
        """Drive the run until it ends, or the wire trips."""
        runtime = Runtime(load_settings(store=self.store, executor=self._executor, gpus=1))
        owner = dead_owner(next(self._owners))
        life = Life(runtime, wire, owner, self._make_executor)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("perdure.worker.scope.open_blobs", life.open_worker_blobs)
            try:
                life.run(playing, run_id, **options)
            finally:
                life.end()


@contextmanager
def staged(here: Here, every: int) -> Iterator[Stage]:
    """Give a stage on which nothing has happened; on Ray only deaths lose instances."""
    here.clear()
    is_on_ray = here.executor == "ray"
    make_executor = here.make_executor if is_on_ray else partial(LossyExecutor, every)
    with TemporaryDirectory(dir=here.notes) as name:
        yield Stage(Path(name), here.executor, make_executor)


def check(stage: Stage, wanted: Any, run_id: str = RUN) -> None:
    with open_store(stage.store) as client:
        record = client.runtime.store.get_run(RunId(run_id))
        assert record.status is RunStatus.SUCCEEDED, f"{record.status}: {record.error}"
        assert plain(read_result(client.runtime, record)) == wanted


@by_chance
@given(programs)
def test_program_of_actors_executed_eagerly_comes_to_what_it_should(
    here: Here, program: list[Any]
) -> None:
    here.clear()

    result = perdure.execute(playing, program=program, snapshots=["every", "every"])

    assert plain(result) == foretold(program)


@by_chance
@given(programs, snapshots, deaths, losses, st.sampled_from(["step", "group"]))
def test_killed_program_of_actors_comes_to_what_it_should(
    here: Here,
    program: list[Any],
    kept: list[Any],
    deaths: list[tuple[int, str]],
    every: int,
    durability: str,
) -> None:
    options = {"inputs": {"program": program, "snapshots": kept}, "durability": durability}
    kill_and_check(here, program, deaths, every, options)


@pytest.fixture
def gpu_node(ray_cluster: LocalCluster) -> Iterator[None]:
    node = ray_cluster.add(cpus=1, gpus=1)
    yield
    ray_cluster.remove(node)


@settings(by_chance, max_examples=ON_RAY)
@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("gpu_node")
@pytest.mark.parametrize("executor", ["ray"])
@given(programs, snapshots, deaths.filter(bool))
def test_killed_program_of_actors_on_ray_comes_to_what_it_should(
    here: Here, program: list[Any], kept: list[Any], deaths: list[tuple[int, str]]
) -> None:
    options = {"inputs": {"program": program, "snapshots": kept}}
    kill_and_check(here, program, deaths, 1, options)


def kill_and_check(
    here: Here,
    program: list[Any],
    deaths: list[tuple[int, str]],
    every: int,
    options: dict[str, Any],
) -> None:
    with staged(here, every) as stage:
        undisturbed = Tripwire(NEVER, "before")
        stage.live(undisturbed, "undisturbed", **options)
        check(stage, foretold(program), "undisturbed")
        for at, when in deaths:
            try:
                stage.live(Tripwire(at % undisturbed.calls + 1, when), **options)
            except InjectedCrash:
                continue
            break
        stage.live(Tripwire(NEVER, "before"), **options)

        check(stage, foretold(program))


@by_chance
@given(programs, programs, snapshots, st.integers(0, 1 << 30))
def test_program_of_actors_that_was_edited_and_lost_values_comes_to_what_it_should(
    here: Here, program: list[Any], edit: list[Any], kept: list[Any], lost: int
) -> None:
    edited = [*program[: lost % (len(program) + 1)], *edit]

    with staged(here, 7) as stage:
        inputs = {"program": program, "snapshots": kept}
        stage.live(Tripwire(NEVER, "before"), "first", inputs=inputs)
        lose(stage, "first", lost)
        inputs = {"program": edited, "snapshots": kept}
        stage.live(Tripwire(NEVER, "before"), RUN, inputs=inputs, reuse="first")

        check(stage, foretold(edited))


def lose(stage: Stage, run_id: str, which: int) -> None:
    """Remove blobs of values and of states: those whose bit is set."""
    with open_store(stage.store) as client:
        rows = client.runtime.store.list_steps(RunId(run_id))
        values = [value for row in rows for value in (row.value, *row.states.values()) if value]
        names = sorted({each.integrity for each in values if each.place is Place.BLOB})
        for at, name in enumerate(names):
            if which >> (at % 30) & 1:
                client.runtime.blobs.delete(name)
        assert all(row.status is not StepStatus.LOST for row in rows)
