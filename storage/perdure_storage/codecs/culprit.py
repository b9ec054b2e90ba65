"""Finds the part of an object that cannot be encoded, and writes the path to it as code."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

Path = str
_LOOKS = 2_000  # objects that are tried; each try encodes what is below it


def find_culprit(value: Any, name: str, encodes: Callable[[Any], bool]) -> tuple[Path, Any]:
    """Return the path to the innermost part that does not encode, and that part.

    Args:
        value: an object that does not encode.
        name: how the user calls it: ``"result"``.
        encodes: tries one object.
    """
    path, seen, looks = name, {id(value)}, _LOOKS
    while True:
        for step, part in _parts(value):
            if id(part) in seen:
                continue
            looks -= 1
            if looks < 0:
                return path, value
            if not encodes(part):
                seen.add(id(part))
                path, value = path + step, part
                break
        else:
            return path, value


def key_text(key: Any) -> Path:
    """Return the step to a dict's item, as its user would write it: ``["model"]``."""
    return f'["{key}"]' if type(key) is str and '"' not in key else f"[{key!r:.80}]"


def _parts(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield what an object is made of, each with its step: ``["model"]``, ``.lock``."""
    if isinstance(value, dict):
        yield from ((key_text(key), part) for key, part in list(value.items()))
        yield from ((f".keys()[{at}]", key) for at, key in enumerate(list(value)))
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", None)
        for at, part in enumerate(value):
            yield f".{names[at]}" if names and at < len(names) else f"[{at}]", part
    elif isinstance(value, set | frozenset):
        yield from (("{...}", part) for part in list(value))
    if isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif not isinstance(value, type | types.ModuleType):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[Path, Any]]:
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict):
        yield from ((f".{name}", part) for name, part in list(state.items()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[Path, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" (closure variable {name!r})", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for at, default in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{at}]", default
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" (global {name!r})", function.__globals__[name]
