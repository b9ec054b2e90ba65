"""From rows to a run in memory: the one constructor, for fresh and resumed runs alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from perdure.calls import CallId
from perdure.engine.advance import adopt
from perdure.engine.matching import Matching
from perdure.engine.state import RunState, StepState
from perdure.plan import Plan
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    RunEnd,
    RunRecord,
    StepKey,
    StepRecord,
)

CAREFUL_TAKEOVERS = 3
"""Owners lost in a row without progress, after which a run's suspects start one at a time."""
MAX_TAKEOVERS = 4
"""... after which the run fails and names them."""


def load_run(
    record: RunRecord,
    plan: Plan,
    fingerprints: Mapping[str, str],
    *,
    rows: Sequence[StepRecord] = (),
    attempts: Sequence[AttemptRecord] = (),
    own: Matching,
    donated: Matching | None = None,
    now: datetime,
) -> RunState:
    """Build the state of a run from its rows: the one constructor, for fresh and resumed runs.

    Args:
        record: the run's row, just claimed.
        plan: its plan.
        fingerprints: of the plan's steps, by step id.
        attempts: every attempt of the run.
        rows: every step row of the run, history included.
        own: how the run's current rows match the plan.
        donated: how the rows of ``record.reuse_from`` match it, but for what is to be fresh.
        now: the time of the load, for the rows that it makes.
    """
    run = RunState(record, plan, fingerprints)
    _number_generations(run, rows, attempts)
    _restore_rows(run, rows, own)
    _adopt(run, own, f"unchanged in {record.id}", now)
    if donated is not None:
        held = {**donated.adopted, **donated.kept}
        _adopt_rows(run, held, f"taken over from {record.reuse_from}", now)
        _set_candidates(run, donated)
    _restore_attempts(run, attempts, now)
    if record.forked_from is not None and record.reuse_from is None:
        _explain_again(run, f"{record.forked_from} is run again from the start")
    for step in run.steps.values():
        step.missing = sum(not run.steps[dep].is_done for dep in step.deps)
        step.open_consumers = sum(not consumer.is_done for consumer in step.consumers)
    _look_at_takeovers(run)
    return run


def _number_generations(
    run: RunState, rows: Iterable[StepRecord], attempts: Iterable[AttemptRecord]
) -> None:
    """Continue after the newest ended generation; an unfinished one goes on where it stood."""
    ended: dict[str, int] = {}
    for row in rows:
        ended[row.step_id] = max(ended.get(row.step_id, 0), row.generation)
    for step_id, generation in ended.items():
        if step_id in run.steps:
            run.steps[step_id].generation = generation + 1
    for attempt in attempts:
        step = run.steps.get(attempt.step_id)
        if step is not None and attempt.generation > step.generation:
            step.generation = attempt.generation


def _restore_rows(run: RunState, rows: Iterable[StepRecord], own: Matching) -> None:
    for step_id, row in own.kept.items():
        step = run.steps[step_id]
        step.status = StepStatus.SUCCEEDED
        step.generation, step.attempt = row.generation, row.attempt
        step.value, step.inputs, step.reason = row.value, row.inputs, row.reason
        run.unfinished -= 1
    for row in rows:
        if row.current and row.status is StepStatus.FAILED and row.step_id in run.steps:
            step = run.steps[row.step_id]
            step.status, step.generation = StepStatus.FAILED, row.generation
            run.failure = run.failure or row.error


def _adopt(run: RunState, own: Matching, reason: str, now: datetime) -> None:
    run.outbox.superseded += [StepKey(row.step_id, row.generation) for row in own.obsolete]
    _adopt_rows(run, own.adopted, reason, now)
    _set_candidates(run, own)


def _explain_again(run: RunState, reason: str) -> None:
    for step in run.steps.values():
        if not step.is_done:
            step.reason = step.reason or reason


def _set_candidates(run: RunState, matching: Matching) -> None:
    for step_id, rows in matching.candidates.items():
        run.steps[step_id].candidates += rows
    for step_id, reason in matching.reasons.items():
        run.steps[step_id].reason = reason


def _adopt_rows(run: RunState, rows: Mapping[str, StepRecord], reason: str, now: datetime) -> None:
    for step_id in sorted(rows, key=lambda step_id: run.steps[step_id].position):
        step = run.steps[step_id]
        if not step.is_done:
            adopt(run, step, rows[step_id], reason, now)
            run.unfinished -= 1


def _restore_attempts(run: RunState, attempts: Iterable[AttemptRecord], now: datetime) -> None:
    """Count budgets already spent, and close the tries that were cut off by a dead owner."""
    suspects: dict[str, None] = {}
    for attempt in attempts:
        step = run.steps.get(attempt.step_id)
        if step is None or attempt.generation != step.generation or step.is_done:
            continue
        step.attempt = max(step.attempt, attempt.attempt)
        count_cause(step, attempt.cause)
        step.not_before = attempt.not_before
        if attempt.cause is None:
            suspects[step.id] = None
            call = CallId(run.id, step.id, attempt.generation, attempt.attempt)
            run.outbox.attempts[call] = _abandoned(attempt, now)
        elif attempt.cause is Cause.ABANDONED:
            suspects[step.id] = None
    run.suspects = tuple(suspects)


def count_cause(step: StepState, cause: Cause | None) -> None:
    """Charge the budget that this cause spends."""
    if cause in (Cause.USER_ERROR, Cause.TIMEOUT):
        step.user_errors += 1
    elif cause is Cause.WORKER_LOST:
        step.losses += 1
    elif cause is Cause.OUT_OF_MEMORY:
        step.out_of_memory += 1


def _abandoned(attempt: AttemptRecord, now: datetime) -> AttemptRecord:
    return AttemptRecord(
        run_id=attempt.run_id,
        step_id=attempt.step_id,
        generation=attempt.generation,
        attempt=attempt.attempt,
        cause=Cause.ABANDONED,
        worker=attempt.worker,
        started_at=attempt.started_at,
        finished_at=now,
    )


def _look_at_takeovers(run: RunState) -> None:
    """Treat a run with care whose owners die; without a step that ran then, none is to blame."""
    if not run.suspects:
        return
    if run.record.takeovers >= MAX_TAKEOVERS:
        names = ", ".join(run.suspects)
        run.ending = RunEnd(
            status=RunStatus.FAILED,
            error=ErrorRecord(
                type="perdure.errors.WorkerLost",
                message=(
                    f"{run.record.takeovers} processes in a row died while they drove this run, "
                    f"without a single commit. Running when the last one died: {names}. Likely its "
                    "native code crashes, or it needs more memory than there is"
                ),
                cause=Cause.WORKER_LOST,
                step_id=run.suspects[0],
            ),
        )
    run.one_at_a_time = run.record.takeovers >= CAREFUL_TAKEOVERS
