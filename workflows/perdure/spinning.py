"""``spin``: one step of a run, alone, here and now; nothing of it is kept."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from perdure import effects
from perdure.chunks import map_of
from perdure.compile import function_name
from perdure.current_code import find_definition, prepare_today
from perdure.eager import call_here, context_of, run_graphs
from perdure.errors import DefinitionError, SecretMissing, did_you_mean
from perdure.graph.dag import Dag
from perdure.graph.node import TaskSpec
from perdure.grown import grown_steps, newest_graphs
from perdure.plan import FromStep, ItemsOf, Plan, StepPlan, Takeover, recorded_plan, references
from perdure.remedies import shell_of
from perdure.results import Recorded
from perdure.runtime import Runtime
from perdure.task import Task
from perdure.templates import resolve
from perdure.worker.context import running
from perdure.worker.secrets import resolve_secret
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Place, RunId, RunRecord, StepId, StepRecord
from perdure_storage.scratch import ScratchBlobs
from perdure_storage.values import Values


def spin(runtime: Runtime, run_id: RunId, step_id: str, *, dag: Any = None) -> Any:
    """Run one step in this process with its recorded inputs and today's code; return its value.

    An error is raised as it is, not retried and not caught, so that a debugger is of use. What the
    step would have to keep is encoded and thrown away: a value that a run could not keep is refused
    here too.

    Args:
        runtime: the stores; nothing is written.
        run_id: the run.
        step_id: the step, by its id in that run.
        dag: today's definition, where the recorded origin leads nowhere.

    Raises:
        DefinitionError: there is no such step, then or today, or what it took is not there.
        NotSerializable: its value has no encoding.
        Exception: whatever the step's function raises.
    """
    record = runtime.store.get_run(run_id)
    plan = recorded_plan(runtime.store, record)
    graph, step = _step_of(runtime, record, plan, step_id)
    if step.actor is not None or step.turns:
        raise DefinitionError(
            f"{step_id} calls an actor, or is given one, and alone it has none: call the method of "
            "a plain object, or fork the run from this step"
        )
    inputs = _Inputs(runtime, record, graph, _rows_for(runtime, record, step))
    today = _today(runtime, record, step, dag)
    spec = _spec_of(today, step) if graph is plan else _spec_in_graph(graph, step)
    args = [_of_today(resolve(arg, inputs)) for arg in step.args]
    kwargs = {name: resolve(arg, inputs) for name, arg in step.kwargs.items()}
    value = contextvars.copy_context().run(_call, spec, step_id, args, kwargs)
    runtime.values.codecs.encode(value, name=f"the result of {step_id}")
    return value


def _call(spec: TaskSpec, step_id: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    running.set(context_of(step_id, 1, "spin"))
    effects.begin()
    return run_graphs(call_here(spec, args, kwargs), step_id, spec.name)


class _Inputs(Recorded):
    """What a step took, and the secrets of now."""

    def secret(self, name: str) -> str:
        """Return a secret's value of now."""
        try:
            return resolve_secret(name)
        except SecretMissing as error:
            raise DefinitionError(str(error)) from None


def _step_of(
    runtime: Runtime, record: RunRecord, plan: Plan, step_id: str
) -> tuple[Plan, StepPlan]:
    """Return a step of the run's plan, or of a graph that grew in it, with what it is in."""
    found = {step.id: (plan, step) for step in plan.steps}
    if step_id not in found:
        graphs = newest_graphs(runtime.store.list_expansions(record.id))
        for graph in (graph for links in graphs.values() for graph in links):
            found |= {step.id: (graph, step) for step in graph.steps}
    if step_id not in found:
        show = shell_of(runtime.settings).command("show", record.id)
        raise DefinitionError(
            f"run {record.id} has no step {step_id!r}{did_you_mean(step_id, found) or '.'} "
            f"{_chunk_of(found, step_id) or _taken_over(runtime, record, step_id)}"
            f"All of them: `{show}`"
        )
    if step_id in (plan.takeover or Takeover()).given:
        raise DefinitionError(
            f"the value of {step_id} was given in run {record.id}: it took nothing there. Spin it "
            f"in the run that this one was forked from, {record.forked_from}"
        )
    return found[step_id]


