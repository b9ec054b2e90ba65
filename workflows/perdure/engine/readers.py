"""Steps that consumed a value in a graph that is not part of the state: who gave it is done.

A map that is complete leaves its items out of the state. Should a value that they had read be
rebuilt as another, they have to be known all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from perdure.engine.again import below
from perdure.engine.growth import outside, plan_of
from perdure.engine.state import OPAQUE, RunState, StepState, part_digest
from perdure.fingerprint import fingerprints
from perdure.plan import FromStep, StepPlan, references
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StepId, StepKey, StepRecord, StoredValue


def differs(value: StoredValue, ref: FromStep, consumed: str) -> bool:
    """Say whether what is taken of a value is provably not what was consumed."""
    new = part_digest(value, ref.path)
    return new != consumed and not new.startswith(OPAQUE) and not consumed.startswith(OPAQUE)


def find_readers(run: RunState, step: StepState) -> dict[str, list[StepRecord]]:
    """Return the rows of those that read another value of the step than it has now, by root."""
    assert step.value is not None
    if step.generation == 1 or not run.dormant:  # nothing was rebuilt, or nobody is away
        return {}
    found: dict[str, list[StepRecord]] = defaultdict(list)
    for root_id, member in _readers(run).get(step.id, ()):
        row = _row_of(run, root_id, member)
        if root_id not in run.dormant or row is None or not _may_hold(run, root_id, row):
            continue
        for ref, old in zip(references(member), row.inputs, strict=True):
            if isinstance(ref, FromStep) and ref.step == step.id and differs(step.value, ref, old):
                found[root_id].append(row)
                break
    return found


def let_go(run: RunState, readers: Mapping[str, list[StepRecord]]) -> list[StepState]:
    """Let the readers' rows, and what is below them, hold no longer; return who gives them again.

    Those that gave their graphs: when they give them again, what was let go of runs.
    """
    roots = []
    for root_id, rows in readers.items():
        plan = plan_of(run.dormant[root_id])
        ids = {str(row.step_id) for row in rows}
        stale = ids | below(plan, ids).keys()
        for row in run.grown.get(root_id, ()):
            if row.step_id in stale and row.current and row.status is StepStatus.SUCCEEDED:
                run.outbox.lose(StepKey(StepId(row.step_id), row.generation))
        run.grown[root_id] = [
            msgspec.structs.replace(row, status=StepStatus.LOST, current=False)
            if row.step_id in stale
            else row
            for row in run.grown.get(root_id, ())
        ]
        if run.steps[root_id].is_done:
            roots.append(run.steps[root_id])
    return roots


def _readers(run: RunState) -> dict[str, list[tuple[str, StepPlan]]]:
    """Return who reads what from outside of the graphs that are away: looked up once a load."""
    if run.readers is None:
        run.readers = defaultdict(list)
        for root_id, expansion in run.dormant.items():
            plan = plan_of(expansion)
            away = set(outside(plan)) if root_id in run.steps else set[str]()
            for member in plan.steps if away else ():
                for name in {ref.step for ref in references(member) if isinstance(ref, FromStep)}:
                    if name in away:
                        run.readers[name].append((root_id, member))
    return run.readers


def _may_hold(run: RunState, root_id: str, row: StepRecord) -> bool:
    """Say whether a row may stand again where who gave its graph is to give it once more.

    Not one of before an edit of what it took: that is another step now, and was not rebuilt.
    """
    if run.steps[root_id].is_done:
        return True
    if root_id not in run.prints_away:
        plan = plan_of(run.dormant[root_id])
        is_known = all(name in run.fingerprints for name in outside(plan))
        prints = fingerprints(plan, {}, run.fingerprints) if is_known else {}
        run.prints_away[root_id] = prints
    return run.prints_away[root_id].get(row.step_id, row.fingerprint) == row.fingerprint


def _row_of(run: RunState, root_id: str, member: StepPlan) -> StepRecord | None:
    rows = (
        row
        for row in run.grown.get(root_id, ())
        if row.step_id == member.id and row.current and row.status is StepStatus.SUCCEEDED
    )
    return next(rows, None)
