"""What is inside arguments: nodes found in containers at any depth, containers rebuilt.

``freeze`` turns an argument into a *template*: a ``Node``, a ``Mention`` of one, a ``SecretRef``, a
``StepRef``, one of the three container templates below, or, if there is nothing of these inside,
the argument itself, a constant.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import PosixPath, PurePosixPath
from typing import Any
from uuid import UUID

from perdure.errors import DefinitionError
from perdure.graph.node import (
    Alias,
    Handle,
    Inputs,
    Mention,
    Node,
    describe,
    path_of,
    place_of_actor,
    source_of,
)
from perdure.plan import Attr, Item, path_text
from perdure.reference import StepRef
from perdure.secret import SecretRef, given

MAX_NESTING = 100
"""Containers around a node; plans are JSON, whose readers are recursive."""

_HIDDEN_BUDGET = 2_000
"""Objects looked into for nodes that hide in attributes; past it, encoding finds them."""

_LEAVES: frozenset[type] = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, type, range,
        slice, datetime, date, timedelta, Decimal, UUID, PosixPath, PurePosixPath, types.ModuleType,
        types.BuiltinFunctionType, types.EllipsisType, types.CodeType,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A list, tuple, set or frozenset in which there is a node."""

    kind: str
    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """A dict in which a value is or holds a node."""

    keys: tuple[Any, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """A dataclass instance or a named tuple with nodes in its fields."""

    cls: type
    fields: dict[str, Any]


_NAMES: frozenset[type] = frozenset({SecretRef, StepRef})
"""Leaves that stand for a value which somebody else has."""

_MARKS: frozenset[type] = _NAMES | {Node, Mention}
"""All leaves that make a template of what they are in."""

_SEQUENCES: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}


def is_named_tuple(value: object) -> bool:
    """Say whether ``value`` is an instance of a named tuple's class."""
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def is_record(value: object) -> bool:
    """Say whether ``value`` is a dataclass instance or a named tuple."""
    return is_named_tuple(value) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def freeze(value: Any, where: str, found: list[Node]) -> Any:
    """Return the template of an argument and append the nodes inside to ``found``, in order.

    Where a step binds the value of a secret that it was given, the secret's name is bound.

    Args:
        value: the argument.
        where: its path for messages, ``load.bind(path)``.
        found: takes the nodes, depth first, left to right.

    Raises:
        DefinitionError: a node is where it cannot be found by a worker (a dict's key, an
            attribute of some object, a closure), or nested too deep.
    """
    kind = type(value)
    if kind in _LEAVES:
        return _named(value)
    if kind is Node:
        return _accept(value, where, found)
    if kind in _NAMES:
        return value
    if issubclass(kind, Handle):
        return _accept_actor(value, where, found)
    held, hidden = _scan(value, given.get())
    if hidden:
        raise DefinitionError(_hidden_message(value, where))
    return _rebuild(value, where, found, 0) if held else value


def holds_node(value: Any) -> bool:
    """Say whether a node is inside a value, as far as that can be seen."""
    held, hidden = _scan(value)
    return hidden or held


def _named(leaf: Any) -> Any:
    return given.get().get(leaf, leaf) if type(leaf) is str else leaf


def _accept(node: Node, where: str, found: list[Node]) -> Node:
    if isinstance(source_of(node), Inputs) and not path_of(node):
        raise DefinitionError(
            f"{where}: name the input that is meant, `inp.path`, `inp['path']` or `inp[0]`"
        )
    found.append(node)
    return node


def _accept_actor(handle: Handle, where: str, found: list[Node]) -> Handle:
    at = place_of_actor(handle)
    if type(at) is Node:
        _accept(at, where, found)
    return handle


def _is_mark(kind: type) -> bool:
    return kind in _MARKS or issubclass(kind, Handle)


def _scan(value: Any, secrets: Collection[str] = ()) -> tuple[bool, bool]:
    """Return whether a node, or one of these texts, is inside visible containers, and whether a
    node hides elsewhere.
    """
    visible, hidden = [value], list[Any]()
    seen: set[int] = set()
    held = False
    while visible:
        item = visible.pop()
        kind = type(item)
        if kind in _LEAVES:
            held = held or (kind is str and item in secrets)
            continue
        if _is_mark(kind):
            held = True
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        children = _visible_children(item)
        if children is None:
            hidden.append(item)
        elif secrets or not set(map(type, children)) <= _LEAVES:
            visible.extend(children)
        if kind is dict and not set(map(type, item)) <= _LEAVES:
            hidden.extend(item)  # keys are constants: a node has no place there
    return held, _hides_node(hidden, seen)


def _visible_children(item: Any) -> Iterable[Any] | None:
    kind = type(item)
    if kind is dict:
        return list(item.values())
    if kind in _SEQUENCES or is_named_tuple(item):
        return list(item)
    if dataclasses.is_dataclass(item):
        return [value for _, value in record_fields(item)]
    return None


