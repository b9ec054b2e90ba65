"""What must stand before a schedule may change, as pure functions that every store asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perdure_storage import guards
from perdure_storage.errors import InternalError, StoreError
from perdure_storage.records import Digest, PlanRecord, Refusal
from perdure_storage.schedule_records import ScheduleChange, TickRecord

_LARGEST = 2**63 - 1


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


def require_plan(change: ScheduleChange, plan: PlanRecord | None) -> None:
    """Raise InternalError unless the plan is the one that the schedule names."""
    named = f"schedule {change.schedule.name!r}"
    guards.require_own_plan(named, change.schedule.plan_digest, plan)


def require_storable(change: ScheduleChange) -> None:
    """Raise StoreError if no database could take a row of the change.

    PostgreSQL has no place for NUL in a text, UTF-8 has none for a lone surrogate, and neither
    database has one for an integer of more than 64 bits. All stores refuse alike.
    """
    s = change.schedule
    texts = [s.name, s.definition, s.digest, s.module or "", s.state]
    numbers = [s.wakes_below or 0, *(tick.count for tick in change.ticks)]
    for run in change.runs:
        texts += [run.id, run.workflow, run.origin or "", run.queue or ""]
        numbers.append(run.priority)
    for tick in change.ticks:
        texts += _texts_of(tick)
    try:
        whole = "".join(texts)
        whole.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"schedule {s.name!r} cannot be stored: {error}") from error
    if "\0" in whole or max(map(abs, numbers)) > _LARGEST:
        raise StoreError(
            f"schedule {s.name!r} cannot be stored: a NUL or too large a number is in a row of it"
        )


def _texts_of(tick: TickRecord) -> tuple[str, ...]:
    return tick.decision, tick.why, tick.reason, tick.run_id or "", tick.code


def blobs_of_runs(change: ScheduleChange) -> set[Digest]:
    """Return the blobs that the inputs of a change's runs refer to."""
    return {digest for run in change.runs for digest in guards.blobs_of_inputs(run)}


def stale(change: ScheduleChange, version: int | None) -> Refusal:
    """Return the refusal of a change whose schedule has another version, or is not there."""
    schedule = change.schedule
    if version is None:
        return Refusal(kind="gone", message=f"no schedule {schedule.name!r}")
    return Refusal(
        kind="stale",
        message=f"schedule {schedule.name!r} has version {version}; the change was decided on"
        f" version {schedule.version}",
    )


def condemned(change: ScheduleChange, digests: Iterable[Digest]) -> Refusal:
    """Return the refusal of a change that names blobs which gc is taking."""
    found = tuple(sorted(digests))
    return Refusal(
        kind="condemned",
        message=f"schedule {change.schedule.name!r} refers to {len(found)} blobs that"
        " `perdure gc` is removing now: do the same again",
        digests=found,
    )


def rejected(change: ScheduleChange, why: str) -> Refusal:
    """Return the refusal of a change with a row that the store will not take."""
    return Refusal(kind="rejected", message=f"schedule {change.schedule.name!r}: {why}")
