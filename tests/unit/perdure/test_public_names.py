from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import perdure


def public_members() -> Iterator[tuple[str, Any]]:
    """Yield what users can name: the package's names, and the public members of its classes."""
    for name in perdure.__all__:
        found = getattr(perdure, name)
        yield name, found
        if inspect.isclass(found) and found.__module__.startswith("perdure"):
            for member, value in vars(found).items():
                if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value


@pytest.mark.parametrize(
    ("name", "found"), [pytest.param(*member, id=member[0]) for member in public_members()]
)
def test_public_name_has_a_docstring_that_begins_with_a_sentence(name: str, found: Any) -> None:
    if not (callable(found) or isinstance(found, property)):
        pytest.skip("a value")

    text = inspect.getdoc(found) or ""

    assert text, f"{name} has no docstring"
    assert text[0].isupper() or text[0] in "`\"'", f"{name}: {text[:60]!r}"


def test_every_name_of_all_is_there() -> None:
    assert [name for name in perdure.__all__ if not hasattr(perdure, name)] == []
