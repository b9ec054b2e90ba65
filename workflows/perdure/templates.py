"""Argument templates become values: the one way, for workers, eager runs and results."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    ItemsOf,
    ListArg,
    Path,
    RefTo,
)
from perdure.reference import StepRef

_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Source(Protocol):
    """Where the leaves of a template come from."""

    def constant(self, index: int) -> Any:
        """Return constant ``index`` of the plan."""
        ...

    def step(self, step_id: str, path: Path) -> Any:
        """Return the value of a step, or the projection of it."""
        ...

    def items(self, step_id: str) -> Any:
        """Return what a map gives: references to its children, or its value."""
        ...

    def parameter(self, name: str, path: Path) -> Any:
        """Return a parameter of the workflow, or the projection of it."""
        ...

    def secret(self, name: str) -> str:
        """Return a secret's value."""
        ...


def resolve(arg: Arg, source: Source) -> Any:
    """Return the value that a template stands for. Raises what ``source`` raises."""
    if isinstance(arg, Const):  # as most are: a match takes longer to say so
        return source.constant(arg.index)
    match arg:
        case FromStep(step, path):
            return source.step(step, path)
        case FromInput(name, path):
            return source.parameter(name, path)
        case RefTo(step, path):
            return StepRef(step, tuple(part.key for part in path))
        case ItemsOf(step):
            return source.items(step)
        case FromSecret(name):
            return source.secret(name)
        case ListArg(items, kind):
            return _SEQUENCES[kind](resolve(item, source) for item in items)
        case DictArg(keys, values):
            pairs = zip(keys, values, strict=True)
            return {resolve(key, source): resolve(value, source) for key, value in pairs}
        case _:
            fields = {name: resolve(value, source) for name, value in arg.fields.items()}
            return build_object(resolve(arg.cls, source), fields)


def build_object(cls: type, fields: dict[str, Any]) -> Any:
    """Return a dataclass or named tuple with these fields, also where ``__init__`` takes fewer."""
    if not dataclasses.is_dataclass(cls):
        return cls(**fields)
    taken = {field.name for field in dataclasses.fields(cls) if field.init}
    made = cls(**{name: value for name, value in fields.items() if name in taken})
    for name in fields.keys() - taken:
        object.__setattr__(made, name, fields[name])
    return made
