"""Branches and loops: only what is chosen runs, and a resume keeps to what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import branching_steps as steps
from tests.acceptance.growing_steps import ran

import perdure
from perdure import task
from perdure.client import Perdure
from perdure.errors import DefinitionError, LoopLimit, RunFailed
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import RunId


def statuses(client: Perdure, run_id: str) -> dict[str, StepStatus]:
    return {step.id: step.status for step in client.get_run(run_id).steps()}


@pytest.mark.parametrize(("cond", "result"), [(True, 6), (False, 10)])
def test_only_the_chosen_branch_runs(
    client: Perdure, tmp_path: Path, cond: bool, result: int
) -> None:
    assert client.run(steps.simple, cond=cond, folder=str(tmp_path), run_id="r") == result

    assert ran(tmp_path) == (["above", "yes"] if cond else ["no", "only_no"])
    skipped = {"no", "only_no"} if cond else {"above", "yes"}
    found = statuses(client, "r")
    assert {step for step, status in found.items() if status is StepStatus.SKIPPED} == skipped
    assert client.get_run("r").status is RunStatus.SUCCEEDED


def test_only_the_chosen_branch_runs_of_a_workflow_that_is_a_branch(
    inline: Perdure, tmp_path: Path
) -> None:
    chosen = ["simple/above", "simple/yes"]

    assert inline.run(steps.simple_as_a_branch, cond=True, folder=str(tmp_path), run_id="r") == 6
    assert ran(tmp_path) == chosen
    assert statuses(inline, "r")["simple/no"] is StepStatus.SKIPPED
    assert statuses(inline, "r")["simple/only_no"] is StepStatus.SKIPPED

    assert steps.simple_as_a_branch.execute(cond=True, folder=str(tmp_path)) == 6
    assert ran(tmp_path) == chosen


def test_skipped_step_says_which_branch_was_chosen(inline: Perdure) -> None:
    inline.run(steps.simple, cond=True, run_id="r")

    why = inline.why("r", "no")
    assert why == "no was skipped: the branch 'otherwise' of when was not chosen, but 'then'"
    assert inline.why("r", "when") == "when has the value of yes: 'then' was chosen"


def test_lost_value_of_a_select_is_rebuilt_by_its_branch(inline: Perdure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        inline.run(steps.read_later, cond=True, folder=str(tmp_path), run_id="r")
    row = inline.get_run("r")["when"].row
    assert row is not None
    assert row.value is not None
    (blob,) = Path(inline.settings.blobs).rglob(row.value.integrity.replace(":", "-"))
    blob.unlink()
    (tmp_path / "gate").touch()

    assert inline.resume("r").result() == 40_000

    assert ran(tmp_path) == ["large", "large"]


def test_branch_that_others_need_runs_and_after_a_skipped_step_is_after_it(
    client: Perdure, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    assert client.run(steps.shared, cond=True, folder=folder) == ["a", "b", "a", "late"]
    assert ran(tmp_path) == ["a", "b", "both", "late"]

    assert client.run(steps.shared, cond=False, folder=folder) == ["c", "b", "a", "late"]
    assert ran(tmp_path) == ["a", "b", "both", "c", "late"]


@pytest.mark.parametrize(("cond", "result"), [(True, 6), (False, "no")])
def test_step_of_a_branch_runs_when_the_choice_is_after_it(
    client: Perdure, tmp_path: Path, cond: bool, result: Any
) -> None:
    assert client.run(steps.asked_after, cond=cond, folder=str(tmp_path)) == result

    expected = ["asked", "offer", *(["pay"] if cond else [])]
    assert ran(tmp_path) == expected
    assert steps.asked_after(cond=cond, folder=str(tmp_path)) == result
    assert ran(tmp_path) == expected


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_choices_that_are_after_steps_of_each_other_are_made(
    inline: Perdure, first: bool, second: bool
) -> None:
    result = ["a" if first else "no a", "b" if second else "no b"]

    assert inline.run(steps.asked_crosswise, first=first, second=second) == result


@pytest.mark.parametrize(("x", "result"), [(0, 20), (1, [2, 4, 2]), (2, 4), (7, ["none"])])
def test_branches_may_be_anything(client: Perdure, x: int, result: Any) -> None:
    assert client.run(steps.nested, x=x) == result
    assert steps.nested(x=x) == result


@pytest.mark.parametrize(("cond", "first"), [(True, "a"), (False, "c")])
def test_value_of_a_branch_reaches_other_steps_without_a_run(cond: bool, first: str) -> None:
    assert steps.shared(cond=cond) == [first, "b", "a", "late"]


def test_workflow_as_a_branch_runs_whole_or_not_at_all(inline: Perdure, tmp_path: Path) -> None:
    inline.run(steps.nested, x=2, folder=str(tmp_path), run_id="r")
    assert ran(tmp_path) == ["pair/beside", "pair/double", "pair/extra"]

    inline.run(steps.nested, x=7, folder=str(tmp_path), run_id="s")
    assert ran(tmp_path) == ["value"]
    assert statuses(inline, "s")["pair/beside"] is StepStatus.SKIPPED


def test_workflow_within_a_branch_that_is_a_list_runs_whole_or_not_at_all(
    inline: Perdure, tmp_path: Path
) -> None:
    assert inline.run(steps.pairs, cond=True, folder=str(tmp_path)) == [{"x": 2}]
    assert ran(tmp_path) == ["pair/beside", "pair/double", "pair/extra"]

    assert inline.run(steps.pairs, cond=False, folder=str(tmp_path)) == []
    assert steps.pairs.execute(cond=False, folder=str(tmp_path)) == []
    assert ran(tmp_path) == []


def test_branches_within_maps_and_returned_graphs(client: Perdure) -> None:
    assert client.run(steps.within) == [["small", 4, 6], "small"]
    assert steps.within() == [["small", 4, 6], "small"]


@pytest.mark.parametrize(("x", "result"), [(1, "yes"), (0, "no")])
def test_choice_waits_for_a_chain_of_returned_graphs_with_an_order_in_them(
    inline: Perdure, x: int, result: str
) -> None:
    assert inline.run(steps.chosen_by_a_chain, x=x) == result


def test_key_that_is_no_case_fails_with_the_cases(inline: Perdure) -> None:
    key = steps.value.bind("reed")

    with pytest.raises(RunFailed, match=r"no case 'reed'; did you mean 'red'\? \(cases: 'red',"):
        inline.run(perdure.switch(key, {"red": 1, "blue": 2}))


@task
def checked() -> bool:
    raise ValueError("out of reach")


def test_caught_failure_decides_nothing(inline: Perdure) -> None:
    failure = checked.options(catch=True).bind()

    for chosen in (perdure.when(failure, "paid", "held"), perdure.switch(failure, {1: 2}, 3)):
        with pytest.raises(RunFailed, match=r"isinstance\(x, perdure\.Failure\)"):
            inline.run(chosen)


def test_branch_that_nobody_would_call_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'then'.*checked\.bind\("):
        perdure.when(True, checked)
    with pytest.raises(DefinitionError, match=r"'1'.*write @task above it"):
        perdure.switch(1, {1: lambda: 3})


def test_decision_stands_when_the_run_is_resumed(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    inline.run(steps.simple, cond=True, folder=folder, run_id="r")
    ran(tmp_path)
    rows = inline.runtime.store.list_steps(RunId("r"), current_only=False)

    assert inline.resume("r").result() == 6

    assert ran(tmp_path) == []
    assert len(inline.runtime.store.list_steps(RunId("r"), current_only=False)) == len(rows)


def test_other_decision_runs_the_other_branch_and_takes_over_the_rest(
    inline: Perdure, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    inline.run(steps.shared, cond=True, folder=folder, run_id="r")
    ran(tmp_path)

    assert inline.run(steps.shared, cond=False, folder=folder, reuse="r") == ["c", "b", "a", "late"]

    assert ran(tmp_path) == ["both", "c"]


def test_same_decision_of_another_value_takes_the_branch_over(
    inline: Perdure, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    inline.run(steps.simple, cond=True, folder=folder, run_id="r")
    ran(tmp_path)

    inputs = {"cond": 1, "folder": folder}
    dag = perdure.when(steps.value.bind("yes"), steps.double.bind(4, folder=folder))
    assert inline.run(dag, run_id="a") == 8
    assert ran(tmp_path) == ["double"]
    again = perdure.when(steps.value.bind("also yes"), steps.double.bind(4, folder=folder))
    assert inline.run(again, reuse="a") == 8
    assert ran(tmp_path) == []
    assert inputs


def test_graph_of_branches_is_explained_without_a_decision(inline: Perdure) -> None:
    text = str(inline.explain(steps.simple, inputs={"cond": True}))

    assert "yes" in text
    assert "no" in text


def test_condition_that_fails_fails_the_run(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match="nothing can be said"):
        inline.run(perdure.when(steps.value.bind(_Nothing()), 1, 2))


class _Nothing:
    def __bool__(self) -> bool:
        raise ValueError("nothing can be said of its truth")


# --- loops ------------------------------------------------------------------------------------
def test_loop_ends_when_until_holds(client: Perdure) -> None:
    assert client.run(steps.looped, start=3) == 96
    assert steps.looped(start=3) == 96


def test_loop_runs_its_body_at_least_once(inline: Perdure) -> None:
    assert inline.run(steps.looped, start=60) == 120


def test_loop_that_does_not_end_is_named_with_its_limit(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"loop over double was not done after 3 rounds") as failed:
        inline.run(steps.looped, start=1, most=3)
    assert isinstance(failed.value.__cause__, LoopLimit)
    with pytest.raises(LoopLimit, match="max_iterations=3"):
        steps.looped(start=1, most=3)


def test_long_loop_keeps_the_length_of_its_ids(inline: Perdure) -> None:
    assert inline.run(steps.long_loop, rounds=200, run_id="l", durability="group") == 200

    ids = {row.step_id for row in inline.runtime.store.list_steps(RunId("l"))}
    assert "loop~199" in ids
    assert max(map(len, ids)) <= len("loop~199/plus_one")


@pytest.mark.parametrize("most", [0, 1.5, True])
def test_loop_without_a_sensible_limit_is_refused(most: Any) -> None:
    with pytest.raises(DefinitionError, match="max_iterations"):
        perdure.loop(steps.double, 1, until=steps.is_large, max_iterations=most)


def test_loop_over_no_task_is_refused() -> None:
    with pytest.raises(DefinitionError, match="@task or @workflow above it"):
        perdure.loop(len, [1], until=bool, max_iterations=3)
