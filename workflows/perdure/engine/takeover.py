"""What a run takes over from another one: all that holds, but for what is to be fresh.

A step that runs again whatever was committed, and one whose value is given, make doubtful what
was computed downstream of them: those rows hold only if the values that they consumed come out the
same again, which nobody knows before. So they are held back as candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from perdure.engine.again import Again, below
from perdure.engine.edits import Edits
from perdure.engine.matching import Matching, is_whole, match_name, match_rows
from perdure.plan import (
    Function,
    Plan,
    StepPlan,
    Takeover,
    own_digest,
    references,
)
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StepRecord, StoredValue

_NOTHING = Takeover()


def match_donor(
    plan: Plan,
    fingerprints: Mapping[str, str],
    rows: Iterable[StepRecord],
    *,
    functions: Mapping[str, Function] | None = None,
    inputs: Mapping[str, StoredValue] | None = None,
) -> Matching:
    """Match the rows of another run with ``plan``, as ``plan.takeover`` wants it.

    Args:
        plan: today's plan.
        fingerprints: of the plan's steps, by step id.
        rows: the other run's rows that count.
        functions: of the other run's plan by code digest, for reasons.
        inputs: today's inputs, for reasons too.
    """
    keep_changed = (plan.takeover or _NOTHING).keep_changed
    matching = match_rows(
        plan,
        fingerprints,
        filter(is_whole, rows),
        keep_changed=keep_changed,
        edits=Edits(functions or {}),
        inputs=inputs,
    )
    again = Again(plan.takeover).within(plan)
    return hold_back(matching, plan, again, given=(plan.takeover or _NOTHING).given)


def hold_back(
    matching: Matching,
    plan: Plan,
    again: Mapping[str, str],
    *,
    given: Collection[str] = (),
    outside: Collection[str] = (),
) -> Matching:
    """Let nothing hold that is to be fresh, and what is below that only if it consumes the same.

    Args:
        matching: how rows of another run match the plan.
        plan: the plan, or a graph that a step gave.
        again: steps of it that run again, with the reasons.
        given: steps of it whose values are given.
        outside: steps that a graph refers to: what they come to is not known yet.
    """
    fresh = {**_volatile(plan, matching), **again, **dict.fromkeys(given, "its value is given")}
    if not (fresh or outside):
        return matching
    roots = {*fresh, *outside}
    doubtful = {s: root for s, root in below(plan, roots).items() if s not in fresh}
    settled = fresh.keys() | doubtful.keys()
    held = {**matching.adopted, **matching.kept}
    candidates = {s: rows for s, rows in matching.candidates.items() if s not in fresh}
    reasons = {**matching.reasons, **{s: reason for s, reason in fresh.items() if reason}}
    for step_id, root in doubtful.items():
        if step_id in held:
            candidates[step_id] = (held[step_id], *candidates.get(step_id, ()))
            what = f"the given value of {root}" if root in given else f"{root} runs again"
            if root not in outside:
                reasons[step_id] = f"something upstream changed: {what}"
    return msgspec.structs.replace(
        matching,
        kept={s: row for s, row in matching.kept.items() if s not in settled},
        adopted={s: row for s, row in matching.adopted.items() if s not in settled},
        candidates=candidates,
        reasons=reasons,
    )


def keep_edited(plan: Plan, rows: Iterable[StepRecord], matching: Matching) -> Matching:
    """Let rows hold also where only the code of a step of a graph is another today.

    An id says little of an item: what counts is that it was called with the same. Several items
    may have been, so that each row is used once, for the step of its id if there is one. What a
    step consumes of others is not known yet: the row of its id is a candidate.

    Args:
        plan: the graph.
        rows: rows of graphs, by whose names those of the graph are.
        matching: how they match so far.
    """
    used = {_key(row) for row in (*matching.kept.values(), *matching.adopted.values())}
    alike: dict[tuple[str, str], dict[str, StepRecord]] = {}
    codes: dict[str, None] = {}
    for row in rows:
        codes[row.code] = None
        if row.current and row.status is StepStatus.SUCCEEDED and _key(row) not in used:
            alike.setdefault((row.name, row.own), {}).setdefault(row.step_id, row)
    settled = matching.kept.keys() | matching.adopted.keys()
    open_steps = {
        step.id: [alike[key] for key in _edited(plan, step, codes) if key in alike]
        for step in plan.steps
        if step.id not in settled
    }
    held: dict[str, StepRecord] = {}
    candidates = dict(matching.candidates)
    consuming = {step.id for step in plan.steps if references(step)}
    for step_id, found in open_steps.items():
        if own := next((each for each in found if step_id in each), None):
            row = own.pop(step_id)
            if step_id in consuming:
                candidates[step_id] = (row, *candidates.get(step_id, ()))
            else:
                held[step_id] = row
    for step_id, found in open_steps.items():
        if step_id in consuming or step_id in held:
            continue
        if (other := next(filter(None, found), None)) is not None:
            held[step_id] = other.pop(next(iter(other)))
    return msgspec.structs.replace(
        matching,
        adopted={**matching.adopted, **held},
        candidates={s: each for s, each in candidates.items() if s not in held},
        reasons={s: reason for s, reason in matching.reasons.items() if s not in held},
    )


def _edited(plan: Plan, step: StepPlan, codes: Iterable[str]) -> list[tuple[str, str]]:
    """Return the name of a step with its own digest under each of these codes."""
    options, name = plan.options[step.options], match_name(step)
    return [(name, own_digest(code, options.outputs, options.catch, step.given)) for code in codes]


def _key(row: StepRecord) -> tuple[str, str, int]:
    return row.run_id, row.step_id, row.generation


def _volatile(plan: Plan, matching: Matching) -> dict[str, str]:
    """Return the steps that are never taken over, with the reasons."""
    known = matching.kept.keys() | matching.adopted.keys() | matching.candidates.keys()
    return {
        step.id: "it is volatile, and never taken over from another run" if step.id in known else ""
        for step in plan.steps
        if plan.options[step.options].volatile
    }
