"""What changed first, for a step of which only something upstream did: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from perdure.engine.state import part_digest
from perdure.plan import FromInput, Reference, StepPlan, references, upstream
from perdure_storage.records import StepRecord, StoredValue

_TOLD = 2


class Roots:
    """The first changes above the steps of a plan, which are asked about in topological order.

    Args:
        inputs: the run's inputs today; None if they are not known.
    """

    def __init__(self, inputs: Mapping[str, StoredValue] | None) -> None:
        self._inputs = inputs
        self._found: dict[str, dict[str, None]] = {}

    def note(self, step: StepPlan, change: str) -> None:
        """Note a step that changed by itself."""
        self._found[step.id] = {change: None}

    def why(self, step: StepPlan, row: StepRecord) -> str:
        """Say why a step whose own code and arguments hold does not, and note it.

        Args:
            step: the step.
            row: what it consumed when it was committed.
        """
        refs = references(step)
        changed = self._parameters(refs, row)
        above = upstream(step)
        roots = {root: None for dep in above for root in self._found.get(dep, ())}
        told = list(changed | roots)  # each once: what it takes may have changed a step above too
        self._found[step.id] = dict.fromkeys(told)
        if changed and not roots:
            return f"{_list(told)} changed"
        if not above:
            return "an input of the run changed"
        return f"something upstream changed{f': {_list(told)}' if told else ''}"

    def _parameters(self, refs: Iterable[Reference], row: StepRecord) -> dict[str, None]:
        """Return the parameters of the run that are not what the row consumed."""
        refs = list(refs)
        if self._inputs is None or len(refs) != len(row.inputs):
            return {}
        return {
            f"parameter {ref.name}": None
            for ref, consumed in zip(refs, row.inputs, strict=True)
            if isinstance(ref, FromInput)
            and ref.name in self._inputs
            and part_digest(self._inputs[ref.name], ref.path) != consumed
        }


def _list(changes: list[str]) -> str:
    more = f" and {len(changes) - _TOLD} more" if len(changes) > _TOLD else ""
    return ", ".join(changes[:_TOLD]) + more
