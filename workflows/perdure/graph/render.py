"""A graph as text: a tree for terminals, mermaid for pages that draw it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from perdure.graph.arguments import Entries, Fields, Items, leaves, nodes_in
from perdure.graph.node import Call, Inputs, Mention, Node, describe, input_name, path_of, source_of
from perdure.plan import Parameter, path_text

_MAX_WIDTH = 100
_MAX_STEPS = 500
"""More steps than a person reads: the rest is counted."""


class DrawnStep(Protocol):
    """What is drawn of a step."""

    @property
    def id(self) -> str: ...
    @property
    def call(self) -> Call: ...
    @property
    def after(self) -> tuple[str, ...]: ...


class Drawn(Protocol):
    """What is drawn of a graph."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> Sequence[DrawnStep]: ...
    @property
    def output(self) -> Any: ...
    @property
    def ids(self) -> dict[Call, str]: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> tuple[Parameter, ...]: ...


def as_text(dag: Drawn) -> str:
    """Return the graph as lines: each step with what it takes, in topological order."""
    lines = [f"{dag.name}({', '.join(_parameter_names(dag))})"]
    shown = dag.steps[:_MAX_STEPS]
    for step in shown:
        lines.append(_clip(f"|- {_call(step, dag)}{_after(step)}"))
    if len(dag.steps) > len(shown):
        lines.append(f"|- ... and {len(dag.steps) - len(shown)} more steps")
    lines.append(_clip(f"`- result: {_template(dag.output, dag)}"))
    return "\n".join(lines)


def _parameter_names(dag: Drawn) -> list[str]:
    if not dag.parameters:
        return list(dag.inputs)
    return [
        each.name if each.default is None else f"{each.name}={each.default}"
        for each in dag.parameters
    ]


def _call(step: DrawnStep, dag: Drawn) -> str:
    call = step.call
    if call.spec.maps:
        columns, constants = (_parts(each) for each in call.args[2:])
        return f"{step.id}.map({_listed(dict(columns).values(), dict(constants), dag)})"
    if call.spec.branches:
        choice, *branches = (_template(each, dag) for each in call.args)
        named = (f"{name}={branch}" for name, branch in zip(call.spec.branches, branches))
        return f"{step.id}({choice}: {', '.join(named)})"
    return f"{step.id}({_listed(call.args, call.kwargs, dag)})"


def _listed(args: Iterable[Any], kwargs: Mapping[str, Any], dag: Drawn) -> str:
    parts = [_template(each, dag) for each in args]
    return ", ".join([*parts, *(f"{name}={_template(arg, dag)}" for name, arg in kwargs.items())])


def _parts(template: Any) -> Iterable[tuple[Any, Any]]:
    """Return what is in a list or dict, by place or key, whether there are nodes in it or not."""
    if type(template) is Items:
        return enumerate(template.items)
    if type(template) is Entries:
        return zip(template.keys, template.values)
    return template.items() if isinstance(template, dict) else enumerate(template)


def _after(step: DrawnStep) -> str:
    return f" after {', '.join(step.after)}" if step.after else ""


def _template(template: Any, dag: Drawn) -> str:
    if type(template) is Mention and type(template.node) is Node:
        return _node(template.node, dag)
    if type(template) is Node:
        return _node(template, dag)
    if type(template) in (Items, Entries, Fields):
        inside = [_node(node, dag) for node in nodes_in(template)]
        return f"[{', '.join(inside[:8])}{', ...' if len(inside) > 8 else ''}]"
    return _short(template)


def _node(node: Node, dag: Drawn) -> str:
    found = list(leaves(node))
    if len(found) != 1:
        return f"[{', '.join(_node(leaf, dag) for leaf in found[:8])}]"
    source, path = source_of(found[0]), path_of(found[0])
    if isinstance(source, Inputs):
        return input_name(path) + path_text(path[1:])
    return dag.ids[source] + path_text(path) if isinstance(source, Call) else describe(node)


def _short(value: Any) -> str:
    if isinstance(value, str | int | float | bool | None):
        text = repr(value)
        return text if len(text) <= 30 else f"{text[:27]}..."
    if isinstance(value, list | tuple) and len(value) <= 8:
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(name := getattr(value, "__name__", None), str):
        return name  # a task, a function, a class
    return f"<{type(value).__qualname__}>"


def _clip(line: str) -> str:
    return line if len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 3]}..."


def as_mermaid(dag: Drawn) -> str:
    """Return the graph as a mermaid flowchart; dotted arrows are order, named ones branches."""
    numbers = {step.id: index for index, step in enumerate(dag.steps)}
    lines = ["flowchart TD"]
    lines += [f'  i{_safe(name)}(["{_quoted(name)}"])' for name in dag.inputs]
    lines += [f'  s{numbers[step.id]}["{_quoted(step.id)}"]' for step in dag.steps]
    for step in dag.steps:
        arrows: dict[str, None] = {}
        names = iter(step.call.spec.branches)
        for number, node in enumerate(step.call.uses):
            # Of a choice the first is what decides, the others are the branches.
            arrow = f"-->|{_quoted(next(names))}|" if number and step.call.spec.branches else "-->"
            for leaf in leaves(node):
                source = source_of(leaf)
                if isinstance(source, Inputs):
                    arrows[f"  i{_safe(input_name(path_of(leaf)))} {arrow} s{numbers[step.id]}"] = (
                        None
                    )
                elif isinstance(source, Call):
                    arrows[f"  s{numbers[dag.ids[source]]} {arrow} s{numbers[step.id]}"] = None
        lines += arrows
        lines += [f"  s{numbers[each]} -.-> s{numbers[step.id]}" for each in step.after]
    return "\n".join(lines)


def _safe(name: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else f"_{ord(char)}_" for char in name)


def _quoted(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace('"', "&quot;")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
