"""All nodes of a graph that is too large to be drawn, as colours: a square each, as one reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from perdure.view.drawing import short_title, status_class, told_of
from perdure.view.markup import Content, Element, element
from perdure.view.model import GraphView, NodeView

_COLUMNS = 50
_PITCH, _SQUARE = 16, 13
_LABEL = 230
_CALLED_FOR = ("FAILED", "RUNNING", "caught")
"""What somebody looks for reaches into the gap around it."""


def draw_overview(graph: GraphView, anchors: Mapping[str, str]) -> Element:
    """Return the squares of a graph's nodes in the order of the plan, each row with its first name.

    Args:
        graph: what is to be drawn.
        anchors: where in the page a step is told of, by step id.
    """
    nodes = list(_flat(graph))
    width = _LABEL + _COLUMNS * _PITCH + 4
    height = math.ceil(len(nodes) / _COLUMNS) * _PITCH + 6
    return element(
        "svg",
        [_label(row, nodes[at]) for row, at in enumerate(range(0, len(nodes), _COLUMNS))],
        [_square(at, node, anchors) for at, node in enumerate(nodes)],
        class_="overview",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label="all nodes of the graph, in the order of the plan",
    )


def _flat(graph: GraphView) -> Iterator[NodeView]:
    for node in graph.nodes:
        yield node
        if node.inside is not None:
            yield from _flat(node.inside)


def _label(row: int, node: NodeView) -> Element:
    return element("text", short_title(node.title), x=4, y=row * _PITCH + 14, class_="label")


def _square(at: int, node: NodeView, anchors: Mapping[str, str]) -> Content:
    row, column = divmod(at, _COLUMNS)
    grown = 1 if node.status in _CALLED_FOR else 0
    drawn = element(
        "rect",
        element("title", told_of(node)),
        x=_LABEL + column * _PITCH - grown,
        y=row * _PITCH + 4 - grown,
        width=_SQUARE + 2 * grown,
        height=_SQUARE + 2 * grown,
        class_=f"square {status_class(node.status)}",
        data_step=node.id,
    )
    anchor = anchors.get(node.id)
    return element("a", drawn, href=f"#{anchor}") if anchor else drawn
