"""The decisions: facts in, rows and commands out. No clock, thread, file, database or chance.

``decide`` changes the states that it is given and returns what is to be written and done. Called
with the same states, events and time it does the same. The caller makes the commits durable
before it acts on the rest; should a commit be refused, it throws the run's state away and loads
it again from rows, so nothing here ever has to be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from perdure.engine.commands import Asleep, HandOver, Kill, Turn, Verify
from perdure.engine.events import (
    CancelRequested,
    Ended,
    Event,
    Heard,
    Leaving,
    OwnershipLost,
    PauseRequested,
    RenewedLate,
    Saved,
    Verified,
)
from perdure.engine.outcomes import on_ended, on_verified, progress
from perdure.engine.placing import first_ready, place
from perdure.engine.salvage import unseen_results
from perdure.engine.saves import on_saved, spend_all
from perdure.engine.state import EngineState, RunState
from perdure.engine.waits import LINGER, can_end, next_deadline
from perdure.engine.waking import end_races, on_heard, wake_due
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Cause, ErrorRecord, EventRecord, RunEnd


def take_on(engine: EngineState, run: RunState, now: datetime) -> None:
    """Add a loaded run; the next ``decide`` starts it."""
    engine.runs[run.id] = run
    run.number = engine.next_number()
    engine.touched[run.id] = None
    if run.record.deadline is not None:
        heappush(engine.timers, (run.record.deadline, run.id))
    progress(engine, run, list(run.steps.values()), now)


def decide(engine: EngineState, events: Iterable[Event], now: datetime) -> Turn:
    """Work a batch of events into the states and say what is to be written and done."""
    for event in events:
        _HANDLERS[type(event)](engine, event, now)
    _wake_delayed(engine, now)
    for run_id in list(engine.touched):
        if run_id in engine.runs:
            end_races(engine, engine.runs[run_id], now)
    left_behind = engine.take_left()  # first: what they held may be given out now
    placed = place(engine, now)
    over = _finish_runs(engine, now)
    commits = []
    for run_id in engine.touched:
        run = engine.runs.get(run_id)
        commit = run.outbox.take(run) if run is not None else None
        if commit is not None:
            commits.append(commit)
    left = (*over.ended, *over.parked, *over.handed_back, *(s.record.id for s in over.asleep))
    for run_id in left:
        engine.end_run(run_id)
    return _empty(
        engine,
        commits=tuple(commits),
        retire=(*left_behind, *placed.retire),
        dispatch=placed.dispatch,
        **over._asdict(),
    )


def _empty(engine: EngineState, **fields: tuple[object, ...]) -> Turn:
    turn = msgspec.structs.replace(
        Turn(
            quarantine=tuple(engine.quarantine),
            extend=tuple(engine.extensions),
            kill=tuple(engine.kills),
            hand_over=tuple(engine.hand_overs),
            forget=tuple(engine.forget),
            dropped=tuple(engine.dropped),
        ),
        **fields,
    )
    engine.touched.clear()
    engine.extensions.clear()
    engine.kills.clear()
    engine.hand_overs.clear()
    engine.quarantine.clear()
    engine.forget.clear()
    engine.dropped.clear()
    return turn


# --- requests ---------------------------------------------------------------------------------
def _on_cancel(engine: EngineState, event: CancelRequested, now: datetime) -> None:
    if run := engine.runs.get(event.run_id):
        _begin_ending(engine, run, RunEnd(status=RunStatus.CANCELLED), Cause.CANCELLED)


def _begin_ending(engine: EngineState, run: RunState, end: RunEnd, cause: Cause) -> None:
    engine.touched[run.id] = None
    if run.ending is None:
        run.ending = end
        if calls := (*run.running, *engine.made_for(run.id)):
            engine.kills.append(Kill(run.executor, calls, cause))


def _on_pause(engine: EngineState, event: PauseRequested, now: datetime) -> None:
    if run := engine.runs.get(event.run_id):
        run.paused = event.paused
        if run.paused and run.running:
            engine.hand_overs.append(HandOver(run.executor, tuple(run.running)))
        engine.touched[run.id] = None


def _on_leaving(engine: EngineState, event: Leaving, now: datetime) -> None:
    for run in engine.runs.values():
        run.handed_back = True
        engine.touched[run.id] = None
        if run.running:
            engine.hand_overs.append(HandOver(run.executor, tuple(run.running)))


def _on_renewed_late(engine: EngineState, event: RenewedLate, now: datetime) -> None:
    """Tell it in the story of each run: somebody else might have taken it over in between."""
    told = EventRecord(kind="lease late", at=now, detail={"silent_s": round(event.silent_s, 1)})
    for run in engine.runs.values():
        run.outbox.events.append(told)
        engine.touched[run.id] = None


def _on_ownership_lost(engine: EngineState, event: OwnershipLost, now: datetime) -> None:
    run = engine.runs.get(event.run_id)
    if run is None:
        return
    engine.end_run(run.id)
    engine.dropped.append(run.id)
    for call, step in run.running.items():
        engine.orphans[call] = (run.executor, step.shape)
    if run.running:
        engine.kills.append(Kill(run.executor, tuple(run.running), Cause.ABANDONED))


# --- time -------------------------------------------------------------------------------------
def _wake_delayed(engine: EngineState, now: datetime) -> None:
    while engine.timers and engine.timers[0][0] <= now:
        run = engine.runs.get(heappop(engine.timers)[1])
        if run is None:
            continue
        engine.touched[run.id] = None
        if run.record.deadline is not None and run.record.deadline <= now:
            _begin_ending(engine, run, _deadline_passed(run), Cause.CANCELLED)
        if not run.is_stopping:
            wake_due(engine, run, now)
        while run.delayed and run.delayed[0][0] <= now:
            step = run.steps[heappop(run.delayed)[2]]
            if step.status is StepStatus.READY and step.not_before is not None:
                step.not_before = None
                step.ready_at = now
                run.enqueue(step)


def _deadline_passed(run: RunState) -> RunEnd:
    error = ErrorRecord(
        type="builtins.TimeoutError",
        message=f"the deadline of the run, {run.record.deadline}, has passed",
        cause=Cause.TIMEOUT,
    )
    return RunEnd(status=RunStatus.FAILED, error=error)


# --- the end ----------------------------------------------------------------------------------
class _Over(NamedTuple):
    """Runs that are no longer driven here, and what keeps some from their end, as in ``Turn``."""

    verify: tuple[Verify, ...]
    ended: tuple[str, ...]
    parked: tuple[str, ...]
    handed_back: tuple[str, ...]
    asleep: tuple[Asleep, ...]


def _finish_runs(engine: EngineState, now: datetime) -> _Over:
    verify: list[Verify] = []
    ended, parked, handed_back, asleep = [], [], [], []
    for run_id in engine.touched:
        run = engine.runs.get(run_id)
        if run is None:
            continue
        if run.delayed:
            heappush(engine.timers, (run.delayed[0][0], run.id))
        due = next_deadline(run)
        if due is not None:
            heappush(engine.timers, (due, run.id))
        if run.running or (run.ending is not None and engine.made_for(run.id)):
            continue
        end = _end_of(run)
        if end is not None:
            if end.status is RunStatus.SUCCEEDED and (unseen := unseen_results(run)):
                verify += unseen
                continue
            run.outbox.end = end
            if end.status is RunStatus.SUCCEEDED:
                spend_all(run)
            ended.append(run_id)
        elif run.paused:
            parked.append(run_id)
        elif run.handed_back:
            handed_back.append(run_id)
        elif _sleeps(run, due, now):
            wakes = [at for at in (due, run.record.deadline) if at is not None]
            asleep.append(Asleep(run.record, min(wakes, default=None), run.heard))
    return _Over(tuple(verify), tuple(ended), tuple(parked), tuple(handed_back), tuple(asleep))


def _sleeps(run: RunState, due: datetime | None, now: datetime) -> bool:
    """Say whether everything in a run waits, and for some time to come."""
    if run.unheard or _can_start(run) or not can_end(run):
        return False
    return due is None or due > now + LINGER


def _end_of(run: RunState) -> RunEnd | None:
    """Return how a run in which nothing is running ends, or None if it goes on."""
    if run.ending is not None:
        return run.ending
    if run.unfinished == 0:
        return RunEnd(status=RunStatus.SUCCEEDED)
    if run.failure is not None and (run.is_stopping or not _can_go_on(run)):
        return RunEnd(status=RunStatus.FAILED, error=run.failure)
    if run.paused or run.handed_back or _can_go_on(run):
        return None
    return RunEnd(
        status=RunStatus.FAILED,
        error=ErrorRecord(
            type="perdure_storage.errors.InternalError",
            message="no step of the run can proceed: please report this",
            cause=Cause.ENGINE_ERROR,
        ),
    )


def _can_go_on(run: RunState) -> bool:
    return _can_start(run) or can_end(run)


def _can_start(run: RunState) -> bool:
    return bool(run.delayed) or any(first_ready(run, heap) for heap in run.ready.values())


_HANDLERS: dict[type, Callable[..., None]] = {
    Ended: on_ended,
    Saved: on_saved,
    CancelRequested: _on_cancel,
    PauseRequested: _on_pause,
    Heard: on_heard,
    Verified: on_verified,
    OwnershipLost: _on_ownership_lost,
    RenewedLate: _on_renewed_late,
    Leaving: _on_leaving,
}
