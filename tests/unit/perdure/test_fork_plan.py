"""What a fork was asked for, as part of its plan."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.perdure.engine.bench import plan_of, stored

from perdure.errors import DefinitionError
from perdure.fingerprint import fingerprints
from perdure.fork_plan import carried_over, step_of, steps_of, with_takeover
from perdure.grown import Grown
from perdure.plan import Plan, Takeover, decode_plan, encode_plan, references


@pytest.fixture
def plan() -> Plan:
    return plan_of({"a": [], "b": ["a"], "c": ["b"]}, output="c")


def test_plan_of_a_fork_survives_being_written_down(plan: Plan) -> None:
    forked = with_takeover(plan, Takeover(from_step="a", force=("c",)), {"b": stored("mine")})

    assert decode_plan(encode_plan(forked)) == forked


def test_plan_without_any_wish_is_todays(plan: Plan) -> None:
    assert with_takeover(plan, Takeover(), {}) is plan


def test_given_step_takes_nothing_and_changes_the_fingerprints_below_it(plan: Plan) -> None:
    forked = with_takeover(plan, Takeover(), {"b": stored("mine")})

    before, after = fingerprints(plan, {}), fingerprints(forked, {})
    assert references(step_of(forked, "b", "")) == []
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]
    assert before["c"] != after["c"]


def test_two_given_values_are_two_fingerprints(plan: Plan) -> None:
    one, other = (with_takeover(plan, Takeover(), {"b": stored(text)}) for text in ("x", "y"))

    assert fingerprints(one, {})["b"] != fingerprints(other, {})["b"]


def test_what_a_fork_was_asked_for_is_carried_into_an_edited_plan(plan: Plan) -> None:
    terms = Takeover(from_step="c", force=("a", "c", "a[3]"), keep_changed=True)
    recorded = with_takeover(plan, terms, {"b": stored("mine"), "lost": stored("other")})
    edited = plan_of({"new": [], "a": ["new"], "b": ["a"]}, output="b")

    carried = carried_over(edited, recorded).takeover

    assert carried is not None
    assert carried.from_step is None
    assert carried.force == ("a", "a[3]"), "whether there is a[3] is known when a has grown"
    assert carried.keep_changed
    assert carried.given.keys() == {"b"}


def test_id_means_one_step_and_a_name_or_pattern_means_all_of_it() -> None:
    plan = plan_of({"f": [], "f#2": [], "g": []}, output="g")
    steps = tuple(msgspec.structs.replace(step, name=step.id[0]) for step in plan.steps)
    plan = msgspec.structs.replace(plan, steps=steps)

    assert steps_of(plan, Grown(), ["f"], "") == ("f",)
    assert steps_of(plan, Grown(), ["f*"], "") == ("f", "f#2")
    with pytest.raises(DefinitionError, match="did you mean 'f#2'"):
        steps_of(plan, Grown(), ["f#3"], "force=")
