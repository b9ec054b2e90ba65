"""The plan of a fork: today's plan, and in it what the fork was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from perdure.errors import DefinitionError, did_you_mean
from perdure.grown import Grown
from perdure.plan import (
    GIVEN,
    FromStep,
    Path,
    Plan,
    Reference,
    StepPlan,
    Takeover,
    collect,
    path_text,
    project,
    references,
)
from perdure_storage.records import StoredValue
from perdure_storage.values import Values

_SHOWN = 5
_NOTHING_GROWN = Grown()


def with_takeover(plan: Plan, terms: Takeover, given: Mapping[str, StoredValue]) -> Plan:
    """Return ``plan`` as that of a fork.

    A step whose value is given takes no arguments, so that nothing upstream is needed for it; its
    own digest is the value's, so that no other run takes the value for a computed one.

    Args:
        plan: today's plan.
        terms: what the fork wants; its ``given`` is filled in here.
        given: values in place of steps, by step id.
    """
    constants = [*plan.constants]
    places: dict[str, int] = {}
    for step_id, value in given.items():
        places[step_id] = len(constants)
        constants.append(value)
    terms = msgspec.structs.replace(terms, given=places)
    if terms == Takeover():
        return plan
    return msgspec.structs.replace(
        plan,
        steps=tuple(_given(s, given[s.id]) if s.id in given else s for s in plan.steps),
        constants=tuple(constants),
        takeover=terms,
    )


def _given(step: StepPlan, value: StoredValue) -> StepPlan:
    own = GIVEN + value.value_digest
    return msgspec.structs.replace(step, args=(), kwargs={}, after=(), own=own)


def carried_over(plan: Plan, recorded: Plan) -> Plan:
    """Return today's plan of a run that was made as a fork: what was asked for then still holds.

    What was asked for of steps that are gone is gone with them.
    """
    terms = recorded.takeover
    if terms is None:
        return plan
    # Steps of graphs are in neither plan: whether they are there still, the run will see.
    gone = {step.id for step in recorded.steps} - {step.id for step in plan.steps}
    ids = {step.id for step in plan.steps}
    given = {s: recorded.constants[index] for s, index in terms.given.items() if s in ids}
    terms = msgspec.structs.replace(
        terms,
        from_step=terms.from_step if terms.from_step not in gone else None,
        force=tuple(s for s in terms.force if s not in gone),
        caught=tuple(s for s in terms.caught if s not in gone),
    )
    return with_takeover(plan, terms, given)


# --- steps by name ----------------------------------------------------------------------------
def step_of(plan: Plan, name: str, what: str, grown: Grown = _NOTHING_GROWN) -> StepPlan:
    """Return the step of this id.

    Args:
        plan: where to look.
        name: the id.
        what: how the user said it, ``"from_step="``.
        grown: steps of graphs that may be meant too.

    Raises:
        DefinitionError: there is none; says which are near.
    """
    steps = steps_there(plan, grown)
    if name in steps:
        return steps[name]
    ids = list(steps)
    listed = f" (it has {', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"
    near = did_you_mean(str(name), ids) or listed
    raise DefinitionError(f"{what}{name!r}: {plan.workflow} has no such step today{near}")


def steps_of(plan: Plan, grown: Grown, names: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the ids that ``names`` mean: ids, names of steps, or patterns.

    An id means that step alone, also where others share its name. In a pattern, ``"parse*"`` or
    ``"parse[*]"``, brackets are what they are in ids.

    Args:
        plan: today's plan.
        grown: steps of graphs of the run that is forked.
        names: what was given.
        what: how the user said it, ``"force="``.

    Raises:
        DefinitionError: one means no step.
    """
    steps = steps_there(plan, grown)
    found: dict[str, None] = {}
    for name in names:
        pattern = name.replace("[", "[[]")
        ids = [name] if name in steps else [i for i, step in steps.items() if step.name == name]
        ids = ids or [step_id for step_id in steps if fnmatchcase(step_id, pattern)]
        found |= dict.fromkeys(ids or [step_of(plan, name, what, grown).id])
    return tuple(found)


def steps_there(plan: Plan, grown: Grown) -> dict[str, StepPlan]:
    """Return the steps of today's plan, and those that had grown below steps of it, by id."""
    top = {step.id: step for step in plan.steps}
    below = {i: step for i, step in grown.steps.items() if grown.top(i) in top}
    return {**below, **top}


def around(grown: Grown, asked: Iterable[str]) -> dict[str, str]:
    """Return in whose graphs the steps are that run again, with the first of them."""
    found: dict[str, str] = {}
    for step_id in asked:
        for root in grown.around(step_id):
            if root in found:
                break
            found[root] = step_id
    return found


# --- given values -----------------------------------------------------------------------------
def store_given(
    plan: Plan, grown: Grown, overrides: Mapping[str, Any], values: Values
) -> dict[str, StoredValue]:
    """Store values that are given in place of steps, with the parts of them that others take.

    Args:
        plan: today's plan.
        grown: steps of graphs of the run that is forked.
        overrides: the values, by step id.
        values: where they are stored.

    Raises:
        DefinitionError: no such step, one that is in a graph that another step gave, or the value
            has not what is taken of it.
        NotSerializable: a value has no encoding.
    """
    stored = {}
    for name, value in overrides.items():
        if name in grown.roots and grown.top(name) in {step.id for step in plan.steps}:
            # Rows of ``top`` would pass for computed ones.
            top = grown.top(name)
            raise DefinitionError(
                f"overrides: {name} is in the graph that {top} gave; values are given in place "
                f"of whole steps of the workflow: overrides={{{top!r}: ...}} (--override "
                f"{top}=JSON)"
            )
        step = step_of(plan, name, "overrides: ")
        _check_outputs(plan, step, value)
        parts = {path_text(path): _part(step, value, path) for path in _paths(plan, step.id)}
        stored[step.id] = values.store(value, parts=parts, name=f"the value given for {name}")
    return stored


def _check_outputs(plan: Plan, step: StepPlan, value: Any) -> None:
    wanted = plan.options[step.options].outputs
    if wanted > 1 and not (isinstance(value, tuple | list) and len(value) == wanted):
        raise DefinitionError(
            f"overrides: {step.id} has outputs={wanted}: give a tuple of {wanted} values, "
            f"not {value!r:.100}"
        )


def _paths(plan: Plan, step_id: str) -> list[Path]:
    found: list[Reference] = []
    collect([plan.output], found)
    found += (ref for step in plan.steps for ref in references(step))
    return [r.path for r in found if isinstance(r, FromStep) and r.step == step_id and r.path]


def _part(step: StepPlan, value: Any, path: Path) -> Any:
    try:
        return project(value, path)
    except Exception as error:  # the access of the user's own object: anything may be raised
        raise DefinitionError(
            f"overrides: other steps take {step.id}{path_text(path)}, which the value given for "
            f"it does not have ({type(error).__name__}: {error})"
        ) from error
