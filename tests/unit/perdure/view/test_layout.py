from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.view.layout import GAP_X, ROW, Box, Layout, lay_out, ranks

Arrows = list[tuple[str, str]]


def boxes(count: int, width: float = 120.0) -> list[Box]:
    return [Box(f"n{at}", width + at % 3 * 40, 46.0 + at % 2 * 30) for at in range(count)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Box], Arrows]:
    count = draw(st.integers(1, 24))
    pairs = [(f"n{a}", f"n{b}") for a, b in combinations(range(count), 2)]
    return boxes(count), draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


def overlapping(nodes: list[Box], found: Layout) -> list[tuple[str, str]]:
    return [
        (one.id, other.id)
        for one, other in combinations(nodes, 2)
        if all(
            found.places[one.id][axis] < found.places[other.id][axis] + size(other, axis)
            and found.places[other.id][axis] < found.places[one.id][axis] + size(one, axis)
            for axis in (0, 1)
        )
    ]


def size(box: Box, axis: int) -> float:
    return (box.width, box.height)[axis]


@given(graphs())
def test_no_box_lies_on_another_one(graph: tuple[list[Box], Arrows]) -> None:
    nodes, arrows = graph

    assert overlapping(nodes, lay_out(nodes, arrows)) == []


@given(graphs())
def test_every_arrow_leads_down_from_one_box_to_the_other(graph: tuple[list[Box], Arrows]) -> None:
    nodes, arrows = graph
    height = {box.id: box.height for box in nodes}

    found = lay_out(nodes, arrows)

    for (source, target), route in zip(arrows, found.routes):
        assert route[0][1] == found.places[source][1] + height[source]
        assert route[-1][1] == found.places[target][1]
        assert all(above[1] <= below[1] for above, below in pairwise(route))
        assert route[0][1] < route[-1][1]


@given(graphs())
def test_all_lies_within_the_picture(graph: tuple[list[Box], Arrows]) -> None:
    nodes, arrows = graph

    found = lay_out(nodes, arrows)

    assert min(x for x, _ in found.places.values()) >= -1e-6
    assert all(found.places[box.id][0] + box.width <= found.width + 1e-6 for box in nodes)
    assert all(found.places[box.id][1] + box.height <= found.height + 1e-6 for box in nodes)
    assert all(-1e-6 <= x <= found.width + 1e-6 for route in found.routes for x, _ in route)


@given(graphs())
def test_same_graph_gives_the_same_picture(graph: tuple[list[Box], Arrows]) -> None:
    assert lay_out(*graph) == lay_out(*graph)


def test_chain_is_straight() -> None:
    nodes = [Box("a", 100, 40), Box("b", 200, 40), Box("c", 60, 40)]

    found = lay_out(nodes, [("a", "b"), ("b", "c")])

    middles = [found.places[box.id][0] + box.width / 2 for box in nodes]
    assert middles == pytest.approx([100, 100, 100])


def test_branches_that_need_not_cross_do_not() -> None:
    nodes = [Box(name, 100, 40) for name in ("top", "a", "b", "below b", "below a")]

    found = lay_out(nodes, [("top", "a"), ("top", "b"), ("a", "below a"), ("b", "below b")])

    is_left = found.places["a"][0] < found.places["b"][0]
    assert (found.places["below a"][0] < found.places["below b"][0]) is is_left


def test_layer_of_a_thousand_is_broken_into_rows() -> None:
    nodes = [*boxes(1000, 100), Box("sum", 100, 40)]

    found = lay_out(nodes, [(box.id, "sum") for box in nodes[:-1]])

    assert len({y for _, y in found.places.values()}) == 33
    assert found.width < 32 * (180 + GAP_X)
    assert overlapping(nodes[::37], found) == []


def test_layer_that_fits_is_one_row() -> None:
    found = lay_out(boxes(ROW), [])

    assert {y for _, y in found.places.values()} == {0.0}


def test_source_stands_next_to_who_takes_it() -> None:
    nodes = [Box(name, 100, 40) for name in ("a", "b", "c", "late")]

    found = lay_out(nodes, [("a", "b"), ("b", "c"), ("late", "c")])

    assert found.places["late"][1] == found.places["b"][1]


def test_graph_of_many_long_arrows_is_laid_out_without_a_place_for_each() -> None:
    chain = boxes(300)
    arrows = [*pairwise(box.id for box in chain), *(("n0", box.id) for box in chain[2:])]

    found = lay_out(chain, arrows)

    assert len(found.routes) == len(arrows)
    assert sum(len(route) for route in found.routes) < 10_000


def test_nothing_is_a_picture_too() -> None:
    assert lay_out([], []) == Layout({}, [], 0.0, 0.0)


def test_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        ranks(["a", "b"], [("a", "b"), ("b", "a")])
