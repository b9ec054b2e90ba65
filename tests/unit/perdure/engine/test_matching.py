"""The names of alike steps."""

from __future__ import annotations

import pytest

from perdure.engine.edits import changed_parts
from perdure.engine.matching import family_of
from perdure.graph.dag import shorten
from perdure.plan import Function, StepPlan


def step(step_id: str, name: str = "f") -> StepPlan:
    return StepPlan(id=step_id, name=name, function="", given="", own="")


@pytest.mark.parametrize(
    ("step_id", "family"),
    [
        ("f", "f"),
        ("f#2", "f"),
        ("prep#3/clean#12", "prep/clean"),
        ("f[0]", "f[*]"),
        ("f#2[17]", "f[*]"),
        ("f[3]/g[4]", "f[*]/g[*]"),
        ("f~1", "f~"),
        ("countdown~300", "countdown~"),
        ("f[2]~1", "f[*]~"),
    ],
)
def test_alike_steps_are_called_by_what_their_ids_have_in_common(step_id: str, family: str) -> None:
    assert family_of(step(step_id)) == family


def test_alike_steps_of_a_name_too_long_for_ids_have_one_name_still() -> None:
    name = "f" * 300

    families = {family_of(step(shorten(f"{name}#{number}"), name)) for number in range(2, 5)}

    assert families == {name}


def function(manifest: dict[str, str]) -> Function:
    return Function(id="f", module="m", qualname="f", code="c", counts_as="c", manifest=manifest)


def test_changed_part_is_told_with_its_place_of_today_and_what_only_moved_is_not() -> None:
    old = function({"fit (cell 2)": "a", "scale (cell 1)": "b", "gone (cell 1)": "c"})
    new = function({"fit (cell 5)": "x", "scale (cell 4)": "b", "numpy": "d"})

    assert changed_parts(old, new) == ["fit (cell 5)", "numpy"]


def test_part_that_is_reached_no_more_is_told_where_nothing_else_changed() -> None:
    old = function({"fit (cell 2)": "a", "gone (cell 1)": "c"})
    new = function({"fit (cell 5)": "a"})

    assert changed_parts(old, new) == ["gone (cell 1)"]