def _hides_node(stack: list[Any], seen: set[int]) -> bool:
    budget = _HIDDEN_BUDGET
    while stack and budget:
        item = stack.pop()
        kind = type(item)
        if kind in _LEAVES:
            continue
        if _is_mark(kind):
            return True
        budget -= 1
        for _, child in _hidden_children(item):
            if id(child) not in seen and type(child) not in _LEAVES:
                seen.add(id(child))
                stack.append(child)
    return False


def _hidden_children(item: Any) -> Iterator[tuple[str, Any]]:
    """Yield what hangs on an object that is no plain container, with the text of the access."""
    if isinstance(item, types.FunctionType):
        yield from _captured(item)
    elif isinstance(item, types.MethodType):
        yield ".__self__", item.__self__
    elif isinstance(item, functools.partial):
        yield from ((f".args[{i}]", value) for i, value in enumerate(item.args))
        yield from ((f".keywords[{k!r}]", value) for k, value in item.keywords.items())
    elif isinstance(item, dict):
        yield from ((f"[{key!r}]", value) for key, value in list(item.items()))
        yield from ((f" (key {type(key).__name__})", key) for key in list(item))
    elif isinstance(item, list | tuple | set | frozenset):
        yield from ((f"[{index}]", value) for index, value in enumerate(list(item)))
    yield from _attributes(item)


def _captured(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            yield f" (captures {name})", cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    for value in function.__defaults__ or ():
        yield " (a default)", value


def _attributes(item: Any) -> Iterator[tuple[str, Any]]:
    kind = type(item)
    if isinstance(item, type | types.ModuleType) or kind.__module__.startswith("perdure."):
        return
    attributes = getattr(item, "__dict__", None)
    if type(attributes) is dict:
        yield from ((f".{name}", value) for name, value in list(attributes.items()))
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            descriptor = base.__dict__.get(name)
            if isinstance(descriptor, types.MemberDescriptorType):
                try:
                    yield f".{name}", descriptor.__get__(item, kind)
                except AttributeError:  # a slot that is not filled
                    continue


def find_path(value: Any, wanted: Callable[[Any], bool]) -> str | None:
    """Return the path to the first object inside ``value`` that is ``wanted``, or None.

    Looks into containers, attributes, closures and partials; bounded, iterative.
    """
    stack: list[tuple[str, Any]] = [("", value)]
    seen: set[int] = set()
    while stack and len(seen) < _HIDDEN_BUDGET:
        path, item = stack.pop()
        if wanted(item):
            return path
        if type(item) in _LEAVES or type(item) is Node or id(item) in seen:
            continue
        seen.add(id(item))
        children = [(path + text, child) for text, child in _hidden_children(item)]
        stack.extend(reversed(children))
    return None


def _hidden_message(value: Any, where: str) -> str:
    culprit: list[Any] = []

    def misplaced(item: Any) -> bool:
        if _is_mark(type(item)):
            culprit.append(item)
            return len(culprit) > 0
        return False

    # Visible nodes come first in a mixed value; the first hidden one is looked for from each
    # object that is no plain container.
    for path, item in _opaque_inside(value):
        inner = find_path(item, misplaced)
        if inner is not None:
            what = _described(culprit[-1])
            place = "a key" if item is culprit[-1] else f"inside a {type(item).__name__}"
            return (
                f"{where}{path}{inner}: {what} is {place}, where no worker will find it: pass it "
                "as an argument of its own, or as a value inside lists, tuples, dicts, sets and "
                "dataclasses"
            )
    return f"{where}: a node is inside an object where no worker will find it"


def _described(mark: Any) -> str:
    if type(mark) is Node:
        return describe(mark)
    return "a secret" if type(mark) is SecretRef else f"a reference to step {mark}"


def _opaque_inside(value: Any) -> Iterator[tuple[str, Any]]:
    stack: list[tuple[str, Any]] = [("", value)]
    seen: set[int] = set()
    while stack:
        path, item = stack.pop()
        if type(item) in _LEAVES or type(item) is Node or id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) is dict:
            yield from ((f"{path} (a key)", key) for key in item)
            stack.extend((f"{path}[{key!r}]", child) for key, child in item.items())
        elif type(item) in _SEQUENCES or is_named_tuple(item):
            stack.extend((f"{path}[{index}]", child) for index, child in enumerate(item))
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack.extend((f"{path}.{name}", child) for name, child in record_fields(item))
        else:
            yield path, item


def record_fields(value: Any) -> list[tuple[str, Any]]:
    """Return the fields of a dataclass instance or named tuple that are set, in order."""
    if is_named_tuple(value):
        return list(zip(value._fields, value))
    return [
        (each.name, getattr(value, each.name))
        for each in dataclasses.fields(value)
        if hasattr(value, each.name)
    ]


