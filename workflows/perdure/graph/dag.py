"""A graph in order: which steps, in which order, under which ids. Computed from structure alone.

**Order.** A node's arguments exist before it does, so the order of binding is a topological order,
and it is the one that plans have. **Ids.** A step is called by its name, within the scope of the
sub-workflow it was bound in (``name/step``). Steps and scopes of one parent that share a name are
numbered in the order of binding: ``load``, ``load#2``, ``load#3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from perdure import effects
from perdure.errors import DefinitionError
from perdure.graph.arguments import freeze, leaves
from perdure.graph.node import (
    Alias,
    Call,
    Inputs,
    Node,
    Scope,
    input_name,
    path_of,
    source_of,
)
from perdure.graph.render import as_mermaid, as_text
from perdure.graph.trace import check_origin
from perdure.plan import Parameter
from perdure.showing import Bundle, bundle_of

MAX_ID_BYTES = 200


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One call with its place in the graph.

    Attributes:
        id: unique in the graph, the same in every process.
        name: its name without a duplicate number.
        scope: names of the sub-workflows around it, ``"prep/clean"``; "" at the top.
        after: ids of steps that must end before it.
        item: of a child of a map, which item it is for, or its first one.
        width: of a child of a map that takes several items, how many.
    """

    id: str
    name: str
    scope: str
    call: Call
    after: tuple[str, ...] = ()
    item: int | None = None
    width: int = 0


def place_of(step: Step, index: int) -> str:
    """Return how messages call an argument of a step, as the user wrote it: ``load.bind(#0)``."""
    if step.call.spec.maps and index >= _OF_MAP:
        return f"{step.id}.map({'*iterables' if index == _OF_MAP else '**constants'})"
    return f"{step.id}.bind(#{index})"


_OF_MAP = 2
"""Where the iterables are among the arguments of the step of a map; after them its constants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dag:
    """A graph of steps, ready to be compiled, rendered or executed.

    Attributes:
        name: the workflow's, or the last step's.
        steps: in topological order, ties in the order of binding.
        output: the template of the result.
        ids: step id by call.
        inputs: names of the inputs that steps or the output use, in order of first use.
        parameters: the workflow's parameters; empty for a free graph.
        statics: values of the static ones.
    """

    name: str
    steps: tuple[Step, ...]
    output: Any
    ids: dict[Call, str]
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    statics: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the graph as a plain text tree."""
        return as_text(self)

    def mermaid(self) -> str:
        """Return the graph as mermaid text."""
        return as_mermaid(self)

    def __str__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)


def make_dag(
    output: Any,
    *,
    name: str = "",
    bound: Iterable[Call] = (),
    token: object | None = None,
    parameters: tuple[Parameter, ...] = (),
    statics: dict[str, Any] | None = None,
) -> Dag:
    """Return the graph of everything that ``output`` needs, and of every call in ``bound``.

    Args:
        output: a node, containers of nodes, or a constant.
        name: what to call it; default: the step that gives the result.
        bound: calls that belong to it whether they are needed or not.
        token: the trace in which they were bound; None for a free graph.
        parameters: the workflow's parameters.
        statics: values of the static ones.

    Raises:
        DefinitionError: a node belongs to another graph, the graph has a cycle, or a free graph
            has more than one ``Input()``.
    """
    found: list[Node] = []
    template = freeze(output, "the result", found)
    result = _links(found, ())
    links = _reach([*bound, *result.needs])
    effects.take(links)
    _check_members([result, *links.values()], token, name)
    ordered = _in_order(links)
    steps = _named(ordered, links)
    return Dag(
        name=name or (result.needs[0].spec.name if result.needs else "graph"),
        steps=steps,
        output=template,
        ids={step.call: step.id for step in steps},
        inputs=_input_names([*(links[call] for call in ordered), result]),
        parameters=parameters,
        statics=statics or {},
    )


class _Links(NamedTuple):
    """What one call, or the result, refers to, with aliases followed.

    Attributes:
        leaves: nodes of calls and of inputs, those it is ``after`` last.
        needs: calls that must end before it; with the result of a sub-workflow, all its calls.
        after: those of them that it is ``after``.
    """

    leaves: tuple[Node, ...]
    needs: tuple[Call, ...]
    after: tuple[Call, ...] = ()


_NONE = _Links((), ())


def _links(uses: Sequence[Node], after: Sequence[Node]) -> _Links:
    if not uses and not after:
        return _NONE
    found: list[Node] = []
    data = _calls_of(uses, found)
    order = _calls_of(after, found)
    return _Links(tuple(found), (*data, *order), tuple(order))


