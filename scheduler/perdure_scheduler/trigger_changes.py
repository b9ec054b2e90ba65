"""From what was decided about arrivals to the rows that say so, in one change; and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from perdure_scheduler import facts
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import Came, Decision, Outcome, TriggerState, stored_key
from perdure_scheduler.conditions import Condition
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.making import run_of
from perdure_scheduler.trigger import Trigger
from perdure_storage.records import RunId, RunRecord, StoredValue
from perdure_storage.trigger_records import ArrivalRecord, TriggerChange, TriggerRecord
from perdure_storage.values import Values

CHAIN = "perdure.triggers"
"""In the metadata of a run: names of the triggers that led to the one that made it."""
ARRIVALS = "perdure.arrivals"
"""In the metadata of a run: keys of the arrivals that it is made of."""


def state_of(record: TriggerRecord) -> TriggerState:
    """Return how far a trigger has come.

    Raises:
        TriggerError: its state cannot be read.
    """
    try:
        return msgspec.json.decode(record.state, type=TriggerState)
    except msgspec.MsgspecError as error:
        raise TriggerError(
            f"the state of trigger {record.name!r} cannot be read ({error}): was it written by "
            "a newer perdure?"
        ) from None


def came_of(
    on: Condition, condition: str, arrival: Arrival, now: datetime, problem: str = ""
) -> Came:
    """Return an arrival that is brought now, with nothing in its facts but JSON.

    Args:
        on: what its trigger waits for.
        condition: which it is for.
        arrival: what was brought.
        now: the time.
        problem: why nothing of it can be kept; "" if it can.
    """
    came = Came(
        key=stored_key(on, condition, arrival.key),
        condition=condition,
        at=now,
        existed=arrival.existed,
        problem=problem,
    )
    if problem:
        return came
    try:
        text = facts.written(arrival.facts)
        known = facts.read_back(text)
    except TriggerError as error:
        return msgspec.structs.replace(came, problem=str(error))
    return msgspec.structs.replace(came, facts=known, text=text, payload=arrival.payload)


def came_back(row: ArrivalRecord) -> Came:
    """Return an arrival that has a row."""
    problem = ""
    try:
        known = facts.read_back(row.facts)
    except TriggerError as error:
        known, problem = {}, str(error)
    return Came(
        key=row.key,
        condition=row.condition,
        at=row.at,
        facts=known,
        text=row.facts,
        payload=row.payload,
        problem=problem,
    )


def change_of(
    record: TriggerRecord,
    trigger: Trigger,
    outcome: Outcome,
    now: datetime,
    values: Values,
    rows: Mapping[str, ArrivalRecord] = {},
    heard: int = 0,
) -> TriggerChange:
    """Return the change that writes an outcome.

    Args:
        record: the trigger as it was read.
        trigger: by which runs are made.
        outcome: what was decided.
        now: the time of the decision.
        values: where inputs go that are facts.
        rows: of earlier arrivals, by key; all that are decided anew are among them.
        heard: number of an event up to which all were looked at.
    """
    after = msgspec.structs.replace(
        record,
        state=outcome.state.to_json(),
        heard=max(record.heard, heard),
        next_at=outcome.wake_at,
        paused=outcome.state.paused is not None,
    )
    told = (*outcome.decisions, *outcome.revised)
    return TriggerChange(
        trigger=after,
        moves=after != record or bool(outcome.revised),
        arrivals=tuple(_row(trigger, each, now) for each in outcome.decisions),
        revised=tuple(
            _revised(trigger, rows[each.came.key], each, now) for each in outcome.revised
        ),
        runs=tuple(run for each in told if (run := _run(trigger, each, now, values)) is not None),
    )


def _row(trigger: Trigger, decision: Decision, now: datetime) -> ArrivalRecord:
    came = decision.came
    row = ArrivalRecord(
        trigger=trigger.name,
        key=came.key,
        condition=came.condition,
        at=came.at,
        facts=came.text,
        payload=came.payload,
        decision="",
        decided_at=now,
    )
    return _revised(trigger, row, decision, now)


def _revised(
    trigger: Trigger, row: ArrivalRecord, decision: Decision, now: datetime
) -> ArrivalRecord:
    return msgspec.structs.replace(
        row,
        decision=str(decision.verdict),
        why=str(decision.why),
        reason=decision.reason,
        decided_at=now,
        run_id=None if decision.run_id is None else RunId(decision.run_id),
        code="" if decision.run_id is None else trigger.run.code,
    )


def _run(trigger: Trigger, decision: Decision, now: datetime, values: Values) -> RunRecord | None:
    if decision.run is None:
        return None
    inputs = dict(trigger.run.inputs)
    for name, value in decision.run.inputs.items():
        is_stored = isinstance(value, StoredValue)
        inputs[name] = value if is_stored else values.store(value, name=name)
    noted = {ARRIVALS: list(decision.run.keys), CHAIN: list(decision.run.chain[:-1])}
    return run_of(
        trigger.run,
        RunId(decision.run.run_id),
        now,
        inputs,
        trigger=trigger.name,
        metadata={name: listed for name, listed in noted.items() if listed},
    )


def chain_of(run: RunRecord) -> list[str]:
    """Return the names of the triggers that led to a run, the one that made it last."""
    before = _noted(run, CHAIN)
    return before if run.trigger is None else [*before, run.trigger]


def arrivals_of(run: RunRecord) -> list[str]:
    """Return the keys of the arrivals that a run is made of."""
    return _noted(run, ARRIVALS)


def _noted(run: RunRecord, name: str) -> list[str]:
    listed = run.metadata.get(name)
    return [str(each) for each in listed] if isinstance(listed, list) else []
