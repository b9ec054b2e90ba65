"""What a step's function returns that has no value yet, and waits for one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perdure.reference import StepRef


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
        kind: ``"sleep"``, ``"signal"``, ``"event"`` or ``"steps"``.
        name: of the signal or event.
        match: what an event has to say about itself.
        timeout_s: seconds from now until it ends by itself; None: never.
        default: the value then.
        steps: of a wait for steps, which ones.
        wanted: how many of them have to be done.
        cancel_rest: whether the others are not needed then.
    """

    kind: str
    name: str = ""
    match: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    default: Any = NO_DEFAULT
    steps: tuple[StepRef, ...] = ()
    wanted: int = 1
    cancel_rest: bool = False
