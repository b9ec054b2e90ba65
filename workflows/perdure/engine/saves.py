"""What steps have saved, in memory: what the next attempt of each is given to go on from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from perdure.calls import SavedValue
from perdure.engine.events import Saved
from perdure.engine.growth import source_of
from perdure.engine.state import EngineState, RunState, StepState
from perdure_storage.records import SaveRecord, StepId


def remember_saves(run: RunState, saves: Iterable[SaveRecord]) -> None:
    """Take up what steps had saved before the run was loaded, in the order of their numbers."""
    for save in saves:
        run.saves.setdefault(save.step_id, []).append(save)


def on_saved(engine: EngineState, event: Saved, now: datetime) -> None:
    """Remember what an attempt has saved, and forget what the store has pruned for it."""
    save = event.save
    run = engine.runs.get(save.run_id)
    if run is None:
        return
    kept = run.saves.setdefault(save.step_id, [])
    kept.append(save)
    mine = [each for each in kept if each.item == save.item]
    for old in mine[: -event.keep_last]:
        kept.remove(old)


def saves_for(run: RunState, step: StepState) -> tuple[SavedValue, ...]:
    """Return what an attempt that starts now goes on from, oldest first.

    Only what the step saved when its code and inputs were these; under ``on_change="reuse"``
    whatever it saved.
    """
    saves = run.saves.get(step.id)
    if not saves:
        return ()
    source = source_of(run, step)
    keeps_changed = run.record.policy.on_change == "reuse"
    return tuple(
        SavedValue(each.at, each.value, each.item)
        for each in saves
        if keeps_changed or each.source == source
    )


def spend(run: RunState, step: StepState) -> None:
    """Let go of what a step has saved: it has its value."""
    if run.saves.pop(step.id, None) is not None:
        run.outbox.spent.append(StepId(step.id))


def spend_all(run: RunState) -> None:
    """Let go of all that steps have saved: the run has succeeded."""
    run.outbox.spent += map(StepId, run.saves)
    run.saves.clear()
