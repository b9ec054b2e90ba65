"""Argument templates become values: each call decodes its own copies."""

from __future__ import annotations

import dataclasses
from typing import Any

from perdure_storage.errors import ValueDamaged, ValueUnavailable
from perdure_storage.records import Cause

from perdure.calls import StepCall, input_key, step_key
from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    ListArg,
    ObjectArg,
    Path,
    path_text,
    project,
)
from perdure.worker.failures import Refusal
from perdure.worker.scope import RunScope
from perdure.worker.secrets import SecretMissing, resolve_secret

_SEQUENCES: dict[str, type[list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


class Arguments:
    """Resolves the templates of one call. An input that is named twice is one object."""

    __slots__ = ("_call", "_loaded", "_scope")

    def __init__(self, call: StepCall, scope: RunScope) -> None:
        self._call = call
        self._scope = scope
        self._loaded: dict[str, Any] = {}

    def positional(self) -> list[Any]:
        """Return the positional arguments.

        Raises:
            Refusal: an input is lost, out of reach or cannot be decoded; a secret is missing; a
                projection does not exist.
        """
        return [self._resolve(arg) for arg in self._call.args]

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments. Raises as ``positional`` does."""
        return {name: self._resolve(arg) for name, arg in self._call.kwargs.items()}

    def _resolve(self, arg: Arg) -> Any:
        match arg:
            case FromStep(step, path):
                return self._value(step_key(step), path)
            case Const(index):
                return self._scope.constant(index)
            case FromInput(name, path):
                return self._value(input_key(name), path)
            case ListArg(items, kind):
                return _SEQUENCES[kind](self._resolve(item) for item in items)
            case DictArg(keys, values):
                return {self._resolve(k): self._resolve(v) for k, v in zip(keys, values)}
            case ObjectArg(cls, fields):
                return build_object(
                    self._resolve(cls), {k: self._resolve(v) for k, v in fields.items()}
                )
            case FromSecret(name):
                return self._secret(name)

    def _value(self, key: str, path: Path) -> Any:
        if key in self._loaded:
            value = self._loaded[key]
        else:
            value = self._loaded[key] = self._load(key)
        if not path:
            return value
        try:
            return project(value, path)
        except Exception as error:
            error.add_note(f"{key.partition(':')[2]}{path_text(path)} does not exist in the value")
            raise Refusal(Cause.USER_ERROR, error, retryable=False) from error

    def _load(self, key: str) -> Any:
        try:
            return self._scope.values.load(self._call.values[key])
        except ValueDamaged as error:
            raise Refusal(Cause.INPUT_LOST, error, culprit=key) from error
        except ValueUnavailable as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error, culprit=key) from error
        except Exception as error:
            # Decoding runs the value's own code: a class that cannot be imported here, say.
            error.add_note(f"while decoding the input {key!r}")
            raise Refusal(Cause.SETUP_ERROR, error) from error

    def _secret(self, name: str) -> str:
        try:
            value = resolve_secret(name)
        except SecretMissing as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        self._scope.redactor.add(value)
        return value


def build_object(cls: type, fields: dict[str, Any]) -> Any:
    """Return a dataclass or named tuple with these fields, also where ``__init__`` takes fewer."""
    if not dataclasses.is_dataclass(cls):
        return cls(**fields)
    taken = {field.name for field in dataclasses.fields(cls) if field.init}
    made = cls(**{name: value for name, value in fields.items() if name in taken})
    for name in fields.keys() - taken:
        object.__setattr__(made, name, fields[name])
    return made
