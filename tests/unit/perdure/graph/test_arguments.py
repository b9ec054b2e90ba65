from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest

from perdure import Secret, execute, task
from perdure.errors import DefinitionError

Pair = namedtuple("Pair", ["left", "right"])


@task
def one() -> int:
    return 1


@task
def echo(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Config:
    rows: Any
    note: str = "n"
    inner: Any = None
    made: list[int] = field(default_factory=list, init=False)


class Holder:
    def __init__(self, inside: Any) -> None:
        self.inside = inside


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, inside: Any) -> None:
        self.inside = inside


SHAPES: dict[str, Any] = {
    "list": (lambda node: [0, node], [0, 1]),
    "tuple": (lambda node: (node, "x"), (1, "x")),
    "named tuple": (lambda node: Pair(node, 2), Pair(1, 2)),
    "dict": (lambda node: {"a": node, 3: [node]}, {"a": 1, 3: [1]}),
    "set": (lambda node: {node, 5}, {1, 5}),
    "frozenset": (lambda node: frozenset({node}), frozenset({1})),
    "dataclass": (lambda node: Config(node), Config(1)),
    "nested": (
        lambda node: [{"k": (Config([node], inner={"d": {node}}),)}],
        [{"k": (Config([1], inner={"d": {1}}),)}],
    ),
}


@pytest.mark.parametrize(("make", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_a_node_inside_a_container_arrives_as_its_value(make: Any, expected: Any) -> None:
    result = execute(echo.bind(make(one.bind())))

    assert result == expected
    assert type(result) is type(expected)


HIDING: dict[str, Any] = {
    ".inside": Holder,
    "[0].inside": lambda node: [Holder(node)],
    ".inside.inside": lambda node: Holder(Holder(node)),
    "captures": lambda node: lambda: node,
    ".args[0]": lambda node: functools.partial(print, node),
    "['a']": lambda node: OrderedDict(a=node),
    "a key": lambda node: {node: 1},
    ".inside ": Slotted,
    ".rows.inside": lambda node: Config(Holder(node)),
}


@pytest.mark.parametrize(("path", "make"), HIDING.items(), ids=HIDING.keys())
def test_a_node_where_no_worker_finds_it_is_refused_with_its_path(path: str, make: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        echo.bind(make(one.bind()))

    assert "echo.bind(#0)" in str(caught.value)
    assert path.strip() in str(caught.value)
    assert "the result of 'one'" in str(caught.value)


def test_a_node_beside_a_hidden_one_does_not_hide_it() -> None:
    node = one.bind()

    with pytest.raises(DefinitionError, match=r"\[1\]\.inside"):
        echo.bind([node, Holder(node)])


def test_a_secret_inside_an_object_is_refused_too() -> None:
    with pytest.raises(DefinitionError, match="a secret"):
        echo.bind(Holder(Secret("TOKEN")))


def test_containers_with_nodes_are_rebuilt_so_that_later_mutation_is_not_seen() -> None:
    arguments = [one.bind()]
    node = echo.bind(arguments)

    arguments.append(one.bind())

    assert execute(node) == [1]


def test_a_container_that_contains_itself_and_a_node_is_refused() -> None:
    loop: list[Any] = [one.bind()]
    loop.append(loop)

    with pytest.raises(DefinitionError, match="contains itself"):
        echo.bind(loop)


def test_a_container_that_contains_itself_without_nodes_is_a_constant() -> None:
    loop: list[Any] = [1]
    loop.append(loop)

    echo.bind(loop)


def test_constants_are_nested_as_deep_as_one_likes() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]

    echo.bind(deep)

    while deep:  # or its end would be one deep recursion
        deep = deep[0]


def test_a_node_below_a_hundred_containers_is_refused() -> None:
    deep: Any = one.bind()
    for _ in range(150):
        deep = [deep]

    with pytest.raises(DefinitionError, match="100 containers"):
        echo.bind(deep)


def test_each_argument_of_one_object_is_a_copy_of_its_own() -> None:
    @task
    def change(first: list[int], second: list[int]) -> list[int]:
        first.append(9)
        return second

    shared = [1]

    assert execute(change.bind(shared, [*shared])) == [1]
    assert shared == [1]
