"""What a function returned in place of a value: a node, or the children of a map, as a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.calls import Growth, StepCall
from perdure.compile import compile_growth, plan_record
from perdure.errors import DefinitionError
from perdure.graph.dag import Dag, make_dag
from perdure.graph.growth import answer_id, place_below
from perdure.graph.node import Call, Node, path_of, source_of
from perdure.task import task
from perdure_storage.values import Values


@dataclass(frozen=True, slots=True)
class Children:
    """What the step of a map returns: a node for each item, in order."""

    nodes: Sequence[Node]


@task
def collect(value: Any) -> Any:
    """Return what the steps of a graph gave, as one value."""
    return value


def grow(returned: Node | Children, call: StepCall, values: Values) -> Growth:
    """Return the graph that stands in place of the step's value.

    Raises:
        DefinitionError: a node of another graph, or an input, is in it.
        NotSerializable: a constant in it has no encoding.
    """
    if isinstance(returned, Children):
        kind, answer = "map", collect.bind(list(returned.nodes))
        fixed = {
            _call_of(node): f"{call.id.step_id}[{index}]"
            for index, node in enumerate(returned.nodes)
        }
    else:
        kind, answer, fixed = "graph", _answering(returned), {}
    last = _call_of(answer)
    fixed[last] = answer_id(call.id.step_id)
    dag = place_below(_graph(answer), call.id.step_id, call.names, fixed)
    plan = compile_growth(dag, values)
    return Growth(kind=kind, count=len(plan.steps), plan=plan_record(plan, {}))


def _answering(node: Node) -> Any:
    """Return a node that stands for a whole call, after which nothing of the graph is left."""
    is_call = isinstance(source_of(node), Call) and not path_of(node)
    return node if is_call else collect.bind(node)


def _call_of(node: Any) -> Call:
    source = source_of(node)
    assert isinstance(source, Call)
    return source


def _graph(answer: Any) -> Dag:
    dag = make_dag(answer)
    if dag.inputs:
        raise DefinitionError(
            f"the function returned a node that needs the input {dag.inputs[0]!r}: in a running "
            "step there are values, so bind the value"
        )
    return dag