def _rebuild(value: Any, where: str, found: list[Node], depth: int) -> Any:
    kind = type(value)
    if kind in _LEAVES:
        return _named(value)
    if kind in _NAMES:
        return value
    if kind is Node:
        return _accept(value, where, found)
    if kind is Mention:
        if type(value.node) is StepRef:
            return value
        return Mention(_accept(value.node, where, found), value.items)
    if issubclass(kind, Handle):
        return _accept_actor(value, where, found)
    children = _visible_children(value)
    if children is None or not _scan(value, given.get())[0]:
        return value
    if depth >= MAX_NESTING:
        raise DefinitionError(
            f"{where}: a node is inside more than {MAX_NESTING} containers, or a container "
            "contains itself"
        )

    def inner(child: Any, text: str) -> Any:
        return _rebuild(child, where + text, found, depth + 1)

    if kind is dict:
        parts = tuple(inner(child, f"[{key!r}]") for key, child in value.items())
        return Entries(tuple(value), parts)
    if kind in _SEQUENCES:
        ordered = _by_order(value) if kind in (set, frozenset) else value
        parts = tuple(inner(child, f"[{index}]") for index, child in enumerate(ordered))
        return Items(_SEQUENCES[kind], parts)
    return Fields(kind, {name: inner(child, f".{name}") for name, child in record_fields(value)})


def _by_order(values: Iterable[Any]) -> list[Any]:
    """Order a set that holds nodes: sets have no order that is the same in every process."""

    def key(item: Any) -> tuple[int, int, str]:
        if type(item) is Node:
            return 1, getattr(source_of(item), "order", 0), path_text(path_of(item))
        return 0, 0, f"{type(item).__qualname__}:{item!r}"

    return sorted(values, key=key)


def nodes_in(template: Any) -> Iterator[Node]:
    """Yield the nodes of a template, depth first, left to right."""
    stack = [template]
    while stack:
        item = stack.pop()
        if type(item) is Node:
            yield item
        elif type(item) is Mention:
            if type(item.node) is Node:
                yield item.node
        elif isinstance(item, Handle):
            if type(at := place_of_actor(item)) is Node:
                yield at
        elif type(item) is Items:
            stack.extend(reversed(item.items))
        elif type(item) is Entries:
            stack.extend(reversed(item.values))
        elif type(item) is Fields:
            stack.extend(reversed(item.fields.values()))


def handles_in(templates: Iterable[Any]) -> Iterator[Handle]:
    """Yield the handles of actors in templates."""
    stack = list(templates)
    while stack:
        item = stack.pop()
        if isinstance(item, Handle):
            yield item
        elif type(item) is Items:
            stack.extend(item.items)
        elif type(item) is Entries:
            stack.extend(item.values)
        elif type(item) is Fields:
            stack.extend(item.fields.values())


def resolve(node: Node) -> Any:
    """Follow aliases until the node is one of a call or an input, a container or a constant.

    Raises:
        DefinitionError: a projection does not exist in what the alias stands for.
    """
    current: Any = node
    while type(current) is Node:
        source = source_of(current)
        if not isinstance(source, Alias):
            return current
        value, rest = source.value, list(path_of(current))
        while rest and type(value) is not Node:
            value = _step_into(value, rest.pop(0), current)
        current = Node(source_of(value), (*path_of(value), *rest)) if rest else value
    return current


def leaves(template: Any) -> Iterator[Node]:
    """Yield the nodes of a template with aliases followed: nodes of calls and of inputs."""
    stack = [template]
    while stack:
        nodes = list(nodes_in(stack.pop()))
        for node in nodes:
            target = resolve(node)
            if target is node:
                yield node
            else:
                stack.append(target)


def _step_into(template: Any, part: Item | Attr, node: Node) -> Any:
    try:
        if type(template) is Items and isinstance(part, Item):
            return template.items[part.key]  # type: ignore[index]
        if type(template) is Entries and isinstance(part, Item):
            return template.values[template.keys.index(part.key)]
        if type(template) is Fields:
            return _field(template, part)
        if isinstance(template, Items | Entries):
            raise AttributeError(part.name if isinstance(part, Attr) else part.key)
        return getattr(template, part.name) if isinstance(part, Attr) else template[part.key]
    except Exception as error:  # the access of the user's own object: anything may be raised
        raise DefinitionError(
            f"{describe(node)}: there is no {path_text((part,))} in it ({error!r})"
        ) from error


def _field(template: Fields, part: Item | Attr) -> Any:
    if isinstance(part, Attr):
        return template.fields[part.name]
    return list(template.fields.values())[part.key]  # type: ignore[index]
