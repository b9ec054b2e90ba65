"""What pickles as a name, or not at all, and in a script has to take along what it is made of."""

from __future__ import annotations

import functools
import sys
import types
import typing
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

import cloudpickle

from perdure_storage.shapes import is_importable, travels_by_value

Reduced = tuple[Any, ...]


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, which leaves these few kinds of objects to their names."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is types.CodeType:
            return _with_its_file(obj)
        if isinstance(obj, Enum) and _is_plain_member(obj):
            return find_member, (type(obj), obj._name_)
        reduce = _REDUCERS.get(type(obj))
        if reduce is None or _is_found_by_name(obj):
            return super().reducer_override(obj)
        return reduce(obj)


def _with_its_file(code: types.CodeType) -> Reduced:
    """Let code say in tracebacks where it was written.

    Since 3.1.3 cloudpickle writes one name for all files.
    """
    make, args, *rest = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    named = tuple(code.co_filename if arg == _NO_FILE else arg for arg in args)
    return (make, named, *rest)


_NO_FILE = "<dynamic-code>"


def _is_found_by_name(obj: Any) -> bool:
    module, own = getattr(obj, "__module__", None), getattr(obj, "__name__", None)
    if own is None or travels_by_value(module):  # a property, a dict: those have no name
        return False
    found: Any = sys.modules.get(module or "")
    for name in getattr(obj, "__qualname__", own).split("."):
        found = getattr(found, name, None)
    return found is obj


def _is_plain_member(obj: Enum) -> bool:
    """Say whether it is a member of a script's enum: a value need not be equal to its copy."""
    cls = type(obj)
    says_itself = getattr(cls.__reduce_ex__, "__module__", None) != Enum.__module__
    return not (says_itself or is_importable(cls)) and cls.__members__.get(obj._name_) is obj


def find_member(cls: type[Enum], name: str) -> Enum:
    """Return the member of that name."""
    return cls.__members__[name]


def _cached_function(obj: Any) -> Reduced:
    parameters = obj.cache_parameters()
    return make_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])


def make_cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return the function with a cache of its own, empty."""
    return functools.lru_cache(maxsize, typed)(function)


def _cached_property(obj: Any) -> Reduced:
    # Until Python 3.12 it has a lock, which cannot be pickled.
    state = {name: value for name, value in vars(obj).items() if name != "lock"}
    return functools.cached_property, (obj.func,), state


def _weak_keys(obj: Any) -> Reduced:  # the cache of functools.singledispatch
    return weakref.WeakKeyDictionary, (), None, None, iter(list(obj.items()))


def _new_type(obj: Any) -> Reduced:
    return make_new_type, (obj.__name__, obj.__qualname__, obj.__module__, obj.__supertype__)


def make_new_type(name: str, qualname: str, module: str, supertype: Any) -> Any:
    """Return ``NewType(name, supertype)`` as if it had been made in that module."""
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]  # its name is data here
    made.__qualname__, made.__module__ = qualname, module
    return made


def _parameters(obj: Any) -> Reduced:
    return make_parameters, (type(obj), obj.__name__, obj.__module__)


def make_parameters(kind: Any, name: str, module: str) -> Any:
    """Return a ``ParamSpec`` or ``TypeVarTuple`` as if it had been made in that module."""
    made = kind(name)
    made.__module__ = module
    return made


def _type_var(obj: Any) -> Reduced:
    # cloudpickle's has a number in it that differs between processes, and so would the digest of
    # a value.
    given = {"bound": obj.__bound__, "covariant": obj.__covariant__}
    given["contravariant"] = obj.__contravariant__
    if getattr(obj, "__infer_variance__", False):  # from Python 3.12 on
        given["infer_variance"] = True
    if getattr(obj, "has_default", bool)():  # from Python 3.13 on
        given["default"] = obj.__default__
    return make_type_var, (obj.__name__, obj.__module__, obj.__constraints__, given)


_type_vars: dict[tuple[str, str], Any] = {}


def make_type_var(
    name: str, module: str, constraints: tuple[Any, ...], given: dict[str, Any]
) -> Any:
    """Return a ``TypeVar`` of that module: the one that was made here before if it is the same."""
    made: Any = typing.TypeVar(name, *constraints, **given)  # type: ignore[misc]  # as above
    made.__module__ = module
    known = _type_vars.setdefault((module, name), made)
    is_same = _type_var(known) == _type_var(made)
    return known if is_same else made


_REDUCERS: dict[type, Callable[[Any], Reduced]] = {
    type(functools.lru_cache(lambda: None)): _cached_function,
    typing.NewType: _new_type,
    typing.TypeVar: _type_var,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    functools.cached_property: _cached_property,
    weakref.WeakKeyDictionary: _weak_keys,
}
