"""Secrets: named in the graph, resolved in the worker when a step starts, stored nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from perdure.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class SecretRef:
    """The name of a secret; its value comes from the worker's environment."""

    name: str

    def __post_init__(self) -> None:
        if not self.name or "=" in self.name or "\0" in self.name:
            raise DefinitionError(f"Secret({self.name!r}): not a name of an environment variable")


given: ContextVar[Mapping[str, SecretRef]] = ContextVar(
    "perdure_secrets", default=MappingProxyType({})
)
"""The secrets of the step that runs here, by value: whoever binds one on binds its name.

Maps and chunks do, and graphs that a step returns. They are stored, and would hold the value.
"""


def Secret(name: str) -> str:
    """Return a placeholder for a secret: only its name is stored and enters fingerprints.

    Args:
        name: the environment variable that holds the value where the step runs.
    """
    if not isinstance(name, str):
        raise DefinitionError(f"Secret({name!r}): write the name of an environment variable")
    return cast(str, SecretRef(name))
