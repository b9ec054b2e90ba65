"""From what was decided about a schedule to the rows that say so, in one change."""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure_scheduler.decide import (
    ASKED_FOR,
    Ahead,
    Outcome,
    Runs,
    ScheduleState,
    TickDecision,
    Verdict,
)
from perdure_scheduler.definition import Definition
from perdure_scheduler.errors import ScheduleError
from perdure_storage.records import RunId
from perdure_storage.schedule_records import (
    KeyVersion,
    ScheduleChange,
    ScheduleRecord,
    ScheduleRuns,
    TickRecord,
)
from perdure_storage.values import Values


def state_of(record: ScheduleRecord) -> ScheduleState:
    """Return how far a schedule has come.

    Raises:
        ScheduleError: its state cannot be read.
    """
    try:
        return msgspec.json.decode(record.state, type=ScheduleState)
    except msgspec.MsgspecError as error:
        raise ScheduleError(
            f"the state of schedule {record.name!r} cannot be read ({error}): was it written by "
            "a newer perdure?"
        ) from None


def runs_for(runs: ScheduleRuns) -> Runs:
    """Return what the store knows of a schedule's runs as policies ask for it."""
    first = runs.first
    return Runs(
        live=tuple(runs.live),
        of_others={str(run_id): name for run_id, name in runs.of_others.items()},
        failed_in_a_row=runs.failed_in_a_row,
        ahead=None if first is None else Ahead(since=first.since, schedule=first.schedule),
    )


def change_of(
    record: ScheduleRecord,
    definition: Definition,
    outcome: Outcome,
    now: datetime,
    values: Values,
    *,
    key: KeyVersion | None = None,
    rewritten: tuple[TickRecord, ...] = (),
) -> ScheduleChange:
    """Return the change that writes an outcome.

    Args:
        record: the schedule as it was read, with whatever else is new in it.
        definition: by which runs are made.
        outcome: what was decided.
        now: the time of the decision.
        values: where inputs go that only the tick knows.
        key: the concurrency key, as it was read with the runs.
        rewritten: older rows of the ledger as they are from now on.
    """
    state = outcome.state
    runs = [
        definition.run_of(each.run_id, each.at, now, values, by_hand=each.why in ASKED_FOR)
        for each in outcome.decisions
        if each.run_id is not None
    ]
    return ScheduleChange(
        schedule=msgspec.structs.replace(
            record,
            state=msgspec.json.encode(state).decode(),
            next_at=outcome.wake_at,
            wakes_below=None if (since := _waits_since(state)) is None else 1,
            waits_since=since,
            paused=state.paused is not None,
            ended=bool(state.ended) and not state.waiting,
        ),
        ticks=(*rewritten, *(_tick(definition, each, now) for each in outcome.decisions)),
        runs=tuple(runs),
        cancels=tuple(RunId(name) for each in outcome.decisions for name in each.cancels),
        key=key,
    )


def _waits_since(state: ScheduleState) -> datetime | None:
    """Return the nominal time of the tick that the end of a run lets go first, if any waits."""
    if state.paused is not None:
        return None
    return state.waiting[0] if state.waiting else state.held


def _tick(definition: Definition, decision: TickDecision, now: datetime) -> TickRecord:
    fires = decision.verdict is Verdict.FIRE
    return TickRecord(
        schedule=definition.schedule.name,
        at=decision.at,
        last=decision.last if decision.last != decision.at else None,
        count=decision.count,
        decision=str(decision.verdict),
        why=str(decision.why),
        reason=decision.reason,
        decided_at=now,
        run_id=RunId(decision.run_id) if decision.run_id is not None else None,
        code=definition.run.code if fires else "",
    )
