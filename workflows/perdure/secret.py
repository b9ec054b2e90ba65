"""Secrets: named in the graph, resolved in the worker when a step starts, stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from perdure.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class SecretRef:
    """The name of a secret; its value comes from the worker's environment."""

    name: str

    def __post_init__(self) -> None:
        if not self.name or "=" in self.name or "\0" in self.name:
            raise DefinitionError(f"Secret({self.name!r}): not a name of an environment variable")


def Secret(name: str) -> str:
    """Return a placeholder for a secret: only its name is stored and enters fingerprints.

    Args:
        name: the environment variable that holds the value where the step runs.
    """
    if not isinstance(name, str):
        raise DefinitionError(f"Secret({name!r}): write the name of an environment variable")
    return cast(str, SecretRef(name))
