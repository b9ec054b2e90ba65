"""Text and JSON values become Python values of an annotated type: one function for all doors."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from perdure.conform import ANY, check_value, field_types, type_text
from perdure.errors import DefinitionError, did_you_mean
from perdure.resources import parse_duration

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


class _Unfit(Exception):
    """The value cannot be made one of the wanted type; args: path, expected, value."""


def from_text_or_json(value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` as an instance of ``annotation``.

    Args:
        value: text, or what a JSON reader gives. Text for a container is JSON text; text for a
            list may also be its only element.
        annotation: the type that is wanted; ``ANY`` leaves the value as it is.
        where: what to call the value in messages.

    Raises:
        DefinitionError: it does not fit.
    """
    try:
        converted = _convert(value, annotation, "")
    except _Unfit as unfit:
        path, expected, got = unfit.args
        shown = f"{type(got).__name__} {got!r}"[:100]
        raise DefinitionError(f"{where}{path}: expected {expected}, got {shown}") from None
    check_value(converted, annotation, where)
    return converted


def _convert(value: Any, annotation: Any, path: str) -> Any:
    origin = get_origin(annotation)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _convert(value, get_args(annotation)[0], path)
    if isinstance(annotation, typing.NewType):
        return _convert(value, annotation.__supertype__, path)
    if annotation is ANY or annotation is object or isinstance(annotation, typing.TypeVar):
        return value
    if annotation is None or annotation is type(None):
        return _none(value, path)
    if origin in (Union, types.UnionType):
        return _union(value, annotation, path)
    if origin is Literal:
        return _literal(value, annotation, path)
    if typing.is_typeddict(annotation):
        return _typed_dict(value, annotation, path)
    kind = origin or annotation
    if not isinstance(kind, type):
        return value
    return _of_class(value, annotation, kind, path)


def _of_class(value: Any, annotation: Any, kind: type, path: str) -> Any:
    for known, make in _SCALARS.items():
        if kind is known:
            return _scalar(value, annotation, make, path)
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    if issubclass(kind, enum.Enum):
        return _enum(value, kind, path)
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, kind, path)
    if issubclass(kind, msgspec.Struct):
        return _foreign(value, annotation, _from_msgspec, path)
    if hasattr(kind, "model_validate"):
        return _foreign(value, annotation, _from_pydantic, path)
    if issubclass(kind, dict) or kind.__name__ in ("Mapping", "MutableMapping"):
        return _dict(value, annotation, path)
    if kind in (list, tuple, set, frozenset) or kind.__name__ in _ABSTRACT:
        return _sequence(value, annotation, kind, path)
    return value


_ABSTRACT = {"Sequence": list, "Iterable": list, "Collection": list, "Set": set}


def _scalar(value: Any, annotation: Any, make: Callable[[Any], Any], path: str) -> Any:
    try:
        return make(value)
    except (ValueError, TypeError, InvalidOperation, DefinitionError, OverflowError):
        raise _Unfit(path, type_text(annotation), value) from None


