"""Items of a map that came as steps in one run, and as values in another.

A map that takes the items of another one gives children that consume the values of that one's
children. In a run that took the first map over whole there are no such children: the second has
the items as constants. Its children are the same calls, though their digests are others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from perdure.engine.matching import Matching, match_name
from perdure.engine.state import RunState, StepState
from perdure.plan import MAPPED, Const, ItemsOf, ListArg, Plan, StepPlan, given_digest, own_digest
from perdure_storage.records import StepRecord, StoredValue


def match_by_items(
    run: RunState,
    root: StepState,
    plan: Plan,
    constants: Mapping[int, StoredValue],
    rows: Iterable[StepRecord],
    matching: Matching,
    *,
    keep_changed: bool,
) -> Matching:
    """Let rows of another run hold for children of a map which have as constants what it consumed.

    Args:
        run: the run.
        root: the map.
        plan: the graph that it gave.
        constants: of that graph.
        rows: of the other run, of the same names.
        matching: what is known of them.
        keep_changed: rows hold whatever the code was.
    """
    places = _places_of_values(run, root)
    if not places:
        return matching
    consumed = {(row.name, row.own, row.inputs): row for row in rows if row.inputs}
    codes = dict.fromkeys(row.code for row in consumed.values() if keep_changed)
    adopted = dict(matching.adopted)
    for step in plan.steps:
        if step.item is None or step.id in adopted or step.id in matching.kept:
            continue
        text, inputs = _text(step, constants, places)
        options, given = plan.options[step.options], given_digest(text)
        for code in (run.steps[step.id].code, *codes):
            own = own_digest(code, options.outputs, options.catch, given)
            row = consumed.get((match_name(step), own, inputs))
            if row is not None:
                adopted[step.id] = msgspec.structs.replace(row, inputs=())
                break
    return msgspec.structs.replace(matching, adopted=adopted)


def _places_of_values(run: RunState, root: StepState) -> set[int]:
    """Return which of the iterables are maps that have a value here, and no items."""
    if not root.opens:
        return set()
    return {
        place
        for columns in root.plan.args[MAPPED : MAPPED + 1]
        for place, column in enumerate(columns.items if isinstance(columns, ListArg) else ())
        if isinstance(column, ItemsOf) and run.steps[column.step].items is None
    }


def _text(
    step: StepPlan, constants: Mapping[int, StoredValue], places: Collection[int]
) -> tuple[list[str], tuple[str, ...]]:
    """Return what the arguments say with steps at these places, and the digests that are there."""
    text: list[str] = []
    inputs: list[str] = []
    named = [*((f"#{place}", arg) for place, arg in enumerate(step.args))]
    named += [(f"{name}=", step.kwargs[name]) for name in sorted(step.kwargs)]
    for place, (name, arg) in enumerate(named):
        digest = "" if not isinstance(arg, Const) else constants[arg.index].value_digest
        if place in places:
            inputs.append(digest)
        told = "code" if isinstance(arg, Const) and arg.is_code else digest
        text += (name, "step" if place in places else told)
    return text, tuple(inputs)
