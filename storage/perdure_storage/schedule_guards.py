"""What must stand before a schedule may change, as pure functions that every store asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from perdure_storage import guards
from perdure_storage.errors import InternalError
from perdure_storage.records import Digest, PlanRecord, Refusal
from perdure_storage.schedule_records import ScheduleChange, TickRecord


def require_distinct(batch: Sequence[ScheduleChange]) -> None:
    """Raise InternalError if a schedule is in the batch twice: the second was not read after it."""
    if len({change.schedule.name for change in batch}) != len(batch):
        raise InternalError("a batch of changes holds the same schedule twice")


def require_consistent(change: ScheduleChange) -> None:
    """Raise InternalError if ticks or runs of a change are another schedule's."""
    name = change.schedule.name
    named = {tick.schedule for tick in change.ticks} | {run.schedule for run in change.runs}
    if not named <= {name}:
        raise InternalError(f"the change of schedule {name!r} holds ticks or runs of another one")


def require_key(change: ScheduleChange) -> None:
    """Raise InternalError if runs are made under a concurrency key that was not read."""
    schedule = change.schedule
    is_read = change.key is not None and change.key.key == schedule.concurrency
    is_needed = schedule.concurrency is not None and not all(run.by_hand for run in change.runs)
    if is_needed and not is_read:
        raise InternalError(f"the concurrency key of schedule {schedule.name!r} was not read")


def require_plan(change: ScheduleChange, plan: PlanRecord | None) -> None:
    """Raise InternalError unless the plan is the one that the schedule names."""
    guards.require_own_plan(_named(change), change.schedule.plan_digest, plan)


def require_storable(change: ScheduleChange) -> None:
    """Raise StoreError if no database could take a row of the change."""
    s = change.schedule
    texts = [s.name, s.definition, s.digest, s.module or "", s.concurrency or "", s.state]
    numbers = [s.wakes_below or 0, *(tick.count for tick in change.ticks)]
    for run in change.runs:
        texts += guards.texts_of_run(run)
        numbers.append(run.priority)
    for tick in change.ticks:
        texts += _texts_of(tick)
    guards.require_storable(_named(change), texts, numbers)


def _texts_of(tick: TickRecord) -> tuple[str, ...]:
    return tick.decision, tick.why, tick.reason, tick.run_id or "", tick.code


def blobs_of_runs(change: ScheduleChange) -> set[Digest]:
    """Return the blobs that the inputs of a change's runs refer to."""
    return guards.blobs_of_runs(change.runs)


def guarded_key(change: ScheduleChange) -> str | None:
    """Return the key that a change guards and raises: the one under which it makes runs."""
    if change.key is None or all(run.by_hand for run in change.runs):
        return None
    return change.key.key


def is_key_as_read(change: ScheduleChange, versions: Mapping[str, int]) -> bool:
    """Say whether nothing was fired under the key of a change since it was read."""
    key = guarded_key(change)
    return key is None or change.key is None or versions[key] == change.key.version


def overtaken(change: ScheduleChange) -> Refusal:
    """Return the refusal of a change under whose concurrency key something else was fired."""
    key = "" if change.key is None else change.key.key
    return Refusal(
        kind="stale",
        message=f"schedule {change.schedule.name!r}: another one of concurrency={key!r} was first",
    )


def stale(change: ScheduleChange, version: int | None) -> Refusal:
    """Return the refusal of a change whose schedule has another version, or is not there."""
    return guards.stale_of(_named(change), change.schedule.version, version)


def condemned(change: ScheduleChange, digests: Iterable[Digest]) -> Refusal:
    """Return the refusal of a change that names blobs which gc is taking."""
    return guards.condemned_of(_named(change), digests)


def rejected(change: ScheduleChange, why: str) -> Refusal:
    """Return the refusal of a change with a row that the store will not take."""
    return Refusal(kind="rejected", message=f"{_named(change)}: {why}")


def _named(change: ScheduleChange) -> str:
    return f"schedule {change.schedule.name!r}"