def _int(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return float(value)


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered in _TRUE | _FALSE:
            return lowered in _TRUE
    if not isinstance(value, bool):
        raise TypeError
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _datetime(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _timedelta(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and value.replace(".", "", 1).isdigit():
        value = float(value)
    return timedelta(seconds=parse_duration(value))


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise TypeError
    return Decimal(str(value)) if isinstance(value, float) else Decimal(value)


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    datetime: _datetime,
    date: _date,
    timedelta: _timedelta,
    Decimal: _decimal,
    UUID: _uuid,
    Path: Path,
}


def _none(value: Any, path: str) -> None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("null", "none")):
        return None
    raise _Unfit(path, "None", value)


def _union(value: Any, annotation: Any, path: str) -> Any:
    members = get_args(annotation)
    if not isinstance(value, str):
        if type(value) in members:  # a JSON value that is right as it is stays as it is
            return value
        for each in members:
            try:
                check_value(value, each, "")
            except DefinitionError:
                continue
            return _convert(value, each, path)
    # Text is text only if nothing else fits; but then "none" and "null" are words, too.
    if str in members:
        members = (*(each for each in members if each not in (str, type(None))), str, type(None))
    for each in members:
        try:
            return _convert_and_check(value, each, path)
        except _Unfit:
            continue
    raise _Unfit(path, type_text(annotation), value)


def _convert_and_check(value: Any, annotation: Any, path: str) -> Any:
    converted = _convert(value, annotation, path)
    try:
        check_value(converted, annotation, "")
    except DefinitionError:
        raise _Unfit(path, type_text(annotation), value) from None
    return converted


def _literal(value: Any, annotation: Any, path: str) -> Any:
    allowed = get_args(annotation)
    for each in allowed:
        if type(each) is type(value) and each == value:
            return each
    for each in allowed:
        if isinstance(value, str) and str(each).lower() == value.lower():
            return each
    hint = did_you_mean(value, [str(each) for each in allowed]) if isinstance(value, str) else ""
    raise _Unfit(path, type_text(annotation) + hint, value)


def _enum(value: Any, kind: type[enum.Enum], path: str) -> enum.Enum:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value in kind.__members__:
        return kind.__members__[value]
    for each in kind:
        if each.value == value or (isinstance(value, str) and str(each.value) == value):
            return each
    hint = did_you_mean(value, kind.__members__) if isinstance(value, str) else ""
    raise _Unfit(path, type_text(kind) + hint, value)


def _parsed(value: Any, annotation: Any, path: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _Unfit(path, f"{type_text(annotation)} as JSON text", value) from None


def _dict(value: Any, annotation: Any, path: str) -> Any:
    value = _parsed(value, annotation, path)
    if not isinstance(value, dict):
        raise _Unfit(path, type_text(annotation), value)
    args = get_args(annotation)
    key_type, item_type = args if len(args) == 2 else (ANY, ANY)
    return {
        _convert(key, key_type, f"{path} (key {key!r})"): _convert(
            item, item_type, f"{path}[{key!r}]"
        )
        for key, item in value.items()
    }


def _sequence(value: Any, annotation: Any, kind: type, path: str) -> Any:
    if isinstance(value, str):
        value = _parsed(value, annotation, path) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list | tuple | set | frozenset):
        raise _Unfit(path, type_text(annotation), value)
    args, items = get_args(annotation), list(value)
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(items):
            raise _Unfit(path, type_text(annotation), value)
        kinds = list(args)
    else:
        kinds = [args[0] if args else ANY] * len(items)
    made = [
        _convert(item, each, f"{path}[{index}]")
        for index, (item, each) in enumerate(zip(items, kinds))
    ]
    return made if kind is list else _ABSTRACT.get(kind.__name__, kind)(made)


def _typed_dict(value: Any, annotation: Any, path: str) -> Any:
    value = _parsed(value, annotation, path)
    if not isinstance(value, dict):
        raise _Unfit(path, type_text(annotation), value)
    hints = typing.get_type_hints(annotation, include_extras=True)
    return {
        name: _convert(item, hints.get(name, ANY), f"{path}[{name!r}]")
        for name, item in value.items()
    }


def _dataclass(value: Any, kind: Any, path: str) -> Any:
    if isinstance(value, kind):
        return value
    value = _parsed(value, kind, path)
    if not isinstance(value, dict):
        raise _Unfit(path, type_text(kind), value)
    hints = field_types(kind)
    for name in value:
        if name not in hints:
            expected = f"a field of {type_text(kind)}{did_you_mean(str(name), hints)}"
            raise _Unfit(f"{path}.{name}", expected, value[name])
    made = {name: _convert(item, hints[name], f"{path}.{name}") for name, item in value.items()}
    try:
        return kind(**made)
    except (TypeError, ValueError) as error:
        raise _Unfit(path, f"{type_text(kind)} ({error})", value) from None


def _foreign(value: Any, annotation: Any, make: Callable[[Any, Any], Any], path: str) -> Any:
    if isinstance(value, get_origin(annotation) or annotation):
        return value
    value = _parsed(value, annotation, path)
    try:
        return make(value, annotation)
    except (ValueError, TypeError) as error:  # what both libraries raise is a ValueError
        reason = str(error).replace("\n", " ")[:200]
        raise _Unfit(path, f"{type_text(annotation)} ({reason})", value) from None


def _from_msgspec(value: Any, annotation: Any) -> Any:
    return msgspec.convert(value, annotation, strict=False)


def _from_pydantic(value: Any, annotation: Any) -> Any:
    return annotation.model_validate(value)
