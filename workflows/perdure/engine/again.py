"""Which steps of a fork run again whatever was committed: in its plan, and in what grows below."""

from __future__ import annotations

from collections.abc import Collection

from perdure.plan import FromStep, Plan, RefTo, StepPlan, Takeover, references, upstream

_NOTHING = Takeover()


class Again:
    """Which steps of a fork run again though a committed result of them may hold, and why.

    In the run's plan, and in the graphs that grow below it. Mutable: what is downstream of
    ``from_step`` in a graph is known when that graph is there, and is asked for in later ones.
    """

    __slots__ = ("_asked", "_cone", "_terms", "_whole")

    def __init__(self, takeover: Takeover | None) -> None:
        terms = takeover or _NOTHING
        start = terms.from_step
        self._terms = terms
        self._asked = dict.fromkeys(terms.force, "the fork was asked to run it again")
        self._asked |= dict.fromkeys(terms.caught, "it had failed, and its error had been caught")
        if start is not None:
            self._asked[start] = "the fork runs again from here"
        # Downstream of ``from_step``, with itself and the steps in whose graphs it is.
        self._cone = {step for step, inner in terms.around.items() if inner == start}
        self._cone |= {start} if start is not None else set()
        self._whole: dict[str, str] = {}  # nothing of their graphs is taken over

    def within(self, plan: Plan, root: str | None = None) -> dict[str, str]:
        """Return the steps of a plan that run again, with the reasons.

        Args:
            plan: the run's plan, or a graph that a step gave.
            root: who gave the graph; None: it is the run's plan.
        """
        if root is not None and root in self._whole:
            found = {step.id: self._whole[root] for step in plan.steps}
            self._whole |= found
            if root in self._cone:
                self._cone |= found.keys()
            return found
        terms, found = self._terms, {}
        if self._cone:
            cone = below(plan, self._cone)
            found = dict.fromkeys(cone, f"the fork runs again from {terms.from_step}")
            self._cone |= cone.keys()
        for step in plan.steps:
            inner = terms.around.get(step.id)
            if reason := self._asked.get(step.id):
                found[step.id] = reason
            elif inner is not None and step.id not in found:
                found[step.id] = f"it gives the graph again that {inner} is in"
        for step in plan.steps:
            if step.id in found and self._is_whole(step):
                self._whole[step.id] = f"{step.id} runs again: {found[step.id]}"
        return found

    def _is_whole(self, step: StepPlan) -> bool:
        """Say whether all of the graph that a step may give runs again.

        Of a map over items of another one only what takes such an item does.
        """
        if step.id in self._asked:
            return True
        values = {ref.step for ref in references(step) if isinstance(ref, FromStep | RefTo)}
        return not values.isdisjoint(self._cone)


def below(plan: Plan, steps: Collection[str]) -> dict[str, str]:
    """Return what consumes, directly or not, a value of ``steps``: by id, the first such step."""
    found: dict[str, str] = {}
    for step in plan.steps:  # in topological order
        roots = (dep if dep in steps else found.get(dep) for dep in upstream(step))
        root = next((root for root in roots if root is not None), None)
        if root is not None:
            found[step.id] = root
    return found
