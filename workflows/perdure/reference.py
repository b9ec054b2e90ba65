"""References to steps: values that say which step is meant, and carry nothing of its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepRef:
    """A step of the run, or a projection of its value, named instead of given.

    A reference can be stored, compared and passed on; whoever takes it as a value has not waited
    for the step. Bound into a graph that a step returns it stands for the value, as a node does.

    Attributes:
        step_id: the step, by its id in the run.
        path: indices and keys into its value, outermost first.
    """

    step_id: str
    path: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        return self.step_id + "".join(f"[{key!r}]" for key in self.path)
