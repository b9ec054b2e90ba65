"""Argument templates become values: each call decodes its own copies."""

from __future__ import annotations

from typing import Any

from perdure import secret
from perdure.calls import Replay, StepCall, decode_items, input_key, items_key, step_key
from perdure.errors import SecretMissing
from perdure.plan import Path, path_text, project
from perdure.templates import resolve
from perdure.worker.failures import Refusal
from perdure.worker.scope import RunScope
from perdure.worker.secrets import is_masked, resolve_secret
from perdure_storage.errors import ValueDamaged, ValueUnavailable
from perdure_storage.records import Cause


class Arguments:
    """Resolves the templates of one call. An input that is named twice is one object."""

    __slots__ = ("_call", "_loaded", "_scope", "constant")

    def __init__(self, call: StepCall | Replay, scope: RunScope) -> None:
        self._call = call
        self._scope = scope
        self._loaded: dict[str, Any] = {}
        self.constant = scope.constant

    def positional(self) -> list[Any]:
        """Return the positional arguments.

        Raises:
            Refusal: an input is lost, out of reach or cannot be decoded; a secret is missing; a
                projection does not exist.
        """
        return [resolve(arg, self) for arg in self._call.args]

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments. Raises as ``positional`` does."""
        kwargs = self._call.kwargs
        return {name: resolve(arg, self) for name, arg in kwargs.items()} if kwargs else {}

    def step(self, step_id: str, path: Path) -> Any:
        """Return the value of a step, or the projection of it. Raises as ``positional`` does."""
        return self._value(step_key(step_id), path)

    def items(self, step_id: str) -> Any:
        """Return references to a map's children, or its value. Raises as ``positional`` does."""
        listed = self._call.values.get(items_key(step_id))
        return self.step(step_id, ()) if listed is None else decode_items(listed)

    def parameter(self, name: str, path: Path) -> Any:
        """Return a parameter, or the projection of it. Raises as ``positional`` does."""
        return self._value(input_key(name), path)

    def secret(self, name: str) -> str:
        """Return a secret's value, which is masked in this run's logs from now on.

        Where the step binds it on, its name is bound.
        """
        try:
            value = resolve_secret(name)
        except SecretMissing as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        self._scope.redactor.add(value)
        if is_masked(value):
            secret.given.set({**secret.given.get(), value: secret.SecretRef(name)})
        return value

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
