"""What a step's function returns that has no value yet, and waits for one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NoDefault:
    """The kind of ``NO_DEFAULT``."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT = NoDefault()
"""In place of a default value: the end of the time is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A wait that is about to begin.

    Attributes:
        kind: ``"sleep"``, ``"signal"`` or ``"event"``.
        name: of the signal or event.
        match: what an event has to say about itself.
        timeout_s: seconds from now until it ends by itself; None: never.
        default: the value then.
    """

    kind: str
    name: str = ""
    match: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    default: Any = NO_DEFAULT
