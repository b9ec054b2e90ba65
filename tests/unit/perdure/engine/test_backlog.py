"""Many runs in one engine: who starts next, and what a turn looks at for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.perdure.engine.bench import OWNER, START, made, plan_of, prints_of, stored

from perdure.calls import CallId, Outcome
from perdure.engine import decide as deciding
from perdure.engine import placing
from perdure.engine.backlog import Backlog, Want
from perdure.engine.decide import decide, take_on
from perdure.engine.events import CancelRequested, Ended, Event, PauseRequested
from perdure.engine.matching import match_rows
from perdure.engine.paces import MOST_UNSEEN
from perdure.engine.placement import PATIENCE, Choice, Pool, Waiting, choose
from perdure.engine.placing import Placed
from perdure.engine.restore import load_run
from perdure.engine.state import EngineState, RunState
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, Digest, RunId, RunPolicy, RunRecord

KINDS = {
    "small": StepOptions(cpus=1),
    "large": StepOptions(cpus=3),
    "gpu": StepOptions(cpus=1, gpus=1),
    "half": StepOptions(cpus=1, gpus=0.5),
}
CAPACITY = Capacity(cpus=4, gpu_ids=("0",), slots=64)

Place = Callable[[EngineState, datetime], Placed]


def ask_each_run(engine: EngineState, now: datetime) -> Placed:
    """Place as is meant: a step of the run that has not started one for longest, and so on."""
    asked = placing._Placing(engine, now)
    ranks: dict[int, list[RunState]] = {}
    for run in engine.runs.values():
        if run.ready and not run.is_stopping:
            ranks.setdefault(run.record.priority, []).append(run)
    for priority in sorted(ranks, reverse=True):
        waiting = ranks[priority]
        while waiting:
            run = min(waiting, key=lambda run: run.number)
            if asked._place_one(run):
                run.number = engine.next_number()
            else:
                waiting.remove(run)
            waiting = [run for run in waiting if run.ready]
    return Placed(tuple(asked.retire), tuple(asked.dispatch))


class World:
    """An engine that drives many runs, a clock moved by hand, and what is in flight."""

    def __init__(self, place: Place = placing.place) -> None:
        self.engine = EngineState({"processes": Pool(CAPACITY)}, made)
        self.now = START
        self.in_flight: list[CallId] = []
        self.started: list[str] = []
        self._place = place

    def take_on(self, run_id: str, edges: dict[str, list[str]], priority: int = 0) -> None:
        """Take on a run of these steps, named by their kinds."""
        options = {name: KINDS[name.partition("-")[0]] for name in edges}
        plan = plan_of(edges, options=options)
        prints = prints_of(plan)
        record = RunRecord(
            id=RunId(run_id),
            workflow="w",
            status=RunStatus.RUNNING,
            plan_digest=Digest("p"),
            policy=RunPolicy(),
            priority=priority,
            created_at=START,
            owner=OWNER,
            epoch=1,
        )
        own = match_rows(plan, prints, [])
        run = load_run(
            record,
            plan,
            prints,
            rows=[],
            attempts=[],
            own=own,
            donated=None,
            waits=[],
            now=self.now,
        )
        take_on(self.engine, run, self.now)

    def turn(self, *events: Event) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deciding, "place", self._place)
            turn = decide(self.engine, list(events), self.now)
        for each in turn.dispatch:
            self.in_flight.append(each.call.id)
            self.started.append(f"{each.call.id.run_id}/{each.call.id.step_id}")

    def end(self, number: int, *, took: timedelta | None = None) -> None:
        """Let one of the calls that are in flight succeed, if there is any."""
        if not self.in_flight:
            return
        outcome = Outcome(
            id=self.in_flight.pop(number % len(self.in_flight)),
            cause=Cause.SUCCEEDED,
            value=stored("v"),
            started_at=None if took is None else self.now - took,
            finished_at=None if took is None else self.now,
        )
        self.turn(Ended(outcome))


def apart(*kinds: str) -> dict[str, list[str]]:
    """Return independent steps of these kinds."""
    return {f"{kind}-{n}": [] for n, kind in enumerate(kinds)}


def in_line(*kinds: str) -> dict[str, list[str]]:
    """Return steps of these kinds, each of which needs the one before."""
    names = list(apart(*kinds))
    return {name: names[max(n - 1, 0) : n] for n, name in enumerate(names)}


KINDS_OF_RUN = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4)
RUNS = KINDS_OF_RUN.map(lambda kinds: apart(*kinds)) | KINDS_OF_RUN.map(lambda k: in_line(*k))
ACTIONS = st.one_of(
    st.tuples(st.just("take on"), RUNS, st.integers(0, 1)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("pass time"), st.floats(0.0, 8.0)),
    st.tuples(st.sampled_from(["pause", "go on", "cancel"]), st.integers(0, 9)),
)


def play(world: World, actions: list[tuple]) -> list[str]:  # type: ignore[type-arg]
    taken: list[str] = []
    for what, *how in actions:
        match what:
            case "take on":
                taken.append(f"r{len(taken)}")
                world.take_on(taken[-1], *how)
                world.turn()
            case "end":
                world.end(*how)
            case "pass time":
                world.now += timedelta(seconds=how[0])
                world.turn()
            case _ if taken:
                run_id = taken[how[0] % len(taken)]
                asked = PauseRequested(run_id, paused=what == "pause")
                world.turn(CancelRequested(run_id) if what == "cancel" else asked)
    while world.in_flight:
        world.end(0)
    return world.started


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_steps_start_in_the_order_in_which_each_run_would_be_asked_in_turn(
    actions: list[tuple],  # type: ignore[type-arg]
) -> None:
    assert play(World(), actions) == play(World(ask_each_run), actions)


def test_turn_looks_at_what_is_wanted_however_many_runs_want_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []

    def look(pool: Pool, waiting: Sequence[Waiting], *rest: Any) -> Choice:
        looks.append(len(waiting))
        return choose(pool, waiting, *rest)

    monkeypatch.setattr(placing, "choose", look)
    world = World()
    for number in range(300):
        world.take_on(f"r{number}", apart("small" if number % 2 else "large"))
    world.turn()
    looks.clear()

    for _ in range(20):
        world.end(0)

    assert len(looks) <= 20 * 4  # a turn: what starts, and each of the two kinds that then does not
    while world.in_flight:
        world.end(0)
    assert len(world.started) == 300


def test_request_that_waits_behind_younger_ones_of_its_like_is_kept_for_after_a_while() -> None:
    world = World()
    world.take_on("chain", {"small": [], "large": ["small"]})
    world.take_on("others", apart(*["small"] * 3))
    world.turn()
    world.take_on("waits", {"large": []})
    world.now += PATIENCE
    world.end(0)
    world.now += timedelta(seconds=1)
    for number in range(3):
        world.take_on(f"late-{number}", {"small": []})
        world.end(0)

    assert world.started[-1] == "chain/large", "it is as large, and no late one was before it"
    assert not any(each.startswith("late") for each in world.started)


def test_wide_run_does_not_keep_a_narrow_one_waiting() -> None:
    world = World()
    world.take_on("wide", apart(*["small"] * 50))
    world.turn()
    for number in range(3):
        world.take_on(f"narrow-{number}", {"small": []})

    for _ in range(6):
        world.end(0)

    narrow = [each for each in world.started if each.startswith("narrow")]
    assert narrow == ["narrow-0/small", "narrow-1/small", "narrow-2/small"]
    assert len(world.started) == 10, "and the wide run goes on beside them"


def test_small_steps_of_a_wide_run_do_not_take_each_time_what_a_large_one_of_another_needs() -> (
    None
):
    world = World()
    world.take_on("wide", apart(*["small"] * 50))
    world.turn()
    world.take_on("waits", {"large": []})
    world.turn()
    world.now += PATIENCE + timedelta(seconds=1)

    for _ in range(4):
        world.end(0)

    assert world.started[-2:] == ["wide/small-4", "waits/large"], (
        "one small step, whose turn it was"
    )


def test_few_calls_are_sent_ahead_of_a_function_that_was_brief_in_other_runs_only() -> None:
    world = World()
    world.take_on("first", {"small": []})
    world.turn()
    world.end(0, took=timedelta(milliseconds=2))
    for number in range(40):
        world.take_on(f"r{number}", {"small": []})

    world.turn()

    assert len(world.in_flight) == 4 * (1 + MOST_UNSEEN)
    world.end(0, took=timedelta(seconds=1))
    assert len(world.in_flight) == 4 * (1 + MOST_UNSEEN) - 1, "none goes ahead any more"


def test_runs_are_at_one_place_in_the_order_of_their_numbers() -> None:
    backlog, few, many = Backlog(), Want(0, "few"), Want(0, "many")
    for number, run_id in enumerate("abcd"):
        backlog.put(run_id, number, many)
    backlog.put("a", 0, few)
    backlog.leave("b")
    assert (backlog.first(few), backlog.first(many)) == ((0, "a"), (2, "c"))

    backlog.put("a", 0, many)

    assert (backlog.first(few), backlog.first(many)) == (None, (0, "a"))
    for run_id in "acd":
        backlog.leave(run_id)
    assert backlog.priorities == []


def test_what_is_to_be_looked_at_again_is_named_once_and_at_its_first_time() -> None:
    backlog = Backlog()
    backlog.look_again("a", START)
    backlog.look_again("a", START + PATIENCE)
    backlog.look_again("b", START + PATIENCE)

    assert backlog.due(START) == ["a"]
    assert backlog.due(START + PATIENCE) == ["b"]
    assert backlog.due(START + 2 * PATIENCE) == []
