"""Committed results that a plan of today would not give: what ``on_change="fail"`` refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from perdure.engine.edits import Edits
from perdure.engine.growth import rows_of_graphs
from perdure.engine.loading import functions_of
from perdure.engine.matching import match_name, match_rows
from perdure.errors import RunConflict
from perdure.fingerprint import fingerprints
from perdure.plan import Plan, recorded_plan
from perdure_storage.lifecycle import StepStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunRecord, StepRecord, StoredValue

_SHOWN = 3


def refuse_changes(
    store: RunStore, record: RunRecord, plan: Plan, inputs: Mapping[str, StoredValue]
) -> None:
    """Raise RunConflict if a committed step of a run would run again for ``plan``.

    A step that failed may have been mended, calls may have been inserted or removed: nothing
    committed is given up for that.

    Args:
        store: where the run is.
        record: the run.
        plan: what it, or a run that takes over from it, would be today.
        inputs: of that plan.
    """
    look = _Look(store, record, plan, inputs)
    _refuse(record, [*look.changed_steps(), *look.changed_graphs()])


def refuse_changed_steps(store: RunStore, record: RunRecord, plan: Plan) -> None:
    """Raise it if a committed step of the run's own graph would run again.

    For a run that goes on with today's code: items of its maps hold, whatever their code is.
    """
    _refuse(record, [*_Look(store, record, plan, record.inputs).changed_steps()])


def _refuse(record: RunRecord, changed: list[tuple[str, str]]) -> None:
    if changed:
        told = [f"{step}: {reason}" for step, reason in changed[:_SHOWN]]
        raise RunConflict(
            f"run {record.id!r} has changed ({'; '.join(told)}"
            f"{', ...' if len(changed) > _SHOWN else ''}), and on_change='fail'. Put the code "
            "back, or say on_change='recompute' (runs what changed) or 'reuse' (keeps results)"
        )


class _Look:
    """A run beside what it would be today."""

    def __init__(
        self,
        store: RunStore,
        record: RunRecord,
        plan: Plan,
        inputs: Mapping[str, StoredValue],
    ) -> None:
        recorded = recorded_plan(store, record)
        rows, self._grown = rows_of_graphs(
            store.list_steps(record.id), store.list_expansions(record.id)
        )
        self._rows = [row for row in rows if _is_committed(row)]
        self._plan = plan
        self._before = fingerprints(recorded, record.inputs)
        self._now = fingerprints(plan, inputs)
        self._matching = match_rows(
            plan,
            self._now,
            rows,
            edits=Edits(functions_of(store, record.plan_digest)),
            inputs=inputs,
        )

    def changed_steps(self) -> Iterator[tuple[str, str]]:
        """Yield steps that would run in place of a committed one of their name, with reasons."""
        matching = self._matching
        holding = {id(row) for row in (*matching.kept.values(), *matching.adopted.values())}
        given_up = Counter(row.name for row in self._rows if id(row) not in holding)
        for step in self._plan.steps:
            if step.id in matching.reasons and given_up[match_name(step)]:
                given_up[match_name(step)] -= 1
                yield step.id, matching.reasons[step.id]

    def changed_graphs(self) -> Iterator[tuple[str, str]]:
        """Yield steps without a value that gave a graph of which something is committed."""
        committed = {row.step_id for row in self._rows}
        for step_id, members in self._grown.items():
            is_other = step_id in self._now and self._now[step_id] != self._before.get(step_id)
            if is_other and step_id not in committed and any(map(_is_committed, members)):
                yield step_id, "its code, or what it consumes, changed, and so what it gave"


def _is_committed(row: StepRecord) -> bool:
    return row.current and row.status is StepStatus.SUCCEEDED
