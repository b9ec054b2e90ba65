"""What a fork takes over: all that holds, but for what is to be fresh and what that reaches."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.perdure.engine.bench import Bench, plan_of, stored

from perdure.plan import Plan, StepOptions, Takeover
from perdure_storage.lifecycle import RunStatus

EDGES = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "x": ["a"]}


@pytest.fixture
def plan() -> Plan:
    return plan_of(EDGES, output="d")


@pytest.fixture
def donor(plan: Plan) -> Bench:
    bench = Bench(plan).start()
    bench.all_succeed()
    return bench


def forked(plan: Plan, donor: Bench, **terms: object) -> Bench:
    """Load a fork of what the donor has, as far as it goes without an outcome."""
    takeover = Takeover(**terms)  # type: ignore[arg-type]
    bench = Bench(msgspec.structs.replace(plan, takeover=takeover))
    bench.load(donor=donor.rows)
    bench.turn()
    return bench


def test_forced_step_runs_alone_when_its_value_comes_out_the_same(plan: Plan, donor: Bench) -> None:
    bench = forked(plan, donor, force=("b",))

    assert bench.all_succeed() == ["b"]
    assert bench.ended_as is RunStatus.SUCCEEDED
    assert "asked to run it again" in bench.current("b").reason
    assert "unchanged" in bench.current("c").reason


def test_what_consumed_a_forced_step_runs_again_when_its_value_is_another(
    plan: Plan, donor: Bench
) -> None:
    bench = forked(plan, donor, force=("b",))
    bench.succeed("b", "another")

    assert bench.succeed("c").dispatch == ()
    assert [row.step_id for row in bench.rows if row.attempt] == ["b", "c"]
    assert bench.current("c").reason == "something upstream changed: b runs again"


def test_fork_from_a_step_runs_its_whole_cone_whatever_comes_out(plan: Plan, donor: Bench) -> None:
    bench = forked(plan, donor, from_step="b")

    assert bench.all_succeed() == ["b", "c", "d"]
    assert bench.current("b").reason == "the fork runs again from here"
    assert bench.current("d").reason == "the fork runs again from b"


def test_given_value_is_committed_and_what_consumed_another_runs(plan: Plan, donor: Bench) -> None:
    b = plan.steps[1]
    assert b.id == "b"
    steps = tuple(
        msgspec.structs.replace(step, args=(), own="given:v1:mine") if step is b else step
        for step in plan.steps
    )
    plan = msgspec.structs.replace(plan, steps=steps, constants=(stored("mine"),))

    bench = forked(plan, donor, given={"b": 0})

    assert bench.current("b").value == stored("mine")
    assert bench.current("b").attempt == 0
    assert bench.all_succeed() == ["c"]
    assert bench.current("c").inputs == ("v1:mine",)
    assert "value was given" in bench.current("b").reason


def test_changed_steps_are_kept_on_demand_but_not_below_a_forced_one(
    plan: Plan, donor: Bench
) -> None:
    edited = plan_of(EDGES, output="d", code={"a": "new", "c": "new", "x": "new"})

    bench = forked(edited, donor, force=("b",), keep_changed=True)
    bench.succeed("b", "another")

    assert list(bench.in_flight) == ["c"]
    assert bench.all_succeed() == ["c"]
    assert bench.current("a").attempt == bench.current("x").attempt == 0


def test_what_consumed_a_volatile_step_is_not_taken_over_when_it_reads_something_else() -> None:
    plan = plan_of({"a": [], "b": ["a"]}, options={"a": StepOptions(volatile=True)})
    donor = Bench(plan).start()
    donor.all_succeed()

    bench = Bench(plan)
    bench.load(donor=donor.rows)
    bench.turn()
    bench.succeed("a", "news")

    assert list(bench.in_flight) == ["b"]
