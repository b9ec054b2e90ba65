"""What a map makes of its iterables and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import perdure
from perdure import DefinitionError, execute, task


@task
def describe(x: Any, y: Any = None, extra: Any = None) -> str:
    return f"{x} {y} {extra}"


@task
def double(x: int) -> int:
    return 2 * x


def test_positional_iterables_are_zipped() -> None:
    assert execute(describe.map([1, 2], ["ab"] * 2)) == ["1 ab None", "2 ab None"]


def test_keywords_are_the_same_for_every_item_even_lists() -> None:
    assert execute(describe.map([1, 2], extra=[7, 8])) == ["1 None [7, 8]", "2 None [7, 8]"]


def test_keywords_that_say_so_are_mapped_over() -> None:
    assert execute(describe.map(x=perdure.each([1, 2]), extra=3)) == ["1 None 3", "2 None 3"]


def test_product_changes_the_last_factor_fastest() -> None:
    pairs = perdure.product([1, 2], double.map([5, 6]))

    assert execute(describe.map(pairs)) == [
        f"{pair} None None" for pair in [(1, 10), (1, 12), (2, 10), (2, 12)]
    ]


@pytest.mark.parametrize("values", [[1, 2], (1, 2), range(1, 3), iter([1, 2]), np.array([1, 2])])
def test_anything_in_order_is_mapped_over(values: Any) -> None:
    assert execute(double.map(values)) == [2, 4]


def test_map_over_nothing_gives_nothing() -> None:
    assert execute(double.map([])) == []


def test_map_of_a_map_and_of_a_projection() -> None:
    @task
    def pairs() -> list[list[int]]:
        return [[1, 2], [3]]

    assert execute(double.map(double.map(pairs.bind()[0]))) == [4, 8]


def test_nodes_among_the_items_arrive_as_values() -> None:
    assert execute(double.map([1, double.bind(2)])) == [2, 8]


def test_map_has_the_name_and_the_order_of_its_task() -> None:
    @perdure.workflow
    def ordered() -> Any:
        first = double.bind(1)
        return double.options(name="twice", after=first).map([1, 2])

    steps = {step.id: step for step in ordered.dag().steps}

    assert steps.keys() == {"double", "twice"}
    assert steps["twice"].after == ("double",)
    assert ordered() == [2, 4]


def test_unequal_lengths_are_told_by_name() -> None:
    with pytest.raises(DefinitionError, match=r"#0 has 2, y has 1"):
        execute(describe.map([1, 2], y=perdure.each([1])))
