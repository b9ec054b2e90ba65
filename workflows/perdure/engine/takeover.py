"""What a run takes over from another one: all that holds, but for what is to be fresh.

A step that runs again whatever was committed, and one whose value is given, make doubtful what
was computed downstream of them: those rows hold only if the values that they consumed come out the
same again, which nobody knows before. So they are held back as candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from perdure.engine.matching import Matching, match_rows
from perdure.plan import Function, Plan, Takeover, upstream
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
        rows,
        keep_changed=keep_changed,
        old_functions=functions,
        inputs=inputs,
    )
    return hold_back(matching, plan)


def forced(plan: Plan) -> dict[str, str]:
    """Return why steps run again though a committed result of them may hold, by step id."""
    terms = plan.takeover or _NOTHING
    reasons: dict[str, str] = {}
    if terms.from_step is not None:
        cone = below(plan, {terms.from_step})
        reasons |= dict.fromkeys(cone, f"the fork runs again from {terms.from_step}")
        reasons[terms.from_step] = "the fork runs again from here"
    reasons |= dict.fromkeys(terms.force, "the fork was asked to run it again")
    reasons |= dict.fromkeys(terms.caught, "it had failed, and its error had been caught")
    return reasons


def below(plan: Plan, steps: Collection[str]) -> dict[str, str]:
    """Return what consumes, directly or not, a value of ``steps``: by id, the first such step."""
    found: dict[str, str] = {}
    for step in plan.steps:  # in topological order
        roots = (dep if dep in steps else found.get(dep) for dep in upstream(step))
        root = next((root for root in roots if root is not None), None)
        if root is not None:
            found[step.id] = root
    return found


def hold_back(matching: Matching, plan: Plan, outside: Collection[str] = ()) -> Matching:
    """Let nothing hold that is to be fresh, and what is below that only if it consumes the same.

    Args:
        matching: how rows of another run match the plan.
        plan: the plan, or a graph that a step gave.
        outside: steps that a graph refers to: what they come to is not known yet.
    """
    fresh = _fresh(plan, matching)
    if not (fresh or outside):
        return matching
    roots = {*fresh, *outside}
    doubtful = {s: root for s, root in below(plan, roots).items() if s not in fresh}
    settled = fresh.keys() | doubtful.keys()
    given = (plan.takeover or _NOTHING).given
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


def _fresh(plan: Plan, matching: Matching) -> dict[str, str]:
    """Return the steps that do not take anything over, with the reasons."""
    known = matching.kept.keys() | matching.adopted.keys() | matching.candidates.keys()
    volatile = {
        step.id: "it is volatile, and never taken over from another run" if step.id in known else ""
        for step in plan.steps
        if plan.options[step.options].volatile
    }
    given = dict.fromkeys((plan.takeover or _NOTHING).given, "its value is given")
    return {**volatile, **forced(plan), **given}
