"""Secrets are resolved here, in the worker, and kept out of what it writes down."""

from __future__ import annotations

import os
from collections.abc import Iterable

from perdure.calls import StepCall
from perdure.errors import SecretMissing
from perdure.plan import Arg, DictArg, FromSecret, ListArg, ObjectArg

MASK = "***"
_SHORTEST = 4
"""Shorter values are not masked: they occur by chance, and masking them would tell where."""


def resolve_secret(name: str) -> str:
    """Return the secret's value from the environment.

    Raises:
        SecretMissing: it is not there.
    """
    value = os.environ.get(name)
    if value is None:
        raise SecretMissing(name)
    return value


def secret_names(call: StepCall) -> frozenset[str]:
    """Return the names of the secrets among the call's arguments."""
    found: set[str] = set()
    for arg in (*call.args, *call.kwargs.values()):
        _collect(arg, found)
    return frozenset(found)


def _collect(arg: Arg, found: set[str]) -> None:
    if isinstance(arg, FromSecret):
        found.add(arg.name)
    elif isinstance(arg, ListArg):
        for item in arg.items:
            _collect(item, found)
    elif isinstance(arg, DictArg):
        for item in arg.values:
            _collect(item, found)
    elif isinstance(arg, ObjectArg):
        for item in arg.fields.values():
            _collect(item, found)


class Redactor:
    """Masks the values of secrets in bytes and text. Grows as secrets are resolved."""

    __slots__ = ("_printed", "_values", "longest")

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        self._printed: list[bytes] = []
        self.longest = 0
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Mask ``value`` from now on; values of fewer than four characters are let through."""
        if len(value) < _SHORTEST or value in self._values:
            return
        # Longest first: a secret may be the beginning of another.
        self._values = sorted((*self._values, value), key=len, reverse=True)
        printed = {form for each in self._values for form in _printed(each)}
        self._printed = sorted(printed, key=len, reverse=True)
        self.longest = len(self._printed[0])

    def text(self, text: str) -> str:
        """Return ``text`` with every secret masked."""
        for value in self._values:
            text = text.replace(value, MASK)
        return text

    def data(self, data: bytes) -> bytes:
        """Return ``data`` with every secret masked."""
        for form in self._printed:
            data = data.replace(form, MASK.encode())
        return data


def _printed(value: str) -> tuple[bytes, bytes]:
    """Return what Python streams and other programs print for a variable; they differ only where
    the environment's bytes are no UTF-8.
    """
    return value.encode(errors="backslashreplace"), os.fsencode(value)
