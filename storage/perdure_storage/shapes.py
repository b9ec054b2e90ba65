"""What an object of a plain data class consists of: for encoding it, and for comparing it.

A data class in this sense is a dataclass, named tuple, msgspec Struct, pydantic model or Enum
whose instances are nothing but their fields. Look-alikes that keep more, or that say themselves
how they are pickled, are not: taking them apart would change them.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from enum import Enum, EnumMeta, Flag
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

Fields = dict[str, Any]

_MAIN = "__main__"
_mains: set[str] = {_MAIN, "__mp_main__"}

SCRIPT_PREFIX = "__perdure_script_"
"""Modules of such names are scripts imported by their path, also where they are not loaded."""

_PRIVATE_NAME = re.compile(SCRIPT_PREFIX + r"(\w*)_[0-9a-f]{8}\b")


class Shape:
    """How instances of one class are taken apart and put together.

    Attributes:
        kind: ``data``, ``named``, ``struct``, ``model``, ``enum`` or ``flag``.
        make: an instance of the class with these fields, made without running user code.
    """

    __slots__ = ("_fields_of", "kind", "make")

    def __init__(
        self,
        kind: str,
        fields_of: Callable[[Any], Fields | None],
        make: Callable[[Any, Fields], Any],
    ) -> None:
        self.kind = kind
        self._fields_of = fields_of
        self.make = make

    def fields_of(self, value: Any) -> Fields | None:
        """Return the instance's fields, or None if this instance keeps more than them."""
        try:
            return self._fields_of(value)
        except Exception:  # noqa: BLE001 - a field may be a property of the user's
            return None


def treat_as_main(module: str) -> None:
    """Let classes of ``module`` count as those of ``__main__``: a script imported by its path."""
    _mains.add(module)


def is_main(module: str | None) -> bool:
    """Say whether ``module`` is ``__main__`` or a script that stands for it."""
    return module is not None and (module in _mains or module.startswith(SCRIPT_PREFIX))


def main_modules() -> list[Any]:
    """Return the live modules that are, or stand for, the user's ``__main__``."""
    return [sys.modules[name] for name in sorted(_mains) if name in sys.modules]


def type_name(cls: type) -> str:
    """Return ``module:qualname``, the same whichever way the user's script was started."""
    module = cls.__module__
    return f"{_MAIN if is_main(module) else module}:{cls.__qualname__}"


def travels_by_value(module: str | None) -> bool:
    """Say whether what is defined in ``module`` takes its definition along: of scripts it does."""
    return is_main(module) or module in _by_value()


def readable(text: str) -> str:
    """Return text for people: private names of scripts as the scripts are called."""
    return _PRIVATE_NAME.sub(r"\1", text) if SCRIPT_PREFIX in text else text


def shown_name(cls: type) -> str:
    """Return ``module.qualname`` for people."""
    return readable(f"{cls.__module__}.{cls.__qualname__}")


def is_importable(cls: type) -> bool:
    """Say whether another process finds this very class by importing its module."""
    if travels_by_value(cls.__module__):
        return False
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


class ImportName(NamedTuple):
    """How another process finds an object.

    Attributes:
        text: ``module:qualname``.
        is_inside: a decorator put something in its place, whose ``__wrapped__`` it is.
    """

    text: str
    is_inside: bool


def import_name(value: Any) -> ImportName | None:
    """Return the name by which another process imports this very object.

    Of a class, a function, or what a decorator put in the place of one; None of anything else.
    """
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(qualname, str)) or travels_by_value(module):
        return None
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    is_inside = found is not value
    if is_inside and getattr(found, "__wrapped__", None) is not value:
        return None
    return ImportName(f"{module}:{qualname}", is_inside)


def _by_value() -> set[str]:
    """Return the modules whose definitions travel by value because the user said so."""
    cloudpickle = sys.modules.get("cloudpickle")
    return set() if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()


_shapes: WeakKeyDictionary[type, Shape | None] = WeakKeyDictionary()


