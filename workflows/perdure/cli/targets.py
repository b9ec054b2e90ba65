"""``FILE.py[:w]`` or ``package.module:w``, and the words after it, as a workflow with inputs."""

from __future__ import annotations

import types
from collections.abc import Collection, Sequence, Set
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from perdure.cli.parameters import ParameterView, parse

if TYPE_CHECKING:
    from perdure.schema import Field
    from perdure.workflow import Workflow


def read_inputs(
    workflow: Workflow[Any, Any], words: Sequence[str], *, options: Collection[str] = ()
) -> dict[str, Any]:
    """Return the inputs that ``words`` give, converted to the types of the signature.

    Args:
        workflow: what has the signature.
        words: what stands after the target.
        options: perdure's own, which do not belong there.

    Raises:
        UsageError: the words make no sense.
        DefinitionError: a value does not fit its parameter.
    """
    from perdure.schema import convert

    views = [view_of(field) for field in workflow.schema.fields]
    given = parse(words, views, options=options)
    return convert(workflow.schema, given)


def describe_parameters(workflow: Workflow[Any, Any], target: str) -> str:
    """Return the help of one workflow: what it does and what it takes."""
    import inspect

    lines = [f"perdure run [OPTIONS] {target} [--PARAMETER VALUE]...", ""]
    text = inspect.getdoc(workflow.function)
    if text:
        lines += [text, ""]
    views = [view_of(field) for field in workflow.schema.fields]
    width = max((len(_spelling(view)) for view in views), default=0)
    lines += ["Parameters:"] if views else ["It has no parameters."]
    for view in views:
        default = "required" if view.default is None else f"default: {view.default}"
        lines.append(f"  {_spelling(view):<{width}}  {view.annotation or 'any value'}  ({default})")
    return "\n".join(lines)


def _spelling(view: ParameterView) -> str:
    name = view.name.replace("_", "-")
    if view.is_flag:
        return f"--{name} / --no-{name}"
    return f"--{name} ..." if view.is_many else f"--{name}"


def view_of(field: Field) -> ParameterView:
    """Return a parameter as the command line needs it."""
    kinds = _alternatives(field.annotation)
    return ParameterView(
        name=field.name,
        annotation=field.text,
        default=None if field.required else repr(field.default),
        is_flag=bool in kinds,
        is_many=any(_is_many(kind) for kind in kinds),
    )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _is_many(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if not isinstance(origin, type) or issubclass(origin, str | bytes):
        return False
    return issubclass(origin, Sequence | Set)
