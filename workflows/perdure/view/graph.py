"""A run's graph as people see it: what is one node, what is inside of one, and where each stands.

What the picture is made of is decided by the structure alone, never by how far the run is: so
nothing moves while it goes on, but where the graph itself grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.engine.matching import family_of
from perdure.plan import FromStep, StepPlan, upstream
from perdure.progress.causes import standing_of
from perdure.view.layout import ranks
from perdure.view.model import EdgeView, GraphView, NodeView

if TYPE_CHECKING:
    from perdure.runs import Step

OPEN_UP_TO = 12
"""A graph that a step gave is drawn inside of it if it has no more steps."""
ALIKE_FROM = 9
"""So many steps of one task in one layer are one node."""
DRAWN_UP_TO = 1500
"""More nodes than that are counted, not drawn."""
ARROWS_UP_TO = 4000
"""Of more arrows only those are drawn that put each node into its layer."""
_DEPTH = 3


def view_graph(steps: Sequence[Step]) -> GraphView:
    """Return the picture of a run.

    Args:
        steps: all of its steps, in plan order.
    """
    members: dict[str | None, list[Step]] = {}
    for step in steps:
        members.setdefault(step.root, []).append(step)
    return _view(members.get(None, []), members, depth=0)


def _view(steps: Sequence[Step], members: dict[str | None, list[Step]], *, depth: int) -> GraphView:
    ids = {step.id for step in steps}
    edges = [edge for step in steps for edge in _edges(step.plan) if edge.source in ids]
    layer = ranks([step.id for step in steps], [(edge.source, edge.target) for edge in edges])
    node_of = _alike(steps, layer)
    if len(set(node_of.values())) > DRAWN_UP_TO:
        return GraphView(left_out=len(set(node_of.values())))
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(node_of[step.id], []).append(step)
    nodes = tuple(
        _node(group[0], members, depth) if len(group) == 1 else _several(node, group)
        for node, group in groups.items()
    )
    arrows = _between(edges, node_of)
    drawn = arrows if len(arrows) <= ARROWS_UP_TO else _thinned(arrows, layer)
    return GraphView(nodes=nodes, edges=drawn, arrows_left_out=len(arrows) - len(drawn))


def _edges(step: StepPlan) -> Iterable[EdgeView]:
    """Yield what leads to a step: of a choice, what decides, and its branches by their names."""
    labels: dict[str, str] = {}
    if step.branches:
        for label, arg in zip(step.branches, step.args[1:]):
            if isinstance(arg, FromStep):
                labels[arg.step] = f"{labels[arg.step]}, {label}" if arg.step in labels else label
    taken = upstream(step)
    for source in taken:
        kind = "branch" if source in labels else "value"
        yield EdgeView(source=source, target=step.id, kind=kind, label=labels.get(source, ""))
    for source in step.after:
        if source not in taken:
            yield EdgeView(source=source, target=step.id, kind="order")


def _alike(steps: Sequence[Step], layer: Mapping[str, int]) -> dict[str, str]:
    """Return the node of each step: many of one task in one layer are one.

    Between steps of one layer there is no arrow, so that no circle comes of it.
    """
    families: dict[tuple[str, int], list[str]] = {}
    for step in steps:
        families.setdefault((family_of(step.plan), layer[step.id]), []).append(step.id)
    return {
        each: family[0] if len(family) >= ALIKE_FROM else each
        for family in families.values()
        for each in family
    }


def _between(edges: Iterable[EdgeView], node_of: dict[str, str]) -> tuple[EdgeView, ...]:
    """Return the arrows between nodes, one for all that lead from one to another."""
    found: dict[tuple[str, str], EdgeView] = {}
    for edge in edges:
        ends = node_of[edge.source], node_of[edge.target]
        known = found.get(ends)
        if known is None or (known.kind == "order" and edge.kind != "order"):
            found[ends] = msgspec.structs.replace(edge, source=ends[0], target=ends[1])
    return tuple(found.values())


def _thinned(edges: Iterable[EdgeView], layer: Mapping[str, int]) -> tuple[EdgeView, ...]:
    """Return one arrow to each node, from the layer above: all nodes stay in their layers."""
    found: dict[str, EdgeView] = {}
    for edge in edges:
        if layer[edge.source] + 1 == layer[edge.target]:
            found.setdefault(edge.target, edge)
    return tuple(found.values())


# --- nodes --------------------------------------------------------------------------------------
def _node(step: Step, members: dict[str | None, list[Step]], depth: int) -> NodeView:
    below = members.get(step.id, [])
    kind = _kind(step, has_graph=bool(below))
    # The step that makes a list of what its items gave is no item.
    counted = [each for each in below if each.plan.item is not None] if kind == "map" else below
    statuses = Counter(standing_of(each) for each in counted or [step])
    count = len(counted)
    if kind == "map" and not below and (count := _length(step)):
        statuses = Counter({standing_of(step): count})  # taken over whole, without its items
    is_open = kind not in _STACKS and 0 < len(below) <= OPEN_UP_TO and depth < _DEPTH
    return NodeView(
        id=step.id,
        title=_title(step),
        kind=kind,
        count=count,
        statuses=dict(statuses),
        status=_whole(standing_of(step), statuses),
        duration_s=_seconds([step]),
        inside=_view(below, members, depth=depth + 1) if is_open else None,
    )


def _length(step: Step) -> int:
    """Return how many items the list has that a step gave; 0 if it gave none."""
    length = (step.preview or {}).get("length", 0)
    return length if isinstance(length, int) else 0


def _title(step: Step) -> str:
    """Return what a step is called beside its siblings: their ids begin alike."""
    root = step.root
    if root is None or not step.id.startswith(root):
        return step.id
    short = step.id[len(root) :]
    return f"{step.plan.name} {short}" if short.startswith("~") else short.lstrip("/")


def _several(node: str, steps: list[Step]) -> NodeView:
    statuses = Counter(standing_of(step) for step in steps)
    return NodeView(
        id=node,
        title=family_of(steps[0].plan),
        kind="alike",
        count=len(steps),
        statuses=dict(statuses),
        status=_whole(_commonest(statuses), statuses),
        duration_s=_seconds(steps),
    )


_KINDS = {
    ("perdure.mapping", "expand"): "map",
    ("perdure.branching", "_loop"): "loop",
    ("perdure.branching", "_selected"): "choice",
}


_STACKS = ("map", "loop")
"""Never drawn open: how much is in them is known late, or grows round by round."""


def _kind(step: Step, *, has_graph: bool) -> str:
    function = step.graph.functions[step.plan.function]
    if function.module == "perdure.waits":
        return "wait"
    return _KINDS.get((function.module, function.qualname), "graph" if has_graph else "task")


_FIRST = ("FAILED", "RUNNING", "READY", "WAITING")
"""Where any of several steps stands so, all of them do."""


def _whole(own: str, statuses: Counter[str]) -> str:
    if own in ("SUCCEEDED", "reused", "caught", "SKIPPED", "CANCELLED", "FAILED"):
        return own
    return next((status for status in _FIRST if statuses[status]), own)


def _commonest(statuses: Counter[str]) -> str:
    if statuses["FAILED"]:
        return "FAILED"
    if statuses["PENDING"] and len(statuses) > 1:
        return "WAITING"
    return statuses.most_common(1)[0][0]


def _seconds(steps: Sequence[Step]) -> float | None:
    """Return the time from the start of the first to the end of the last that ended."""
    rows = [step.row for step in steps if step.row is not None]
    starts = [row.started_at for row in rows if row.started_at is not None]
    ends = [row.finished_at for row in rows if row.finished_at is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None