def shape_of(cls: type) -> Shape | None:
    """Return how instances of ``cls`` are taken apart, or None if it is no data class."""
    try:
        return _shapes[cls]
    except KeyError:
        shape = _shapes[cls] = _find_shape(cls)
        return shape


def _find_shape(cls: type) -> Shape | None:
    if isinstance(cls, EnumMeta):
        return _FLAG if issubclass(cls, Flag) else _ENUM
    if issubclass(cls, tuple):
        return _NAMED if _is_named_tuple(cls) else None
    if issubclass(cls, msgspec.Struct):
        return _STRUCT if _inherits(cls, msgspec.Struct, "__reduce__") else None
    if _is_model(cls):
        return _MODEL
    return _DATA if _is_plain_dataclass(cls) else None


def _says_how_to_pickle(cls: type) -> bool:
    """Say whether the class has its own idea of its state (slotted dataclasses' is the fields)."""
    if not _inherits(cls, object, "__reduce__", "__reduce_ex__"):
        return True
    for name in ("__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"):
        own = getattr(cls, name, None)
        if own is None or own is getattr(object, name, None):
            continue
        if getattr(own, "__module__", None) != "dataclasses":
            return True
    return False


def _inherits(cls: type, base: type, *names: str) -> bool:
    """Say whether ``cls`` has these methods from ``base`` unchanged."""
    return all(getattr(cls, name, None) is getattr(base, name, None) for name in names)


def _is_plain_dataclass(cls: type) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        and cls.__new__ is object.__new__  # so no built-in type with a value of its own below
        and not _says_how_to_pickle(cls)
        and _slots_of(cls) <= {field.name for field in dataclasses.fields(cls)}
    )


def _slots_of(cls: type) -> set[str]:
    found: set[str] = set()
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found.update((slots,) if isinstance(slots, str) else slots)
    return found - {"__dict__", "__weakref__"}


def _is_named_tuple(cls: type) -> bool:
    names = getattr(cls, "_fields", None)
    return (
        isinstance(names, tuple)
        and all(isinstance(name, str) for name in names)
        and _inherits(cls, object, "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    )


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not issubclass(cls, pydantic.BaseModel):
        return False
    own = _inherits(cls, pydantic.BaseModel, "__getstate__", "__setstate__", "__reduce__")
    return own and _inherits(cls, object, "__reduce_ex__")


def _data_fields(value: Any) -> Fields | None:
    names = [field.name for field in dataclasses.fields(value)]
    state = getattr(value, "__dict__", None)
    fields = {name: getattr(value, name) for name in names}
    # Something beside the fields (a cached property, an attribute set later) is part of the
    # value for whoever uses it; pickle keeps it, so pickle it is.
    return None if state is not None and not state.keys() <= fields.keys() else fields


def _make_data(cls: Any, fields: Fields) -> Any:
    value = object.__new__(cls)
    for name, field in fields.items():
        object.__setattr__(value, name, field)
    return value


def _named_fields(value: Any) -> Fields | None:
    if getattr(value, "__dict__", None) or len(value) != len(value._fields):
        return None
    return dict(zip(value._fields, value, strict=True))


def _struct_fields(value: Any) -> Fields | None:
    if getattr(value, "__dict__", None):
        return None
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _model_fields(value: Any) -> Fields | None:
    state = dict(value.__getstate__())
    state["__pydantic_fields_set__"] = set(state["__pydantic_fields_set__"])
    return state


def _make_model(cls: Any, fields: Fields) -> Any:
    value = cls.__new__(cls)
    value.__setstate__(fields)
    return value


def _make_enum(cls: Any, fields: Fields) -> Enum:
    member: Enum = cls[fields["name"]]
    return member


_DATA = Shape("data", _data_fields, _make_data)
_NAMED = Shape("named", _named_fields, lambda cls, fields: tuple.__new__(cls, fields.values()))
_STRUCT = Shape("struct", _struct_fields, lambda cls, fields: cls(**fields))
_MODEL = Shape("model", _model_fields, _make_model)
_ENUM = Shape("enum", lambda value: {"name": value.name}, _make_enum)
_FLAG = Shape("flag", lambda value: {"value": value.value}, lambda cls, f: cls(f["value"]))
