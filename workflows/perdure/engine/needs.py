"""Steps that nobody needs any more: losers of a race are ended, by rows that a resume keeps to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from perdure.engine.commands import Kill
from perdure.engine.growth import descendants
from perdure.engine.matching import match_name
from perdure.engine.state import EngineState, RunState, StepState
from perdure.engine.waits import end_wait
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Cause, StepId, StepRecord


def end_unneeded(
    engine: EngineState,
    run: RunState,
    steps: Iterable[StepState],
    reason: str,
    now: datetime,
    *,
    besides: StepState | None = None,
) -> list[StepState]:
    """End those of ``steps`` that are not done and that nobody needs; return who may move on now.

    Args:
        engine: takes the attempts to kill.
        run: the run.
        steps: the losers.
        reason: why they are not needed.
        now: the time.
        besides: a step whose need of them does not count: it does without them.
    """
    freed: list[StepState] = []
    for step in steps:
        if step.is_done or step.status is StepStatus.FAILED or _is_needed(step, besides):
            continue
        for each in (step, *descendants(run, step)):
            if not each.is_done:
                _stop(engine, run, each)
        step.unneeded = True
        step.reason = reason
        run.outbox.steps.append(_row(run, step, now))
        freed += _count_as_done(run, step)
    return freed


def _is_needed(step: StepState, besides: StepState | None) -> bool:
    takers = (*step.consumers, *step.followers)
    return any(taker is not besides and not taker.is_done for taker in takers)


def _stop(engine: EngineState, run: RunState, step: StepState) -> None:
    calls = tuple(call for call, running in run.running.items() if running is step)
    if calls:
        engine.kills.append(Kill(run.executor, calls, Cause.CANCELLED))
    end_wait(run, step)
    step.status = StepStatus.CANCELLED
    run.unfinished -= 1


def _row(run: RunState, step: StepState, now: datetime) -> StepRecord:
    return StepRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=step.generation,
        status=StepStatus.CANCELLED,
        attempt=step.attempt,
        name=match_name(step.plan),
        own=step.plan.own,
        code=step.code,
        fingerprint=run.fingerprints[step.id],
        caught=True,  # settled: a resume does not begin it again
        finished_at=now,
        reason=step.reason,
    )


def _count_as_done(run: RunState, step: StepState) -> list[StepState]:
    for dep in step.deps:
        run.steps[dep].open_consumers -= 1
    freed = []
    for consumer in step.consumers:
        if consumer.status is StepStatus.PENDING:
            consumer.missing -= 1
            if not consumer.missing:
                freed.append(consumer)
    return freed
