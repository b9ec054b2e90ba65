"""The order of an actor's calls: that of their binding, written down when a graph is recorded.

A step that calls an actor, or is given its handle, has a place in its order: after the step before
it that may change the state, and, if it may change it itself, after the readers since. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from perdure.errors import DefinitionError
from perdure.plan import StateOf, StepPlan


class Place(NamedTuple):
    """Where a step stands in the orders of its actors.

    Attributes:
        turns: what comes before it, by actor.
        after: steps that must end before it.
    """

    turns: tuple[StateOf, ...]
    after: tuple[str, ...]


class Turns:
    """The orders of one graph's actors. Mutable, owned by one compilation.

    Args:
        before: of a graph that a step gave, what comes before it by actor: the orders go on.
        has_branches: steps of it may be skipped; then one after such a step is after all before it.
    """

    def __init__(self, before: Mapping[str, str], *, has_branches: bool = False) -> None:
        self._passed: dict[str, list[str]] | None = {} if has_branches else None
        self._writers: dict[str, str] = dict(before)
        self._readers: dict[str, list[str]] = {}

    def begin(self, actor: str) -> None:
        """Note the constructor of an actor: the first in its order."""
        self._writers[actor] = actor

    def enter(self, step: str, actors: Iterable[str], *, writes: bool) -> Place:
        """Give a step its place in the orders of these actors.

        Raises:
            DefinitionError: one of the actors was not given to the step that makes the graph.
        """
        turns: list[StateOf] = []
        after: list[str] = []
        for actor in actors:
            writer = self._writers.get(actor)
            if writer is None:
                raise DefinitionError(
                    f"{step}: the actor {actor} is called by a step that was not given it as an "
                    "argument, so its call has no place in the actor's order: pass the handle to "
                    "the task"
                )
            turns.append(StateOf(actor, writer))
            after += [each for each in (writer,) if each != actor]
            if self._passed is not None:
                passed = self._passed.setdefault(actor, [])
                after += passed
                if writes:
                    passed.append(step)
            if writes:
                after += self._readers.pop(actor, [])
                self._writers[actor] = step
            else:
                self._readers.setdefault(actor, []).append(step)
        return Place(tuple(turns), tuple(dict.fromkeys(after)))

    def marked(self, steps: Iterable[StepPlan]) -> tuple[StepPlan, ...]:
        """Return the steps with the last calls of each actor marked as such."""
        last = set(self._writers.values())
        if not last:
            return tuple(steps)
        return tuple(
            msgspec.structs.replace(step, actor=msgspec.structs.replace(step.actor, is_last=True))
            if step.actor is not None and step.id in last
            else step
            for step in steps
        )
