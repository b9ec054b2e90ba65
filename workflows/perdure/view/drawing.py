"""A graph as SVG. Colours are the style sheet's: a node has only the name of where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from perdure import words
from perdure.view.layout import Box, Layout, Point, lay_out
from perdure.view.markup import Content, Element, element
from perdure.view.model import EdgeView, GraphView, NodeView

_CHAR = 7.25
"""Width of a character of the titles: they are of one width, see ``view.css``."""
_TITLE, _NOTE = 30, 28
_LEAST, _STACK = 116.0, 218.0
_PLAIN_HEIGHT, _STACK_HEIGHT = 46.0, 58.0
_PAD, _HEAD = 16.0, 38.0
_MARGIN = 10.0
_BEHIND = 4.0

_lay_out = lru_cache(maxsize=64)(lay_out)
"""A run is drawn again and again while it goes on, and only its colours have changed."""


def draw_graph(graph: GraphView, anchors: Mapping[str, str]) -> Element:
    """Return the picture of a graph.

    Args:
        graph: what is to be drawn.
        anchors: where in the page a step is told of, by step id.
    """
    layout = _place(graph)
    # What lies behind a node of many reaches beyond it.
    width, height = layout.width + 2 * _MARGIN + 8, layout.height + 2 * _MARGIN + 8
    return element(
        "svg",
        _draw(graph, layout, (_MARGIN, _MARGIN), anchors),
        class_="graph",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=round(width),
        height=round(height),
        role="img",
        aria_label="the graph of the run",
    )


def _place(graph: GraphView) -> Layout:
    boxes = tuple(_box(node) for node in graph.nodes)
    return _lay_out(boxes, tuple((edge.source, edge.target) for edge in graph.edges))


def _box(node: NodeView) -> Box:
    title = len(short_title(node.title)) * _CHAR + 40
    if node.inside is not None:
        inside = _place(node.inside)
        return Box(
            node.id,
            max(inside.width + 2 * _PAD, title, _LEAST),
            inside.height + _HEAD + _PAD,
        )
    if is_stack(node):
        return Box(node.id, max(title, _STACK), _STACK_HEIGHT)
    return Box(node.id, max(title, _LEAST), _PLAIN_HEIGHT)


def _draw(graph: GraphView, layout: Layout, at: Point, anchors: Mapping[str, str]) -> list[Content]:
    standing = {node.id: node.status for node in graph.nodes}
    arrows = [
        _edge(edge, [(x + at[0], y + at[1]) for x, y in route], standing[edge.source])
        for edge, route in zip(graph.edges, layout.routes)
    ]
    nodes = []
    for node in graph.nodes:
        x, y = layout.places[node.id]
        nodes.append(_node(node, _box(node), (x + at[0], y + at[1]), anchors))
    return [element("g", arrows, class_="edges"), element("g", nodes, class_="nodes")]


# --- nodes --------------------------------------------------------------------------------------
def _node(node: NodeView, box: Box, at: Point, anchors: Mapping[str, str]) -> Content:
    parts: list[Content] = [element("title", told_of(node)), *_frame(node, box, at)]
    parts += [
        element("circle", cx=at[0] + 16, cy=at[1] + 17, r=4.5, class_="dot"),
        element("text", short_title(node.title), x=at[0] + 28, y=at[1] + 21.5, class_="title"),
    ]
    if node.inside is not None:
        inner = at[0] + (box.width - _place(node.inside).width) / 2, at[1] + _HEAD
        parts += _draw(node.inside, _place(node.inside), inner, anchors)
    else:
        parts.append(element("text", _note(node), x=at[0] + 28, y=at[1] + 37, class_="note"))
        if node.count:
            parts.append(_bar(node, (at[0] + 12, at[1] + box.height - 10), box.width - 24))
    drawn = element(
        "g",
        parts,
        class_=f"node k-{node.kind} {status_class(node.status)}{' around' if node.inside else ''}",
        data_step=node.id,
    )
    anchor = anchors.get(node.id)
    # No link around links: those of a graph inside would not work.
    return element("a", drawn, href=f"#{anchor}") if anchor and node.inside is None else drawn


def _frame(node: NodeView, box: Box, at: Point) -> list[Element]:
    x, y = at
    radius = box.height / 2 if node.kind == "wait" else 9
    size = {"width": box.width, "height": box.height, "rx": radius}
    behind = [
        element("rect", x=x + n * _BEHIND, y=y + n * _BEHIND, **size, class_="behind")
        for n in ((2, 1) if is_stack(node) else ())
    ]
    return [*behind, element("rect", x=x, y=y, **size, class_="face")]


def is_stack(node: NodeView) -> bool:
    """Say whether a node stands for several steps that are not drawn.

    A map or a loop does so from the beginning: its place is not to grow when it begins.
    """
    return (node.count > 0 or node.kind in ("map", "loop")) and node.inside is None


def _bar(node: NodeView, at: Point, width: float) -> Element:
    """Draw how many stand where, as parts of one bar; what is least still shows."""
    whole = sum(node.statuses.values())
    parts = []
    x = at[0]
    for status in sorted(node.statuses, key=status_rank):
        share = width * node.statuses[status] / whole
        parts.append(
            element(
                "rect",
                x=x,
                y=at[1],
                width=max(share, 2.0),
                height=4,
                class_=f"part {status_class(status)}",
            )
        )
        x += share
    return element("g", parts, class_="bar")


def _note(node: NodeView) -> str:
    if not node.count:
        took = words.duration(node.duration_s)
        return took if took and node.status == "SUCCEEDED" else standing_text(node.status)
    done = sum(node.statuses.get(each, 0) for each in ("SUCCEEDED", "reused", "SKIPPED", "caught"))
    note = f"{done:,} of {node.count:,}"
    for each in ("FAILED", "RUNNING", "caught"):
        if node.statuses.get(each):
            longer = f"{note}, {node.statuses[each]:,} {each.lower()}"
            note = longer if len(longer) <= _NOTE else note
    return note


def told_of(node: NodeView) -> str:
    """Return what is told where the mouse rests on a node."""
    lines = [node.title, standing_text(node.status)]
    if node.count:
        counted = sorted(node.statuses.items(), key=lambda each: status_rank(each[0]))
        lines += [f"{number:,} {standing_text(status)}" for status, number in counted]
    if node.duration_s is not None:
        lines.append(f"ran for {words.duration(node.duration_s)}")
    return "\n".join(lines)


def short_title(title: str) -> str:
    """Return a title that has room in a box: of a long one, how it begins and ends."""
    if len(title) <= _TITLE:
        return title
    half = _TITLE // 2
    return f"{title[:half]}…{title[1 - half :]}"


# --- arrows -------------------------------------------------------------------------------------
def _edge(edge: EdgeView, route: Sequence[Point], status: str) -> Element:
    is_on = status in ("SUCCEEDED", "reused", "caught")
    x, y = route[-1]
    parts: list[Content] = [
        element("path", d=_curve(route), class_="line"),
        element("path", d=f"M{x:.1f} {y:.1f}l-4 -7h8z", class_="head"),
    ]
    if edge.label:
        before = route[-2]  # near there: where they end, the branches lie upon each other
        parts.append(
            element(
                "text",
                edge.label if len(edge.label) <= 16 else f"{edge.label[:15]}…",
                x=before[0] + 0.15 * (x - before[0]),
                y=before[1] + 0.4 * (y - before[1]) + 3,
                class_="label",
                text_anchor="middle",
            )
        )
    return element(
        "g",
        parts,
        class_=f"edge e-{edge.kind}{' on' if is_on else ''}",
        data_from=edge.source,
        data_to=edge.target,
    )


def _curve(route: Sequence[Point]) -> str:
    """Return a path that leaves and arrives upright, and ends where its head begins."""
    x, y = route[0]
    parts = [f"M{x:.1f} {y:.1f}"]
    points = [*route[1:-1], (route[-1][0], route[-1][1] - 6)]
    for to_x, to_y in points:
        if abs(to_x - x) < 0.5:
            parts.append(f"V{to_y:.1f}")
            to_x = x
        else:
            middle = (y + to_y) / 2
            parts.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(parts)


# --- statuses -----------------------------------------------------------------------------------
_ORDER = (
    "SUCCEEDED",
    "reused",
    "caught",
    "SKIPPED",
    "FAILED",
    "RUNNING",
    "READY",
    "WAITING",
    "PENDING",
    "LOST",
    "CANCELLED",
    "not finished",
    "not begun",
)
_TEXTS = {"READY": "to be retried", "caught": "failed, caught", "PENDING": "not begun"}


def status_class(status: str) -> str:
    """Return the class by which a style sheet knows where something stands."""
    return f"s-{status.lower().replace(' ', '-')}"


def standing_text(status: str) -> str:
    """Return where something stands, in words."""
    return _TEXTS.get(status, status.lower())


def status_rank(status: str) -> int:
    """Return the place of a status where several are listed."""
    return _ORDER.index(status) if status in _ORDER else len(_ORDER)
