"""Views, and results, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure_storage.shapes import readable


def to_json(view: Any) -> str:
    """Return a view, or a list of views, as JSON that people can read too."""
    return msgspec.json.format(msgspec.json.encode(view), indent=2).decode()


def value_to_json(value: Any) -> Any:
    """Return what JSON can say of a result: itself where it is JSON, else its ``repr``."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return readable(repr(value))
