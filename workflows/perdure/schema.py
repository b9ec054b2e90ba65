"""A workflow's signature as the schema of its inputs.

Python values are checked against the annotations and never converted (an int passes for a
float); text and JSON are converted by ``convert`` alone.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from perdure.conform import ANY, check_value, type_text
from perdure.conversion import from_text_or_json
from perdure.errors import DefinitionError, did_you_mean
from perdure.plan import Parameter

T = TypeVar("T")


class _StaticMark:
    """Marks a parameter that is a real value while the body is traced."""

    def __repr__(self) -> str:
        return "Static"

    def __reduce__(self) -> str:
        return "STATIC"


STATIC = _StaticMark()
Static = Annotated[T, STATIC]
"""``Static[int]``: the parameter is an int while tracing, and part of the plan."""

MISSING = inspect.Parameter.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter.

    Attributes:
        annotation: the resolved type, ``ANY`` where there is none.
        text: the annotation as people read it.
        default: the default value, or ``MISSING``.
        static: whether it is a real value while tracing.
    """

    name: str
    annotation: Any = ANY
    text: str = ""
    default: Any = MISSING
    static: bool = False

    @property
    def required(self) -> bool:
        """Say whether a value must be given."""
        return self.default is MISSING

    def planned(self) -> Parameter:
        """Return it as a plan says it."""
        default = None if self.required else repr(self.default)[:200]
        return Parameter(name=self.name, annotation=self.text, default=default, static=self.static)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The parameters of a workflow, in order."""

    workflow: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """Return the parameter of that name.

        Raises:
            DefinitionError: there is none.
        """
        for each in self.fields:
            if each.name == name:
                return each
        known = [each.name for each in self.fields]
        listed = ", ".join(known) if known else "none"
        raise DefinitionError(
            f"{self.workflow}: no parameter {name!r}{did_you_mean(name, known)} "
            f"(parameters: {listed})"
        )

    def by_name(self, args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return positional and keyword arguments by name, unchecked.

        Raises:
            DefinitionError: too many positions, or a parameter given twice.
        """
        if len(args) > len(self.fields):
            raise DefinitionError(
                f"{self.workflow}: {len(args)} positional arguments, but it has "
                f"{len(self.fields)} parameters ({', '.join(each.name for each in self.fields)})"
            )
        named = dict(zip((each.name for each in self.fields), args))
        twice = sorted(named.keys() & given.keys())
        if twice:
            raise DefinitionError(
                f"{self.workflow}: {twice[0]!r} is given twice: by position and by name"
            )
        return {**named, **given}

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every parameter's value, defaults filled in, in order.

        Raises:
            DefinitionError: one is unknown or missing.
        """
        for name in given:
            self.field(name)
        values: dict[str, Any] = {}
        for each in self.fields:
            if each.name not in given and each.required:
                hint = f": {each.text}" if each.text else ""
                raise DefinitionError(f"{self.workflow}: parameter {each.name!r}{hint} is missing")
            values[each.name] = given.get(each.name, each.default)
        return values

    def takes_anything(self, name: str) -> bool:
        """Say whether the parameter takes any value: it is not annotated, or as much as that."""
        return self.field(name).annotation in (ANY, Any, object)

    def check(self, name: str, value: Any) -> None:
        """Check a Python value against the parameter's annotation; nothing is converted.

        Raises:
            DefinitionError: names the parameter, what was expected and what was given.
        """
        check_value(value, self.field(name).annotation, f"{self.workflow}: parameter {name!r}")

    def fits(self, name: str, value: Any) -> bool:
        """Say whether a Python value is one that the parameter takes.

        Raises:
            DefinitionError: there is no such parameter.
        """
        annotation = self.field(name).annotation
        try:
            check_value(value, annotation, name)
        except DefinitionError:
            return False
        return True


def schema_of(function: Callable[..., Any], name: str) -> Schema:
    """Return the schema of a workflow's function.

    Raises:
        DefinitionError: it has ``*args``, ``**kwargs`` or positional-only parameters.
    """
    scope = _Names(function)
    fields = []
    for each in inspect.signature(function).parameters.values():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
            raise DefinitionError(
                f"workflow {name!r}: parameter {str(each)!r}: its parameters are the schema of its "
                "inputs, so each has a name; *args, **kwargs and positional-only ones are refused"
            )
        fields.append(_field(each, scope))
    return Schema(workflow=name, fields=tuple(fields))


def _field(each: inspect.Parameter, scope: _Names) -> Field:
    annotation = ANY if each.annotation is MISSING else scope.evaluate(each.annotation)
    static = False
    if get_origin(annotation) is Annotated:
        annotation, *marks = get_args(annotation)
        static = any(mark is STATIC for mark in marks)
    return Field(
        name=each.name,
        annotation=annotation,
        text="" if annotation is ANY else type_text(annotation),
        default=each.default,
        static=static,
    )


class _Names(dict[str, Any]):
    """The names that annotations of a function may use; unknown ones mean any value.

    A name may be missing because it is imported for type checkers only, or local to a function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._globals: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
        code = getattr(function, "__code__", None)
        for name, cell in zip(
            getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or ()
        ):
            try:
                self[name] = cell.cell_contents
            except ValueError:  # not filled yet
                continue

    def __missing__(self, name: str) -> Any:
        if name in self._globals:
            return self._globals[name]
        return getattr(builtins, name, ANY)

    def evaluate(self, annotation: Any) -> Any:
        """Return the type that an annotation means, ``ANY`` if it cannot be found out."""
        if not isinstance(annotation, str):
            return annotation
        try:
            found = eval(annotation, {}, self)  # what typing.get_type_hints does, name by name
            return self.evaluate(found) if isinstance(found, str) else found
        except Exception:  # noqa: BLE001 (foreign code: an annotation may be any expression)
            is_static = annotation.lstrip().partition("[")[0].endswith("Static")
            return Annotated[Any, STATIC] if is_static else ANY


def convert(schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return text and JSON values as the Python values that the parameters want.

    The only place where anything is converted: the command line and HTTP come through here.

    Raises:
        DefinitionError: a parameter is unknown, or its value does not fit.
    """
    return {
        name: from_text_or_json(
            value, schema.field(name).annotation, f"{schema.workflow}: parameter {name!r}"
        )
        for name, value in given.items()
    }