def _chunk_of(found: Mapping[str, tuple[Plan, StepPlan]], step_id: str) -> str:
    """Say which chunk has the item that is meant, if it is one of several in a step."""
    name, _, label = step_id.rpartition("[")
    if not label.removesuffix("]").isdecimal():
        return ""
    item = int(label.removesuffix("]"))
    for _, step in found.values():
        first = step.item or 0
        if map_of(step.id) == name and first <= item < first + step.width:
            return f"Item {item} is in the chunk {step.id}: spin that. "
    return ""


def _taken_over(runtime: Runtime, record: RunRecord, step_id: str) -> str:
    """Say where a step is whose graph is in an earlier run, as it was taken over whole."""
    row = grown_steps(runtime.store, record).rows.get(step_id)
    if row is None:
        return ""
    spin = shell_of(runtime.settings).command("spin", row.run_id, step_id)
    return f"What it is a part of was taken over whole from {row.run_id}: `{spin}`. "


def _rows_for(runtime: Runtime, record: RunRecord, step: StepPlan) -> dict[StepId, StepRecord]:
    """Return the rows whose values the step takes. Raises DefinitionError if one is missing."""
    refs = [ref for ref in references(step) if isinstance(ref, FromStep | ItemsOf)]
    taken = dict.fromkeys(StepId(ref.step) for ref in refs)
    rows = {row.step_id: row for row in runtime.store.list_steps(record.id, among=taken)}
    for name in taken:
        row = rows.get(name)
        if row is None or row.status is not StepStatus.SUCCEEDED:
            why = f"which {'has no result' if row is None else f'is {row.status}'} in it"
        elif row.value is None or row.value.place is Place.NONE:
            why = "which is not stored (checkpoint=False)"
        else:
            continue
        fork = shell_of(runtime.settings).command("fork", record.id, "--from", name)
        raise DefinitionError(
            f"step {step.id} of run {record.id} takes the value of {name}, {why}. Run both in a "
            f"run of their own: `{fork}`"
        )
    return {name: rows[name] for name in taken}


def _today(runtime: Runtime, record: RunRecord, step: StepPlan, dag: Any) -> Dag:
    """Return the run's graph of today; with it the modules of its code are those of today."""
    definition = find_definition(record, dag, f"perdure.spin({record.id!r}, {step.id!r})")
    scratch = Values(runtime.values.codecs, ScratchBlobs(runtime.blobs))
    return prepare_today(runtime, record, definition, values=scratch).prepared.dag


def _spec_of(today: Dag, step: StepPlan) -> TaskSpec:
    specs = {each.id: each.call.spec for each in today.steps}
    if step.id not in specs:
        raise DefinitionError(
            f"{today.name} has no step {step.id!r} today{did_you_mean(step.id, specs)}"
        )
    return specs[step.id]


def _spec_in_graph(graph: Plan, step: StepPlan) -> TaskSpec:
    """Return the task of a step of a graph, as it is today: by the name of its function."""
    function = graph.functions[step.function]
    found = _function_today(function.module, function.qualname)
    if found is None:
        raise DefinitionError(
            f"the function of {step.id}, {function.qualname} of {function.module}, cannot be found "
            "today by its name: it is to be one of a module, not one that is made in a function"
        )
    options = graph.options[step.options]
    return TaskSpec(
        function=found,
        name=step.name,
        options=options,
        is_async=function.is_async,
        branches=step.branches,
    )


def _of_today(value: Any) -> Any:
    """Return what a map or a chunk calls with the code that it has today, where it is found."""
    if not isinstance(value, Task):
        return value
    module, qualname = function_name(value.function)
    found = _function_today(module, qualname)
    return value if found is None else type(value)(found, replace(value.spec, function=found))


def _function_today(module: str, qualname: str) -> Callable[..., Any] | None:
    """Return the function of this name, or None if there is none."""
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if isinstance(found, Task):
        found = found.function
    return found if callable(found) else None
