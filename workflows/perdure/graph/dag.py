"""A graph in order: which steps, in which order, under which ids. Computed from structure alone.

**Order.** A node's arguments exist before it does, so the order of binding is a topological order,
and it is the one that plans have. **Ids.** A step is called by its name, within the scope of the
sub-workflow it was bound in (``name/step``). Steps and scopes of one parent that share a name are
numbered in the order of binding: ``load``, ``load#2``, ``load#3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from perdure.errors import DefinitionError
from perdure.graph.arguments import freeze, leaves, nodes_in
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

MAX_ID_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call with its place in the graph.

    Attributes:
        id: unique in the graph, the same in every process.
        name: its name without a duplicate number.
        scope: names of the sub-workflows around it, ``"prep/clean"``; "" at the top.
        after: ids of steps that must end before it.
    """

    id: str
    name: str
    scope: str
    call: Call
    after: tuple[str, ...] = ()


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
    calls = _reach([*bound, *_calls_of(found)])
    _check_members(calls, found, token, name)
    ordered = _in_order(calls)
    steps = _named(ordered)
    return Dag(
        name=name or (_last_name(template) or "graph"),
        steps=steps,
        output=template,
        ids={step.call: step.id for step in steps},
        inputs=_input_names(ordered, found),
        parameters=parameters,
        statics=statics or {},
    )


def _last_name(template: Any) -> str:
    for node in nodes_in(template):
        for call in _calls_of([node]):
            return call.spec.name
    return ""


def _calls_of(nodes: Iterable[Node]) -> Iterator[Call]:
    """Yield the calls behind nodes, and all calls of a sub-workflow whose result is a node."""
    for node in nodes:
        source = source_of(node)
        if isinstance(source, Alias):
            yield from source.members
        for leaf in leaves(node):
            behind = source_of(leaf)
            if isinstance(behind, Call):
                yield behind


def dependencies(call: Call) -> Iterator[Call]:
    """Yield the calls that must end before ``call``: those it uses, then those it is ``after``."""
    yield from _calls_of(call.uses)
    yield from _calls_of(call.after)


def _reach(roots: list[Call]) -> dict[Call, tuple[Call, ...]]:
    """Return every call that ``roots`` need, with what each depends on."""
    reached: dict[Call, tuple[Call, ...]] = {}
    stack = roots
    while stack:
        call = stack.pop()
        if call not in reached:
            needs = tuple(dependencies(call))
            reached[call] = needs
            stack.extend(needs)
    return reached


def _check_members(
    calls: Iterable[Call], output: list[Node], token: object | None, name: str
) -> None:
    placeholders: set[Inputs] = set()
    for nodes in (output, *((*call.uses, *call.after) for call in calls)):
        for node in nodes:
            for leaf in leaves(node):
                check_origin(leaf, token, name)
                source = source_of(leaf)
                if isinstance(source, Inputs):
                    placeholders.add(source)
    if len(placeholders) > 1:
        raise DefinitionError(
            "the graph has more than one Input(): make one, and use its projections everywhere"
        )


def _in_order(calls: dict[Call, tuple[Call, ...]]) -> list[Call]:
    ordered = sorted(calls, key=lambda call: call.order)
    place = {call: index for index, call in enumerate(ordered)}
    if all(place[need] < place[call] for call, needs in calls.items() for need in needs):
        return ordered
    return _sorted_by_needs(ordered, calls)


def _sorted_by_needs(ordered: list[Call], calls: dict[Call, tuple[Call, ...]]) -> list[Call]:
    """Sort a graph that was tampered with after binding, or name its cycle."""
    done: dict[Call, bool] = {}  # False while its needs are being visited
    result: list[Call] = []
    for root in ordered:
        stack = [root]
        while stack:
            call = stack[-1]
            if done.get(call) is None:
                done[call] = False
                waiting = [need for need in calls[call] if done.get(need) is not True]
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
    return f"the graph has a cycle: {names}"


def _input_names(ordered: list[Call], output: list[Node]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for nodes in (*(call.uses for call in ordered), output):
        for node in nodes:
            for leaf in leaves(node):
                if isinstance(source_of(leaf), Inputs):
                    names[input_name(path_of(leaf))] = None
    return tuple(names)


def _named(ordered: list[Call]) -> tuple[Step, ...]:
    counts: dict[tuple[str, str], int] = {}
    scopes: dict[Scope | None, tuple[str, str]] = {None: ("", "")}  # id and path of names
    ids: dict[Call, str] = {}
    bound: list[Scope | Call] = [*_scopes_of(ordered), *ordered]
    for each in sorted(bound, key=lambda each: each.order):
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
            after=tuple(dict.fromkeys(ids[need] for need in _calls_of(call.after))),
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
