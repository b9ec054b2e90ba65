"""What a function returned in place of a value: a node, or the children of a map, as a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.calls import FirstTry, Growth, StepCall
from perdure.chunks import FailedItem, PartlyFailed, item_id
from perdure.compile import compile_growth, plan_record
from perdure.errors import DefinitionError
from perdure.getting import collect, join
from perdure.graph.arguments import freeze, handles_in, holds_node
from perdure.graph.dag import Dag, make_dag
from perdure.graph.growth import Place, answer_id, child_id, place_below
from perdure.graph.node import Call, Handle, Node, path_of, source_of
from perdure.mapping import Children
from perdure_storage.values import Values

Given = Node | Children | PartlyFailed
"""What stands for calls that are to be made."""


def is_graph(returned: Any) -> bool:
    """Say whether what a function returned stands for calls that are to be made."""
    return isinstance(returned, Given)


def refuse_handle(returned: Any) -> None:
    """Refuse the handle of an actor as a value, alone or among others: who has it is in the order.

    Raises:
        DefinitionError: there is one.
    """
    template = returned if isinstance(returned, Handle) else freeze(returned, "the result", [])
    if any(True for _ in handles_in([template])):
        raise DefinitionError(
            "an actor is no result: return what one of its methods gives, `return "
            "stats.mean.bind()`, and give the handle itself to each task that calls the actor"
        )


def refuse_nodes_inside(returned: Any) -> None:
    """Refuse a value with nodes in it: a step is one value, or one node that stands for it.

    Raises:
        DefinitionError: there is one, in a list, a dict or whatever else.
    """
    if holds_node(returned):
        raise DefinitionError(
            f"the function returned a {type(returned).__name__} with nodes inside, but a task "
            "returns a value or one node. Return a node of a task that takes them, "
            "`gather.bind([one.bind(1), one.bind(2)])` with `@task def gather(values): return "
            "values`, or a map, `one.map([1, 2])`"
        )


def graph_of(returned: Given, step_id: str, names: str, answer: str) -> Dag:
    """Return the graph that a step gave, under the ids of its run; its last step answers for it.

    Args:
        returned: what the step's function returned.
        step_id: the step.
        names: what the names of the graph's steps begin with.
        answer: id of the step that answers.

    Raises:
        DefinitionError: a node of another graph, or an input, is in it.
    """
    last = _answer(returned)
    dag = make_dag(last)
    if dag.inputs:
        raise DefinitionError(
            f"the function returned a node that needs the input {dag.inputs[0]!r}: in a running "
            "step there are values, so bind the value"
        )
    fixed = {_call_of(last): Place(answer)}
    if isinstance(returned, Children):
        places = zip(returned.nodes, returned.labels, returned.starts, returned.widths)
        for node, label, start, width in places:
            fixed[_call_of(node)] = Place(child_id(step_id, label), start, width)
    elif isinstance(returned, PartlyFailed):
        for item in returned.failed:
            fixed[_call_of(item.node)] = Place(item_id(step_id, item.index), item.index)
    return place_below(dag, step_id, names, _call_of(last), fixed)


Record = Callable[[Exception, Call], FirstTry]
"""Makes of what an item raised the try that it was."""


def grow(returned: Given, call: StepCall, values: Values, record: Record) -> Growth:
    """Return the graph that stands in place of the step's value, as data.

    Raises:
        DefinitionError: a node of another graph, or an input, is in it.
        NotSerializable: a constant in it has no encoding.
    """
    at = call.id.step_id
    dag = graph_of(returned, at, call.names, call.answer or answer_id(at))
    plan = compile_growth(dag, values, call.turns)
    kind = "map" if isinstance(returned, Children) else "graph"
    return Growth(
        kind=kind,
        count=len(plan.steps),
        plan=plan_record(plan, {}),
        failed=_failed(dag, returned, record),
    )


def _failed(dag: Dag, returned: Any, record: Record) -> dict[str, FirstTry]:
    """Return the tries that items of a chunk have had, by the steps that they become."""
    if not isinstance(returned, PartlyFailed):
        return {}
    return {dag.ids[_call_of(i.node)]: record(i.error, _call_of(i.node)) for i in returned.failed}


def _answer(returned: Given) -> Any:
    """Return a node that stands for a whole call, after which nothing of the graph is left."""
    if isinstance(returned, Children):
        # What stops a map early is part of what its value is made from.
        until = _call_of(returned.nodes[0]).spec.stop_when if returned.nodes else None
        return (join if any(returned.widths) else collect).bind(list(returned.nodes), until)
    if isinstance(returned, PartlyFailed):
        return collect.bind([e.node if isinstance(e, FailedItem) else e for e in returned.results])
    node = returned
    is_call = isinstance(source_of(node), Call) and not path_of(node)
    return node if is_call else collect.bind(node)


def _call_of(node: Any) -> Call:
    source = source_of(node)
    assert isinstance(source, Call)
    return source
