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
from perdure.plan import (
    MAPPED,
    Const,
    FromStep,
    ItemsOf,
    ListArg,
    Plan,
    StepPlan,
    given_digest,
    own_digest,
)
from perdure_storage.lifecycle import StepStatus
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
    """Let rows of another run hold for children of a map that were given the same there.

    Also where the items were the values of steps there and are constants here, or the other way.

    Args:
        run: the run.
        root: the map.
        plan: the graph that it gave.
        constants: of that graph.
        rows: of the other run, of the same names.
        matching: what is known of them.
        keep_changed: rows hold whatever the code was.
    """
    places = _places_of_items(root)
    usable = [row for row in rows if row.status is StepStatus.SUCCEEDED] if places else ()
    consumed = {(row.name, row.own, row.inputs): row for row in usable}
    codes = dict.fromkeys(row.code for row in consumed.values() if keep_changed)
    adopted = dict(matching.adopted)
    for step in plan.steps if consumed else ():
        here = run.steps[step.id]
        is_settled = step.id in adopted or step.id in matching.kept
        if (
            step.item is None
            or step.turns
            or is_settled
            or not all(run.steps[d].is_done for d in here.deps)
        ):
            continue
        digests = run.input_digests(here)
        forms = _forms(step, constants, digests, places)
        row = _find(plan, step, forms, (here.code, *codes), consumed)
        if row is not None:
            adopted[step.id] = msgspec.structs.replace(row, inputs=digests)
    return msgspec.structs.replace(matching, adopted=adopted)


def _find(
    plan: Plan,
    step: StepPlan,
    forms: Iterable[_Form],
    codes: Iterable[str],
    consumed: Mapping[tuple[str, str, tuple[str, ...]], StepRecord],
) -> StepRecord | None:
    options, name = plan.options[step.options], match_name(step)
    for text, inputs in forms:
        given = given_digest(text)
        for code in codes:
            own = own_digest(code, options.outputs, options.catch, given)
            if (row := consumed.get((name, own, inputs))) is not None:
                return row
    return None


def _places_of_items(root: StepState) -> set[int]:
    """Return which of the iterables are maps, of whose items one each is taken."""
    if not root.opens:
        return set()
    return {
        place
        for columns in root.plan.args[MAPPED : MAPPED + 1]
        for place, column in enumerate(columns.items if isinstance(columns, ListArg) else ())
        if isinstance(column, ItemsOf)
    }


_Form = tuple[list[str], tuple[str, ...]]
"""What the arguments of a child say, and the digests of what it consumes."""


def _forms(
    step: StepPlan,
    constants: Mapping[int, StoredValue],
    digests: Iterable[str],
    places: Collection[int],
) -> list[_Form]:
    """Return what the same call says with its items as values of steps, and as constants."""
    consumed = iter(digests)
    told: list[tuple[str, str, str]] = []
    for name, arg in (
        *((f"#{place}", arg) for place, arg in enumerate(step.args)),
        *((f"{name}=", step.kwargs[name]) for name in sorted(step.kwargs)),
    ):
        if isinstance(arg, FromStep):
            told.append((name, "step", next(consumed)))
        elif isinstance(arg, Const):
            told.append((name, "code" if arg.is_code else "", constants[arg.index].value_digest))
        else:  # what it says is not known here: no row is found
            told.append((name, "", ""))
    return [_form(told, places, kind) for kind in ("step", "")]


def _form(told: Iterable[tuple[str, str, str]], places: Collection[int], of_items: str) -> _Form:
    text: list[str] = []
    inputs: list[str] = []
    for place, (name, as_told, digest) in enumerate(told):
        kind = of_items if place in places else as_told
        text += (name, kind or digest)
        if kind == "step":
            inputs.append(digest)
    return text, tuple(inputs)