def _calls_of(nodes: Iterable[Node], found: list[Node]) -> list[Call]:
    """Return the calls behind nodes, and all calls of a sub-workflow whose result is a node."""
    calls: list[Call] = []
    for node in nodes:
        source = source_of(node)
        if isinstance(source, Alias):
            calls.extend(source.members)
            inside: Iterable[Node] = leaves(node)
        else:
            inside = (node,)
        for leaf in inside:
            found.append(leaf)
            behind = source_of(leaf)
            if isinstance(behind, Call):
                calls.append(behind)
    return calls


def _reach(roots: Iterable[Call]) -> dict[Call, _Links]:
    """Return every call that ``roots`` need, with what each refers to."""
    reached: dict[Call, _Links] = {}
    stack = list(roots)
    while stack:
        call = stack.pop()
        if call not in reached:
            reached[call] = links = _links(call.uses, call.after)
            stack.extend(links.needs)
    return reached


def _check_members(every: Iterable[_Links], token: object | None, name: str) -> None:
    placeholders: set[Inputs] = set()
    for links in every:
        for leaf in links.leaves:
            check_origin(leaf, token, name)
            source = source_of(leaf)
            if isinstance(source, Inputs):
                placeholders.add(source)
    if len(placeholders) > 1:
        raise DefinitionError(
            "the graph has more than one Input(): make one, and use its projections everywhere"
        )


def _in_order(links: dict[Call, _Links]) -> list[Call]:
    ordered = sorted(links, key=_order_of)
    if all(need.order < call.order for call, each in links.items() for need in each.needs):
        return ordered
    return _sorted_by_needs(ordered, links)


_order_of = attrgetter("order")


def _sorted_by_needs(ordered: list[Call], links: dict[Call, _Links]) -> list[Call]:
    """Sort a graph that was tampered with after binding, or name its cycle."""
    done: dict[Call, bool] = {}  # False while its needs are being visited
    result: list[Call] = []
    for root in ordered:
        stack = [root]
        while stack:
            call = stack[-1]
            if done.get(call) is None:
                done[call] = False
                waiting = [need for need in links[call].needs if done.get(need) is not True]
                looped = next((need for need in waiting if done.get(need) is False), None)
                if looped is not None:
                    raise DefinitionError(_cycle_message(stack, looped, done))
                stack.extend(waiting)
            else:
                stack.pop()
                if done[call] is False:
                    done[call] = True
                    result.append(call)
    return result


def _cycle_message(stack: list[Call], looped: Call, done: dict[Call, bool]) -> str:
    path = [call for call in stack[stack.index(looped) :] if done.get(call) is False]
    names = " -> ".join(call.spec.name for call in (*path, looped))
    return f"the graph has a cycle: {names}. None of these could be the first"


def _input_names(every: Iterable[_Links]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for links in every:
        for leaf in links.leaves:
            if isinstance(source_of(leaf), Inputs):
                names[input_name(path_of(leaf))] = None
    return tuple(names)


def _named(ordered: list[Call], links: dict[Call, _Links]) -> tuple[Step, ...]:
    counts: dict[tuple[str, str], int] = {}
    scopes: dict[Scope | None, tuple[str, str]] = {None: ("", "")}  # id and path of names
    ids: dict[Call, str] = {}
    bound: list[Scope | Call] = [*_scopes_of(ordered), *ordered]
    for each in sorted(bound, key=_order_of):
        if isinstance(each, Scope):
            parent, path = scopes[each.parent]
            scopes[each] = (_numbered(counts, parent, each.name), _join(path, each.name))
        else:
            ids[each] = shorten(_numbered(counts, scopes[each.scope][0], each.spec.name))
    return tuple(
        Step(
            id=ids[call],
            name=call.spec.name,
            scope=scopes[call.scope][1],
            call=call,
            after=tuple(dict.fromkeys(ids[need] for need in links[call].after)),
        )
        for call in ordered
    )


def _numbered(counts: dict[tuple[str, str], int], parent: str, name: str) -> str:
    counts[parent, name] = count = counts.get((parent, name), 0) + 1
    return _join(parent, name if count == 1 else f"{name}#{count}")


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


def _scopes_of(ordered: list[Call]) -> list[Scope]:
    found: dict[Scope, None] = {}
    for call in ordered:
        scope = call.scope
        while scope is not None and scope not in found:
            found[scope] = None
            scope = scope.parent
    return list(found)


def shorten(step_id: str) -> str:
    """Return the id itself, or, past 200 bytes, its beginning and a digest of the whole."""
    encoded = step_id.encode()
    if len(encoded) <= MAX_ID_BYTES:
        return step_id
    digest = blake2b(encoded, digest_size=16).hexdigest()
    head = encoded[: MAX_ID_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{head}-{digest}"
