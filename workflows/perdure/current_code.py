"""Today's definition of a run that was made earlier, with the inputs that it was recorded with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perdure.compile import Prepared, prepare
from perdure.errors import DefinitionError
from perdure.graph.dag import Dag, make_dag
from perdure.plan import Plan, recorded_plan
from perdure.runtime import Runtime
from perdure.target import load_target
from perdure.task import Task
from perdure.workflow import Workflow
from perdure_storage.records import RunRecord, StoredValue
from perdure_storage.values import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What a run would be if it were made now.

    Attributes:
        prepared: the graph, and the values of its inputs.
        stored: the inputs as they are kept; those that were not changed are the recorded ones.
        left_out: recorded inputs that the definition does not take any more.
    """

    prepared: Prepared
    stored: dict[str, StoredValue]
    left_out: tuple[str, ...] = ()


def find_definition(record: RunRecord, dag: Any, verb: str) -> Any:
    """Return what makes the run's graph today: ``dag`` if it is given, else by the run's origin.

    Args:
        record: the run.
        dag: a definition, or None.
        verb: what is asked for, ``"perdure.fork('iris-1')"``, for the message.

    Raises:
        DefinitionError: nothing is given, and the recorded origin leads nowhere.
    """
    if dag is not None:
        return dag
    passing = f"pass its definition: {verb[:-1]}, dag=...)"
    if record.origin is None:
        live = _live_workflow(record.workflow)
        if live is not None:
            return live
        raise DefinitionError(
            f"run {record.id!r} has no recorded origin (it was made in a notebook, a function's "
            f"body or from loose nodes), so its code cannot be found again: {passing}"
        )
    try:
        return load_target(record.origin)
    except DefinitionError as error:
        raise DefinitionError(
            f"{error}. It is where run {record.id!r} came from; if it has moved, {passing}"
        ) from error


def _live_workflow(name: str) -> Workflow[Any, Any] | None:
    """Return the workflow of that name that a notebook or an interpreter has now."""
    main = sys.modules.get("__main__")
    if main is None or getattr(main, "__file__", None) is not None:
        return None
    live = [each for each in vars(main).values() if isinstance(each, Workflow)]
    return next((each for each in reversed(live) if each.name == name), None)


def prepare_today(
    runtime: Runtime,
    record: RunRecord,
    definition: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    values: Values | None = None,
) -> Today:
    """Bind a run's recorded inputs, some of them changed, to a definition of today.

    Args:
        runtime: the stores.
        record: the run.
        definition: a workflow, a node, containers of nodes, or a ``Dag``.
        inputs: other values, by parameter name.
        values: where changed inputs are stored; those of the runtime by default.

    Raises:
        DefinitionError: an input is missing, unknown or of a wrong type today.
    """
    values, changed = values or runtime.values, dict(inputs or {})
    recorded = recorded_inputs(runtime, record)
    taken = _names_of(definition)
    kept = {n: v for n, v in recorded.items() if n not in changed and n in taken}
    prepared = prepare(definition, {**{n: values.load(v) for n, v in kept.items()}, **changed})
    stored = {
        # As it was recorded: encoded anew an equal value may have other bytes.
        name: kept[name] if name in kept else values.store(value, name=f"input {name!r}")
        for name, value in prepared.inputs.items()
    }
    left_out = tuple(n for n in recorded if n not in kept and n not in changed)
    return Today(prepared=prepared, stored=stored, left_out=left_out)


def recorded_inputs(runtime: Runtime, record: RunRecord) -> dict[str, StoredValue]:
    """Return all that a run was given by name, static parameters included."""
    plan = recorded_plan(runtime.store, record)
    return {**_statics(plan), **record.inputs}


def _statics(plan: Plan) -> dict[str, StoredValue]:
    return {
        parameter.name: plan.constants[parameter.value]
        for parameter in plan.parameters
        if parameter.static and parameter.value is not None
    }


def _names_of(definition: Any) -> frozenset[str]:
    """Return the names of what a definition takes."""
    if isinstance(definition, Workflow):
        return frozenset(field.name for field in definition.schema.fields)
    if isinstance(definition, Task):
        return frozenset()  # no definition of a run; whoever prepares it says so
    return frozenset((definition if isinstance(definition, Dag) else make_dag(definition)).inputs)
