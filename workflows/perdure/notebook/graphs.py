"""The picture of a graph that has not run: the same nodes and arrows as those of a run."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.graph.arguments import leaves
from perdure.graph.dag import Dag, Step
from perdure.graph.node import Call, source_of
from perdure.view.model import EdgeView, GraphView, NodeView

_BEGUN_BY_NOBODY = "PENDING"


def view_dag(dag: Dag) -> GraphView:
    """Return the picture of a graph."""
    edges: dict[tuple[str, str], EdgeView] = {}
    for step in dag.steps:
        for edge in _edges(step, dag):
            edges.setdefault((edge.source, edge.target), edge)
    return GraphView(nodes=tuple(map(_node, dag.steps)), edges=tuple(edges.values()))


def _node(step: Step) -> NodeView:
    spec = step.call.spec
    kind = "map" if spec.maps else "choice" if spec.branches else "task"
    return NodeView(id=step.id, title=step.id, kind=kind, status=_BEGUN_BY_NOBODY)


def _edges(step: Step, dag: Dag) -> Iterator[EdgeView]:
    labels = ("", *step.call.spec.branches)  # of a choice what decides comes first
    for number, node in enumerate(step.call.uses):
        label = labels[number] if number < len(labels) else ""
        for source in map(source_of, leaves(node)):
            if isinstance(source, Call):
                kind = "branch" if label else "value"
                yield EdgeView(source=dag.ids[source], target=step.id, kind=kind, label=label)
    for before in step.after:
        yield EdgeView(source=before, target=step.id, kind="order")
