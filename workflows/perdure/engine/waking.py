"""How waits end: a message comes, or the time is over."""

from __future__ import annotations

from datetime import datetime

from perdure.engine.events import Heard
from perdure.engine.needs import end_losers, kill
from perdure.engine.outcomes import fail, of_waiting, progress, succeed
from perdure.engine.racing import STEPS, is_decided, outcome_of, standing
from perdure.engine.state import EngineState, RunState, StepState
from perdure.engine.waits import names_of_waits, next_deadline
from perdure_storage.guards import hears
from perdure_storage.records import (
    Cause,
    Delivery,
    ErrorRecord,
    MessageRecord,
    StepId,
    StoredValue,
    WaitRecord,
)


def on_heard(engine: EngineState, event: Heard, now: datetime) -> None:
    """Deliver messages to the steps that wait for them, first come, first served."""
    run = engine.runs.get(event.run_id)
    if run is None:
        return
    engine.touched[run.id] = None
    # A wait that began since the look may be for others, which nobody would look for again.
    run.unheard = not names_of_waits(run) <= event.names
    for message in event.messages:
        run.heard = max(run.heard, message.id)
        if not any(delivery.message == message.id for delivery in run.outbox.deliveries):
            _deliver(engine, run, message, now)


def _deliver(engine: EngineState, run: RunState, message: MessageRecord, now: datetime) -> None:
    for step in run.waits.values():
        if step.wait is not None and _is_for(step.wait, message):
            delivery = Delivery(message.id, StepId(step.id), step.generation)
            run.outbox.deliveries.append(delivery)
            _end_with(engine, run, step, message.value, now)
            return


def _is_for(wait: WaitRecord, message: MessageRecord) -> bool:
    """Say whether a message ends a wait.

    One that was sent when its time was over does not, though nobody drove the run then and the
    wait still stands: who answers too late must not win by an outage.
    """
    if wait.deadline is not None and message.at > wait.deadline:
        return False
    return hears(wait, message) and all(
        name in message.match and message.match[name] == value for name, value in wait.match.items()
    )


def wake_due(engine: EngineState, run: RunState, now: datetime) -> None:
    """End the waits whose time is over."""
    while (at := next_deadline(run)) is not None and at <= now:
        step = run.steps[run.deadlines[0][2]]
        wait = step.wait
        assert wait is not None
        if wait.default is not None:
            _end_with(engine, run, step, wait.default, now)
        elif wait.kind == STEPS:
            _end_race(engine, run, step, now)
        else:
            run.end_wait(step)
            fail(
                engine, run, step, of_waiting(run, step, Cause.TIMEOUT, _too_late(step, wait)), now
            )


def _end_with(
    engine: EngineState, run: RunState, step: StepState, value: StoredValue, now: datetime
) -> None:
    run.end_wait(step)
    succeed(engine, run, step, of_waiting(run, step, Cause.SUCCEEDED), value, now)


def end_races(engine: EngineState, run: RunState, now: datetime) -> None:
    """End the waits for steps of which enough have ended."""
    while run.arrivals and not run.is_stopping:
        race = run.arrivals.pop()
        if is_decided(run, race):
            _end_race(engine, run, race.step, now)


def _end_race(engine: EngineState, run: RunState, step: StepState, now: datetime) -> None:
    """Commit which steps had ended and which had not; end these if nobody else needs them."""
    record = step.wait
    assert record is not None
    done, pending, _ = standing(run, record.match)
    _end_with(engine, run, step, outcome_of(run, step, engine.encode((done, pending))), now)
    if record.match["cancel_rest"] and step.is_done:
        run.decided[step.id] = record
        losers = end_losers(run, step, now)
        kill(engine, run, losers)
        progress(engine, run, losers.freed, now)


def _too_late(step: StepState, wait: WaitRecord) -> ErrorRecord:
    return ErrorRecord(
        type="perdure.errors.WaitTimeout",
        message=(
            f"no {wait.kind} {wait.name!r} came until {wait.deadline:%Y-%m-%d %H:%M:%S} UTC. Give "
            "default=... for a value in its place, or catch=True for a Failure"
        ),
        cause=Cause.TIMEOUT,
        step_id=step.id,
    )
