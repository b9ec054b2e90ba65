"""Waits for the first of some steps to end: who has, and when such a wait is over.

A step that was skipped or cancelled has no value and never will: it is out of the race, and the
wait is over when nobody is left in it. One that failed is not: a resume may run it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from perdure.calls import Wait
from perdure.engine.state import Race, RunState, StepState
from perdure.reference import StepRef
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StoredValue, WaitRecord

STEPS = "steps"
"""The kind of such waits."""

_OUT = frozenset({StepStatus.SKIPPED, StepStatus.CANCELLED})


def targets_of(wait: Wait) -> list[str]:
    """Return the ids of the steps that a wait is for, each once."""
    return list(dict.fromkeys(ref.step_id for ref in wait.steps))


def refs_of(terms: Mapping[str, Any]) -> list[StepRef]:
    """Return the steps that a recorded wait is for, in order."""
    return [StepRef(step_id, tuple(path)) for step_id, path in terms["steps"]]


def enter(run: RunState, step: StepState, record: WaitRecord) -> None:
    """Let a step hear of the ends of those that it waits for; some may have ended already."""
    race = Race(step)
    for ref in refs_of(record.match):
        run.races.setdefault(target_of(run, ref).step_id, []).append(race)
    run.arrivals.append(race)


def target_of(run: RunState, ref: StepRef) -> StepRef:
    """Return what a reference means: of an item of a map that has expanded, the step of it."""
    step = run.steps.get(ref.step_id)
    if step is None or step.is_done or step.items is None or not ref.path:
        return ref
    first, *rest = ref.path
    if not isinstance(first, int) or not -len(step.items) <= first < len(step.items):
        return ref
    item = step.items[first]
    return StepRef(item.step_id, (*item.path, *rest))


def standing(run: RunState, terms: Mapping[str, Any]) -> tuple[list[StepRef], list[StepRef], int]:
    """Return who has ended, who has not, and how many of these are still in the race.

    A step that is not in the state is of a graph whose step is done, and so it is itself.
    """
    done: list[StepRef] = []
    pending: list[StepRef] = []
    racing = 0
    for ref in refs_of(terms):
        target = target_of(run, ref)
        step = run.steps.get(target.step_id)
        if step is None or step.status is StepStatus.SUCCEEDED:
            done.append(target)
        else:
            pending.append(target)
            racing += step.status not in _OUT
    return done, pending, racing


def outcome_of(run: RunState, race: StepState, value: StoredValue) -> StoredValue:
    """Return who had ended and who had not as the value of a race between these very steps.

    Names of steps are the same after an edit of what they name. What was computed from the values
    behind them is not: their fingerprints, which are the inputs of the race, are in the digest.
    """
    text = "\0".join((value.value_digest, *run.input_digests(race)))
    digest = blake2b(text.encode(), digest_size=32).hexdigest()
    return msgspec.structs.replace(value, value_digest=f"race:{digest}")


def is_decided(run: RunState, race: Race) -> bool:
    """Say whether a wait is over, now that one more has ended."""
    wait = race.step.wait
    if wait is None or run.waits.get(race.step.id) is not race.step:
        return False
    race.left -= 1
    if race.left > 0:
        return False
    done, _, racing = standing(run, wait.match)
    race.left = min(wait.match["wanted"] - len(done), racing)
    return race.left <= 0
