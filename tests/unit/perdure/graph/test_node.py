from __future__ import annotations

import copy
import inspect
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Input, task, workflow
from perdure.errors import DefinitionError, NodeUse
from perdure.graph.node import Node, path_of
from perdure.plan import Attr, Item


@task
def load(path: str) -> Any:
    return path


@task(outputs=2)
def split(rows: Any) -> Any:
    return rows, rows


USES: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "not": lambda node: not node,
    "and": lambda node: node and 1,
    "len": len,
    "iteration": list,
    "unpacking": lambda node: (lambda a, b: a)(*node),
    "in": lambda node: 3 in node,
    "equality": lambda node: node == 3,
    "equality from the left": lambda node: node == 3,
    "inequality": lambda node: node != 3,
    "membership in a list": lambda node: node in [1, 2],
    "less": lambda node: node < 3,
    "greater from the left": lambda node: node < 3,
    "sorting": lambda node: sorted([node, node]),
    "int": int,
    "float": float,
    "index use": lambda node: [1, 2][node],
    "range": range,
    "format": lambda node: f"{node}",
    "add": lambda node: node + 1,
    "add from the left": lambda node: 1 + node,
    "negate": lambda node: -node,
    "round": round,
    "call": lambda node: node(),
    "slice": lambda node: node[1:2],
    "node as index": lambda node: node[node],
    "underscore attribute": lambda node: node._private,
    "dunder attribute": lambda node: node.__wrapped__,
    "attribute assignment": lambda node: setattr(node, "x", 1),
    "item assignment": lambda node: node.__setitem__("x", 1),
    "reversed": reversed,
    "path": os.fspath,
    "str": str,
    "print": print,
    "str.format": lambda node: "{}.csv".format(node),  # noqa: UP032
    "bytes": bytes,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_node_refuses_every_use_as_a_value(use: Callable[[Any], Any]) -> None:
    node = load.bind("a.csv")

    with pytest.raises(NodeUse, match="the result of 'load' does not exist yet"):
        use(node)


def test_a_refusal_names_the_parameter_and_the_remedies() -> None:
    @workflow(name="grow")
    def grow(k: int) -> Any:
        return [load.bind(str(i)) for i in range(k)]

    with pytest.raises(NodeUse) as caught:
        grow.dag()

    assert "parameter 'k' of 'grow'" in str(caught.value)
    assert "Static" in str(caught.value)


def test_a_parameter_refuses_to_be_a_condition() -> None:
    @workflow
    def choose(flag: bool) -> Any:
        return load.bind("a") if flag else load.bind("b")

    with pytest.raises(DefinitionError, match="truth value"):
        choose.dag()


def test_projections_are_nodes_with_a_path() -> None:
    node = load.bind("a")

    projected: Any = node[0]["k"].name

    assert type(projected) is Node
    assert path_of(projected) == (Item(0), Item("k"), Attr("name"))


def test_several_outputs_unpack_and_refuse_an_index_beyond() -> None:
    left, right = split.bind([1])

    assert (path_of(left), path_of(right)) == ((Item(0),), (Item(1),))
    with pytest.raises(NodeUse, match="2 outputs"):
        split.bind([1])[2]


def test_a_copy_of_a_node_is_the_node() -> None:
    node = load.bind("a")

    assert copy.copy(node) is node
    assert copy.deepcopy([node])[0] is node


def test_nodes_are_hashable_by_identity() -> None:
    one, other = load.bind("a"), load.bind("a")

    assert len({one, other, one}) == 2


def test_probing_a_node_for_protocols_finds_none() -> None:
    node = load.bind("a")

    assert not hasattr(node, "_repr_html_")
    assert not hasattr(node, "__array__")
    assert not inspect.iscoroutine(node)
    assert getattr(node, "__wrapped__", None) is None


def test_a_node_describes_itself_without_existing() -> None:
    assert repr(load.bind("a")[0]) == "<Node the result of 'load'[0]>"


def test_input_projections_name_the_input() -> None:
    inp = Input()

    assert "parameter 'path'" in repr(inp.path)
    assert "parameter 'path'.stem" in repr(inp["path"].stem)
    assert "parameter '0'" in repr(inp[0])


def test_a_bare_input_is_refused_with_what_to_write() -> None:
    with pytest.raises(DefinitionError, match=r"inp\.path"):
        load.bind(Input())
