"""``FILE.py[:w]`` or ``package.module:w``, and the words after it, as a workflow with inputs."""

from __future__ import annotations

import dataclasses
import shlex
import types
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin
from uuid import UUID

from perdure.cli.endings import UsageError
from perdure.cli.parameters import ParameterView, dashed, parse
from perdure.conform import field_types, type_text

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


def refuse_missing(workflow: Workflow[Any, Any], given: Mapping[str, Any], target: str) -> None:
    """Raise UsageError if a parameter without a default is not given; names all of them."""
    missing = [
        f"{dashed(field.name)} ({field.text or 'any value'})"
        for field in workflow.schema.fields
        if field.required and field.name not in given
    ]
    if missing:
        raise UsageError(
            f"{workflow.name} needs {', '.join(missing)}",
            f"its parameters: perdure run {shlex.quote(target)} --help",
        )


def describe_parameters(workflow: Workflow[Any, Any], target: str) -> str:
    """Return the help of one workflow: what it does and what it takes."""
    import inspect

    lines = [f"perdure run [OPTIONS] {target} [--PARAMETER VALUE]...", ""]
    text = inspect.getdoc(workflow.function)
    if text:
        lines += [text, ""]
    rows = [row for field in workflow.schema.fields for row in _rows(field)]
    width = max((len(spelling) for spelling, _ in rows), default=0)
    lines += ["Parameters:"] if rows else ["It has no parameters."]
    lines += [f"  {spelling:<{width}}  {meaning}" for spelling, meaning in rows]
    return "\n".join(lines)


def _rows(field: Field) -> Iterator[tuple[str, str]]:
    """Yield how a parameter is typed and what it takes, then the same of each field of a record."""
    view = view_of(field)
    default = "required" if view.default is None else f"default: {view.default}"
    yield _spelling(view), f"{view.annotation or 'any value'}  ({default})"
    for kind in _alternatives(field.annotation):
        if dataclasses.is_dataclass(kind):
            for name, annotation in field_types(kind).items():
                yield f"  {dashed(field.name)}.{name}", type_text(annotation)


def _spelling(view: ParameterView) -> str:
    name = dashed(view.name)
    if view.is_flag:
        return f"{name} / --no-{name.removeprefix('--')}"
    return f"{name} ..." if view.is_many else name


def _typed(value: Any) -> str:
    """Return a default as somebody would type it."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, PurePath | date | Decimal | UUID):
        return str(value)
    return repr(value)


def view_of(field: Field) -> ParameterView:
    """Return a parameter as the command line needs it."""
    kinds = _alternatives(field.annotation)
    return ParameterView(
        name=field.name,
        annotation=field.text,
        default=None if field.required else _typed(field.default),
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
