"""Runs that are made by themselves, but for what each adds: a workflow, its options, its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perdure.compile import compile_dag, plan_record
from perdure.errors import DefinitionError
from perdure.queueing import require_queue
from perdure.resources import parse_duration
from perdure.runtime import Runtime
from perdure.submission import Wishes, refuse_unenforceable, store_inputs
from perdure.target import origin_of
from perdure.workflow import Workflow
from perdure_scheduler.template import RunTemplate
from perdure_storage.records import Digest, Place, PlanRecord, StoredValue


@dataclass(frozen=True, slots=True)
class Stored:
    """A template on its way to the store.

    Attributes:
        run: what its rows say.
        plan: of its runs, where it is pinned.
        blobs: which its inputs refer to.
    """

    run: RunTemplate
    plan: PlanRecord | None
    blobs: tuple[Digest, ...]


def stored_template(
    runtime: Runtime,
    workflow: Workflow[..., Any],
    known: Mapping[str, Any],
    *,
    pending: Collection[str] = (),
    code: str = "latest",
    what: str,
) -> Stored:
    """Return a template as the store keeps it; known inputs, and the graph if pinned, are put.

    Args:
        runtime: where to.
        workflow: what runs, with its options.
        known: inputs that all runs have, by parameter name.
        pending: names of those that each run is given when it is made.
        code: ``"latest"`` or ``"pinned"``.
        what: makes the runs; for messages: ``"schedule 'nightly'"``.

    Raises:
        DefinitionError: an option of the workflow is of no use here, or its code cannot be found
            again.
    """
    wishes = Wishes.from_options(
        {**workflow.run_options, "inputs": {}}, find_last=lambda workflow: ()
    )
    _refuse_options_of_one_run(wishes, what)
    if code == "latest":
        plan, inputs = None, store_inputs(known, runtime.values)
    else:
        plan, inputs = _pinned(runtime, workflow, known, pending, wishes)
    template = RunTemplate(
        workflow=workflow.name,
        origin=_origin(workflow, code, what),
        plan_digest=plan.digest if plan is not None else None,
        inputs=inputs,
        policy=wishes.policy(),
        tags=dict(wishes.tags),
        metadata=dict(wishes.metadata),
        queue=_queue(runtime, wishes, what),
        priority=wishes.priority,
        limit_key=wishes.limit_key or "",
        deadline=_deadline(wishes, what),
    )
    blobs = tuple(value.integrity for value in inputs.values() if value.place is Place.BLOB)
    return Stored(template, plan, blobs)


def _refuse_options_of_one_run(wishes: Wishes, what: str) -> None:
    for option in ("run_id", "reuse", "delay", "dedup_key"):
        if getattr(wishes, option) is not None:
            raise DefinitionError(
                f"{what}: its workflow has the option {option}=, but each of its runs is one of "
                "its own: leave it out"
            )


def _queue(runtime: Runtime, wishes: Wishes, what: str) -> str | None:
    if wishes.queue is None:
        return None
    return require_queue(runtime.store, wishes.queue, runtime.clock.now(), what=f"{what}: ")


def _pinned(
    runtime: Runtime,
    workflow: Workflow[..., Any],
    known: Mapping[str, Any],
    pending: Collection[str],
    wishes: Wishes,
) -> tuple[PlanRecord, dict[str, StoredValue]]:
    """Return the plan of all runs, and the inputs that are known now, defaults included."""
    schema = workflow.schema
    values = schema.complete({**known, **dict.fromkeys(pending)})
    static = {field.name for field in schema.fields if field.static}
    dag = workflow.dag(**{name: values[name] for name in static})
    plan = compile_dag(dag, runtime.values, origin=origin_of(workflow))
    refuse_unenforceable(plan, runtime.settings, wishes.executor, is_for_others=True)
    open_now = {name: value for name, value in values.items() if name not in {*static, *pending}}
    inputs = store_inputs(open_now, runtime.values)
    return plan_record(plan, inputs), inputs


def _origin(workflow: Workflow[..., Any], code: str, what: str) -> str | None:
    origin = origin_of(workflow)
    if origin is None and code == "latest":
        raise DefinitionError(
            f"{what}: {workflow.name} is in no file that can be imported again, so there is no "
            "latest code of it: write it in a file, or say code='pinned'"
        )
    return origin


def _deadline(wishes: Wishes, what: str) -> timedelta | None:
    deadline = wishes.deadline
    if isinstance(deadline, datetime):
        raise DefinitionError(
            f"{what}: deadline= of its workflow is one instant for all runs: write a duration, "
            "such as '2h'"
        )
    if deadline is None:
        return None
    return timedelta(seconds=parse_duration(deadline, what="deadline"))
