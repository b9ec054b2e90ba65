"""Secrets are resolved here, in the worker, and kept out of what it writes down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from perdure.calls import StepCall
from perdure.errors import SecretMissing
from perdure.plan import secrets_in

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


def is_masked(value: str) -> bool:
    """Say whether a secret is long enough not to be met by chance."""
    return len(value) >= _SHORTEST


def secret_names(call: StepCall) -> frozenset[str]:
    """Return the names of the secrets that a call was given, or the actor that it is of."""
    names = secrets_in((*call.args, *call.kwargs.values()))
    return names if call.actor is None else names | set(call.actor.secrets)


class Redactor:
    """Masks the values of secrets in bytes and text. Grows as secrets are resolved."""

    __slots__ = ("_printed", "_values", "_written", "longest")

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        self._written: list[str] = []
        self._printed: list[bytes] = []
        self.longest = 0
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Mask ``value`` from now on; values of fewer than four characters are let through."""
        if not is_masked(value) or value in self._values:
            return
        self._values.append(value)
        # Longest first: a secret may be the beginning of another.
        written = {form for each in self._values for form in _written(each)}
        self._written = sorted(written, key=len, reverse=True)
        printed = {form for each in written for form in _printed(each)}
        self._printed = sorted(printed, key=len, reverse=True)
        self.longest = len(self._printed[0])

    def add_named(self, names: Iterable[str]) -> None:
        """Mask those of these secrets that are there."""
        for name in names:
            if (value := os.environ.get(name)) is not None:
                self.add(value)

    def text(self, text: str) -> str:
        """Return ``text`` with every secret masked."""
        for form in self._written:
            text = text.replace(form, MASK)
        return text

    def data(self, data: bytes) -> bytes:
        """Return ``data`` with every secret masked."""
        for form in self._printed:
            data = data.replace(form, MASK.encode())
        return data


def _written(value: str) -> set[str]:
    """Return how a text may have it: as it is, within a ``repr``, within JSON, within a URL."""
    quoted = repr(value)[1:-1]
    return {
        value,
        quoted,
        quoted.replace("\\'", "'").replace("'", "\\'"),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        *(escape(value, errors="surrogateescape") for escape in (quote, _quote_all, quote_plus)),
    }


def _quote_all(value: str, *, errors: str) -> str:
    return quote(value, safe="", errors=errors)


def _printed(value: str) -> tuple[bytes, bytes]:
    """Return what Python streams and other programs print for a variable; they differ only where
    the environment's bytes are no UTF-8.
    """
    return value.encode(errors="backslashreplace"), os.fsencode(value)
