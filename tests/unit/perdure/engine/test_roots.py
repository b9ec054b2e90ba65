"""Reasons that name what changed first."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.perdure.engine.bench import Bench, plan_of, prints_of, stored

from perdure.engine.matching import match_rows
from perdure.plan import FromInput, Plan, StepPlan
from perdure_storage.records import StepRecord, StoredValue


def chain(code: dict[str, str] | None = None) -> Plan:
    """load(path) -> scale -> fit(k)."""
    plan = plan_of({"load": [], "scale": ["load"], "fit": ["scale"]}, code=code)
    more = {"load": FromInput(name="path"), "fit": FromInput(name="k")}
    steps = tuple(
        msgspec.structs.replace(step, args=(*step.args, more[step.id])) if step.id in more else step
        for step in plan.steps
    )
    return msgspec.structs.replace(plan, steps=steps)


def rows_of(plan: Plan, inputs: dict[str, StoredValue]) -> list[StepRecord]:
    """The rows of a run that succeeded with these inputs."""
    bench = Bench(plan, record_fields={"inputs": inputs}).start()
    bench.all_succeed()
    return bench.rows


def reasons(plan: Plan, rows: list[StepRecord], inputs: dict[str, StoredValue]) -> dict[str, str]:
    """Why the steps run in a run of ``plan`` with ``inputs``, after one that left ``rows``."""
    values = "".join(sorted(value.value_digest for value in inputs.values()))
    prints = {step: f"{text}/{values}" for step, text in prints_of(plan).items()}
    return match_rows(plan, prints, rows, inputs=inputs).reasons


BEFORE = {"path": stored("a.csv"), "k": stored("3")}


@pytest.fixture(scope="module")
def rows() -> list[StepRecord]:
    return rows_of(chain(), BEFORE)


def test_step_that_takes_the_changed_parameter_is_told_its_name(rows: list[StepRecord]) -> None:
    assert reasons(chain(), rows, {**BEFORE, "path": stored("b.csv")})["load"] == (
        "parameter path changed"
    )


def test_steps_downstream_are_told_the_parameter_that_changed(rows: list[StepRecord]) -> None:
    told = reasons(chain(), rows, {**BEFORE, "path": stored("b.csv")})

    assert told["scale"] == told["fit"] == "something upstream changed: parameter path"


def test_step_that_takes_one_and_has_another_above_it_is_told_both(
    rows: list[StepRecord],
) -> None:
    told = reasons(chain(), rows, {"path": stored("b.csv"), "k": stored("4")})

    assert told["fit"] == "something upstream changed: parameter k, parameter path"


def test_parameter_that_a_step_and_the_step_above_it_take_is_named_once() -> None:
    plan = plan_of({"load": [], "fit": ["load"]})
    steps = tuple(
        msgspec.structs.replace(step, args=(*step.args, FromInput(name="day")))
        for step in plan.steps
    )
    both = msgspec.structs.replace(plan, steps=steps)
    before = rows_of(both, {"day": stored("1")})

    told = reasons(both, before, {"day": stored("2")})

    assert told["fit"] == "something upstream changed: parameter day"


def test_steps_downstream_are_told_the_step_whose_code_changed(rows: list[StepRecord]) -> None:
    told = reasons(chain(code={"load": "new"}), rows, BEFORE)

    assert told["load"] == "its code changed"
    assert told["fit"] == "something upstream changed: the code of load"


def test_reason_names_nothing_where_the_inputs_are_not_known(rows: list[StepRecord]) -> None:
    prints = dict.fromkeys(prints_of(chain()), "other")

    told = match_rows(chain(), prints, rows).reasons

    assert told == {
        "load": "an input of the run changed",
        "scale": "something upstream changed",
        "fit": "something upstream changed",
    }


def test_many_changes_are_counted() -> None:
    plan = plan_of({**{name: [] for name in "abcd"}, "z": list("abcd")})
    before = rows_of(plan, {})
    changed = plan_of(
        {**{name: [] for name in "abcd"}, "z": list("abcd")}, code=dict.fromkeys("abcd", "new")
    )

    assert match_rows(changed, prints_of(changed), before).reasons["z"] == (
        "something upstream changed: the code of a, the code of b and 2 more"
    )


def test_new_step_above_is_named() -> None:
    before = rows_of(plan_of({"z": []}), {})
    after: Plan = plan_of({"a": [], "z": ["a"]})

    steps: tuple[StepPlan, ...] = after.steps
    assert [step.id for step in steps] == ["a", "z"]
    assert match_rows(after, prints_of(after), before).reasons == {
        "z": "something upstream changed: a is new"
    }
