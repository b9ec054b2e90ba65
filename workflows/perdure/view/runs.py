"""Runs and steps as people see them: plain data, the same for tables, ``--json`` and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from perdure import story
from perdure.hosts import waits_for_host
from perdure.progress.causes import how_long, standing_of
from perdure.view.model import (
    AttemptView,
    ErrorView,
    GroupView,
    Preview,
    ProgressView,
    RunView,
    StepView,
)
from perdure_scheduler.schedule import nominal_of
from perdure_scheduler.trigger_changes import arrivals_of, chain_of
from perdure_storage.records import Cause, RunId

if TYPE_CHECKING:
    from perdure.runs import Run, Step
    from perdure.runtime import Runtime
    from perdure.story import Siblings
    from perdure_storage.records import AttemptRecord, ErrorRecord, Progress, RunRecord


def view_run(run: Run, siblings: Siblings | None = None) -> RunView:
    """Return a run as its store has it now.

    Args:
        run: the run.
        siblings: its steps, where they and what is about them are wanted.
    """
    record = run.record
    view = _view(run.runtime, record)
    return view if siblings is None else _with_steps(view, run, record, siblings)


def view_runs(runs: Sequence[Run]) -> list[RunView]:
    """Return runs, all of one store, as it has them now, in one look; what is gone is left out."""
    if not runs:
        return []
    runtime = runs[0].runtime
    found = {row.id: row for row in runtime.store.find_runs([RunId(run.id) for run in runs])}
    return [_view(runtime, found[RunId(run.id)]) for run in runs if run.id in found]


def statuses_of(runtime: Runtime, run_ids: Iterable[RunId | None]) -> dict[str, str]:
    """Return how those of some runs stand that are there, by id, in one look."""
    from perdure.runs import status_of

    wanted = {run_id for run_id in run_ids if run_id is not None}
    found = runtime.store.find_runs(wanted) if wanted else []
    return {row.id: str(status_of(row)) for row in found}


def _view(runtime: Runtime, record: RunRecord) -> RunView:
    from perdure.runs import metadata_of, status_of

    return RunView(
        id=record.id,
        workflow=record.workflow,
        status=str(status_of(record)),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        origin=record.origin,
        inputs={name: read_preview(value.preview) for name, value in record.inputs.items()},
        tags=record.tags,
        metadata=metadata_of(record),
        parent=record.parent,
        forked_from=record.forked_from,
        schedule=record.schedule,
        nominal=nominal_of(record.schedule, record.id) if record.schedule is not None else None,
        by_hand=record.id.startswith(f"{record.schedule}-manual-"),
        trigger=record.trigger,
        arrivals=arrivals_of(record),
        led_by=chain_of(record)[:-1],
        queue=record.queue,
        limit_key=record.limit_key,
        priority=record.priority,
        waits_for_host=waits_for_host(runtime.store, record),
        deadline=record.deadline,
        error=view_error(record.error),
    )


def _with_steps(view: RunView, run: Run, record: RunRecord, siblings: Siblings) -> RunView:
    from perdure.results import find_item

    there = siblings.steps
    steps = [view_step(step, siblings) for step in there]
    failed = record.error.step_id if record.error is not None else None
    if failed is not None:
        item = find_item(run.runtime, record, failed)
        view = msgspec.structs.replace(view, error=view_error(record.error, item))
    whole = group_steps([msgspec.structs.replace(step, name="") for step in steps])
    counts = whole[0] if whole else None
    return msgspec.structs.replace(
        view,
        steps=steps,
        driver=_driver(run, record),
        unplanned=run.unplanned,
        waits_in_line=run.waits_in_line,
        next=_next(run, view, there),
        done=counts.done if counts else 0,
        running=counts.running if counts else 0,
        failed=counts.failed if counts else 0,
        waiting=counts.waiting if counts else 0,
        total=len(steps),
    )


def _next(run: Run, view: RunView, steps: Sequence[Step]) -> str:
    """Return what to type: to go on with a run, or to redo what failed of it and was caught."""
    if view.status in _STOPPED:
        return run.next_command
    if run.unplanned:
        return run.plan_command
    if view.status == "WAITING":
        return _awaited(run, steps)
    caught = _count_caught(steps)
    if view.status != "SUCCEEDED" or not caught:
        return ""
    failures = "1 failure was" if caught == 1 else f"{caught:,} failures were"
    return f"{failures} caught; redo what failed, and keep the rest: {run.mend_command}"


def _awaited(run: Run, steps: Sequence[Step]) -> str:
    """Return how to send the first signal that a run waits for; "" if it waits for none."""
    from perdure.progress.causes import of_wait

    now = run.runtime.clock.now()
    waits = (step.wait for step in steps if step.status == "WAITING" and step.wait is not None)
    signals = (each for each in waits if each.kind == "signal")
    told = next((of_wait(each, run.signal_command, now=now) for each in signals), "")
    return f"it waits for {told}" if told else ""


def _count_caught(steps: Sequence[Step]) -> int:
    from perdure.grown import Grown, caught_failures

    grown = Grown(roots={step.id: step.root for step in steps if step.root is not None})
    rows = [step.row for step in steps if step.row is not None]
    return len(caught_failures(rows, grown.around))


def _driver(run: Run, record: RunRecord) -> str | None:
    from perdure.engine.ownership import driver_of

    return driver_of(record) if run.is_driven else None


def group_steps(steps: Iterable[StepView]) -> list[GroupView]:
    """Return the steps counted by name, in the order in which the names come first."""
    groups: dict[str, list[StepView]] = {}
    for step in steps:
        groups.setdefault(step.name, []).append(step)
    return [_group(name, members) for name, members in groups.items()]


def _group(name: str, steps: list[StepView]) -> GroupView:
    statuses = Counter(step.status for step in steps)
    done = sum(statuses[status] for status in _DONE)
    durations = sorted(step.duration_s for step in steps if step.duration_s is not None)
    return GroupView(
        name=name,
        total=len(steps),
        done=done,
        failed=statuses["FAILED"],
        running=statuses["RUNNING"],
        waiting=len(steps) - done - statuses["FAILED"] - statuses["RUNNING"],
        duration_s=durations[len(durations) // 2] if durations else None,
    )


_DONE = ("SUCCEEDED", "SKIPPED")
_STOPPED = ("FAILED", "CANCELLED", "INTERRUPTED", "PAUSED")


def view_step(step: Step, siblings: Siblings) -> StepView:
    """Return a step as it stood when it was asked for.

    Args:
        step: the step.
        siblings: all steps of its run.
    """
    from perdure.engine.matching import family_of

    return StepView(
        id=step.id,
        status=str(step.status),
        standing=standing_of(step),
        name=family_of(step.plan),
        attempts=len(step.attempts),
        waited_s=story.waited_s(step, siblings),
        duration_s=_seconds(step.duration),
        worker=step.attempts[-1].worker if step.attempts else "",
        peak_memory_bytes=step.row.peak_memory_bytes if step.row is not None else None,
        progress=view_progress(step.attempts[-1].progress if step.attempts else None),
        saved=[save.at for save in step.saves],
        preview=step.preview,
        reason=siblings.left.get(step.id, "") or _reason(step),
        left=step.is_left,
        error=_own_error(step, siblings),
    )


def _own_error(step: Step, siblings: Siblings) -> ErrorView | None:
    from perdure.results import item_of

    if step.error is None:  # of nearly all
        return None
    return view_error(step.error, item_of(step.plan, step.graph.constants, siblings.values))


def _reason(step: Step) -> str:
    """Return why a step ran, did not, or what it waits for."""
    from perdure.progress.causes import of_wait

    if step.row is not None:
        return step.row.reason
    if step.wait is None:
        return _how_far(step)
    return f"waits for {of_wait(step.wait, now=step.run.runtime.clock.now())}"


def _how_far(step: Step) -> str:
    """Return how far a step says that it is, and what its next attempt would go on from."""
    from perdure.progress.causes import how_far, of_saves

    last = step.attempts[-1] if step.attempts else None
    is_told = last is not None and last.cause is None and last.progress is not None
    told = how_far(last.progress) if is_told else ""  # type: ignore[union-attr, arg-type]
    return "; ".join(filter(None, [told, of_saves(step.saves)]))


def view_attempts(step: Step, siblings: Siblings) -> list[AttemptView]:
    """Return every try of a step."""
    gave = story.given_by(step, siblings)
    return [
        _view_attempt(each, gave if each.cause is Cause.SUCCEEDED else "") for each in step.attempts
    ]


def _view_attempt(attempt: AttemptRecord, gave: str) -> AttemptView:
    return AttemptView(
        step=attempt.step_id,
        generation=attempt.generation,
        attempt=attempt.attempt,
        cause=None if attempt.cause is None else attempt.cause.value,
        gave=gave,
        worker=attempt.worker,
        started_at=attempt.started_at,
        duration_s=_seconds(how_long(attempt)),
        peak_memory_bytes=attempt.peak_memory_bytes,
        progress=view_progress(attempt.progress),
        error=view_error(attempt.error),
    )


def view_progress(progress: Progress | None) -> ProgressView | None:
    """Return how far an attempt said that it was."""
    if progress is None:
        return None
    return ProgressView(
        done=progress.done,
        total=progress.total,
        message=progress.message,
        at=progress.at,
        item=progress.item,
    )


def view_error(error: ErrorRecord | None, item: str = "") -> ErrorView | None:
    """Return an error as data, with the item of a map that it is of; nothing is unpickled."""
    if error is None:
        return None
    return ErrorView(
        type=error.type,
        message=error.message,
        cause=error.cause.value,
        step=error.step_id,
        item=item,
        traceback=error.traceback,
    )


def read_preview(text: str) -> Preview | None:
    """Return what a value looked like, from what was noted with it."""
    return msgspec.json.decode(text, type=Preview) if text else None


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
