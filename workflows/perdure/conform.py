"""Whether a Python value is of an annotated type. Nothing is converted here."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from perdure.errors import DefinitionError
from perdure_storage.shapes import readable

ANY: Any = Any
_UNIONS = (Union, types.UnionType)
_MAX_CHECKED = 10_000
"""Elements of one container that are checked; the rest of a longer one is taken on trust."""


def check_value(value: Any, annotation: Any, where: str) -> None:
    """Check ``value`` against ``annotation``.

    Args:
        value: any Python value.
        annotation: a type as annotations write it; what is not understood admits anything.
        where: what to call the value in the message.

    Raises:
        DefinitionError: it does not fit; the message has the path, what was expected and got.
    """
    problem = _mismatch(value, annotation, "")
    if problem is not None:
        path, expected, got = problem
        raise DefinitionError(f"{where}{path}: expected {expected}, got {got}")


_NUMBERS: dict[type, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),
    complex: (complex, float, int),
}

Mismatch = tuple[str, str, str]
"""Path inside the value, what was expected, what was found."""


def _mismatch(value: Any, annotation: Any, path: str) -> Mismatch | None:
    annotation = _stripped(annotation)
    if annotation is ANY or annotation is object or isinstance(annotation, typing.TypeVar):
        return None
    if annotation is None or annotation is type(None):
        return None if value is None else _wrong(value, annotation, path)
    origin = get_origin(annotation)
    if origin in _UNIONS:
        return _in_union(value, annotation, path)
    if origin is Literal:
        fits = any(type(value) is type(each) and value == each for each in get_args(annotation))
        return None if fits else _wrong(value, annotation, path)
    if typing.is_typeddict(annotation):
        return _typed_dict(value, annotation, path)
    if origin is not None:
        return _in_container(value, annotation, origin, path)
    if isinstance(annotation, type):
        return _of_class(value, annotation, path)
    return None


def _stripped(annotation: Any) -> Any:
    while True:
        if get_origin(annotation) in (Annotated, typing.Required, typing.NotRequired):
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def _wrong(value: Any, annotation: Any, path: str) -> Mismatch:
    shown = readable(repr(value))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return path, type_text(annotation), f"{type(value).__qualname__} {shown}"


def _in_union(value: Any, annotation: Any, path: str) -> Mismatch | None:
    for each in get_args(annotation):
        if _mismatch(value, each, path) is None:
            return None
    return _wrong(value, annotation, path)


def _of_class(value: Any, annotation: type, path: str) -> Mismatch | None:
    if annotation in _NUMBERS:
        fits = isinstance(value, _NUMBERS[annotation]) and not isinstance(value, bool)
    else:
        try:
            fits = isinstance(value, annotation)
        except TypeError:  # a protocol that cannot be asked at run time
            return None
    if not fits:
        return _wrong(value, annotation, path)
    if dataclasses.is_dataclass(annotation):
        return _record(value, annotation, path)
    return None


def _record(value: Any, annotation: Any, path: str) -> Mismatch | None:
    for name, kind in field_types(annotation).items():
        if hasattr(value, name):
            problem = _mismatch(getattr(value, name), kind, f"{path}.{name}")
            if problem is not None:
                return problem
    return None


def field_types(cls: Any) -> dict[str, Any]:
    """Return the resolved types of a dataclass's fields; what cannot be resolved is any."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 (foreign code: an annotation may be any expression)
        hints = {}
    return {each.name: hints.get(each.name, ANY) for each in dataclasses.fields(cls)}


def _typed_dict(value: Any, annotation: Any, path: str) -> Mismatch | None:
    if not isinstance(value, dict):
        return _wrong(value, annotation, path)
    hints = typing.get_type_hints(annotation, include_extras=True)
    for name, hint in hints.items():
        if name not in value and _is_required(annotation, name, hint):
            return path, f"{type_text(annotation)} with key {name!r}", _wrong(value, ANY, path)[2]
    for name, item in value.items():
        if name not in hints:
            return f"{path}[{name!r}]", f"no such key in {type_text(annotation)}", repr(item)[:60]
        problem = _mismatch(item, hints[name], f"{path}[{name!r}]")
        if problem is not None:
            return problem
    return None


def _is_required(annotation: Any, name: str, hint: Any) -> bool:
    # __required_keys__ is wrong where annotations are strings: it does not see NotRequired.
    if get_origin(hint) in (typing.Required, typing.NotRequired):
        return get_origin(hint) is typing.Required
    return name in annotation.__required_keys__


def _in_container(value: Any, annotation: Any, origin: Any, path: str) -> Mismatch | None:
    if not isinstance(origin, type):
        return None
    if origin in (type, Callable):
        return None if callable(value) else _wrong(value, annotation, path)
    try:
        if not isinstance(value, origin):
            return _wrong(value, annotation, path)
    except TypeError:
        return None
    args = get_args(annotation)
    if isinstance(value, str | bytes):
        return None
    if isinstance(value, tuple) and issubclass(origin, tuple):
        return _tuple(value, args, annotation, path)
    if isinstance(value, Mapping) and len(args) == 2:
        return _mapping(value, args, path)
    if isinstance(value, Sequence | Set) and len(args) == 1 and args[0] is not ANY:
        return _elements(value, args[0], path)
    return None


def _tuple(
    value: tuple[Any, ...], args: tuple[Any, ...], annotation: Any, path: str
) -> Mismatch | None:
    if len(args) == 2 and args[1] is Ellipsis:
        return _elements(value, args[0], path)
    if args == ((),):
        args = ()
    if len(args) != len(value):
        return _wrong(value, annotation, path)
    for index, (item, kind) in enumerate(zip(value, args)):
        problem = _mismatch(item, kind, f"{path}[{index}]")
        if problem is not None:
            return problem
    return None


def _mapping(value: Mapping[Any, Any], args: tuple[Any, ...], path: str) -> Mismatch | None:
    for count, (key, item) in enumerate(value.items()):
        if count >= _MAX_CHECKED:
            break
        problem = _mismatch(key, args[0], f"{path} (key {key!r})") or _mismatch(
            item, args[1], f"{path}[{key!r}]"
        )
        if problem is not None:
            return problem
    return None


def _elements(value: Any, kind: Any, path: str) -> Mismatch | None:
    if kind in (int, float, str, bool, bytes) and set(map(type, value)) <= {kind}:
        return None  # the usual list of numbers, at the speed of C
    for index, item in enumerate(value):
        if index >= _MAX_CHECKED:
            break
        problem = _mismatch(item, kind, f"{path}[{index}]")
        if problem is not None:
            return problem
    return None


def type_text(annotation: Any) -> str:
    """Return a type as its user would write it."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ANY:
        return "any value"
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, enum.Enum):
            return f"{annotation.__qualname__} ({', '.join(annotation.__members__)})"
        return annotation.__qualname__
    if get_origin(annotation) in _UNIONS:
        return " | ".join(type_text(each) for each in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, get_args(annotation)))
    return str(annotation).replace("typing.", "")
