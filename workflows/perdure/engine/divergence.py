"""A value that was rebuilt and came out another than the one that committed steps consumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from perdure.engine.advance import begin_again
from perdure.engine.readers import differs
from perdure.engine.state import RunState, StepState
from perdure.plan import FromStep
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Cause, ErrorRecord, EventRecord, StepId, StepKey


def diverged_consumers(run: RunState, step: StepState) -> list[StepState]:
    """Return committed consumers that provably consumed another value than the rebuilt one."""
    assert step.value is not None
    diverged = []
    for consumer in step.consumers:
        if consumer.status is not StepStatus.SUCCEEDED:
            continue
        for ref, old in zip(consumer.refs, consumer.inputs, strict=True):
            if isinstance(ref, FromStep) and ref.step == step.id and differs(step.value, ref, old):
                diverged.append(consumer)
                break
    return diverged


def may_diverge(run: RunState, step: StepState, names: Sequence[str], now: datetime) -> bool:
    """Say whether the run's policy lets it go on with the new value; note that it does."""
    policy = run.record.policy.on_divergence
    if policy == "fail":
        return False
    run.outbox.events.append(
        EventRecord(
            kind="diverged",
            at=now,
            step_id=StepId(step.id),
            detail={"consumers": list(names), "policy": policy},
        )
    )
    return True


def recompute(run: RunState, step: StepState, reason: str) -> Iterator[StepState]:
    """Begin a step again, and those that have its value in place of their own; yield them."""
    each: StepState | None = step
    while each is not None and each.is_done:
        run.outbox.lose(StepKey(StepId(each.id), each.generation))
        begin_again(run, each, reason)
        yield each
        each = each.answers


def error_of_divergence(step: StepState, names: Sequence[str]) -> ErrorRecord:
    """Return the error with which a step ends whose new value may not be mixed with the old one."""
    return ErrorRecord(
        type="perdure.errors.NondeterminismError",
        message=(
            f"step {step.id} was rebuilt and gave another value than the one that "
            f"{', '.join(names)} "
            "consumed. Make it deterministic or checkpoint it, or resume with "
            'on_divergence="recompute" (runs them again) or "keep" (accepts the mix)'
        ),
        cause=Cause.ENGINE_ERROR,
        step_id=step.id,
    )
