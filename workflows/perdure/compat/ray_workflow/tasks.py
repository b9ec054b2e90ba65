"""The tasks of a run by the ids that ``ray.workflow`` gives them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from perdure import ray_dag
from perdure.compat.ray_workflow import pairs
from perdure.compat.ray_workflow.task_options import NOTE
from perdure.grown import newest_graphs
from perdure.plan import Plan, StepPlan, upstream
from perdure.runs import Run
from perdure_storage.records import RunId, StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOfRun:
    """One task of a run.

    Attributes:
        id: as ``ray.workflow`` calls it.
        step: the call.
        graph: the graph that it is in.
        value_of: the step whose value it has: its pair's, or that of the chain it is a link of.
    """

    id: str
    step: StepPlan
    graph: Plan
    value_of: str

    @property
    def options(self) -> dict[str, Any]:
        """Return what ``get_metadata`` tells of its options."""
        options = self.graph.options[self.step.options]
        ray = options.metadata.get(ray_dag.NOTE, {"num_cpus": options.cpus})
        retries = options.retries > 0
        spent = options.retries if retries else options.lost_retries
        own = ("max_retries", "retry_exceptions")
        return {
            "task_type": "FUNCTION",
            "max_retries": ray.get("max_retries", spent),
            "catch_exceptions": options.catch,
            "retry_exceptions": ray.get("retry_exceptions", retries),
            "checkpoint": options.checkpoint,
            "ray_options": {name: each for name, each in ray.items() if name not in own},
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what its user noted about it."""
        noted = self.graph.options[self.step.options].metadata
        return {name: value for name, value in noted.items() if not name.startswith("perdure.")}


def tasks_of(run: Run) -> dict[str, TaskOfRun]:
    """Return the tasks of a run that are known by now, continuations' after those of the run.

    Of several of one name the first is called so, the others ``name_1``, ``name_2``, ...: inner
    ones first, then those of continuations, by the place of the task that gave them.
    """
    calls = list(_calls(run))
    paired = {upstream(step)[0]: step.id for graph, step, _ in calls if _is_pair(graph, step)}
    counts: Counter[str] = Counter()
    found: dict[str, TaskOfRun] = {}
    for graph, step, chain in calls:
        if _is_pair(graph, step):
            continue
        name = _name(graph, step)
        while (task_id := f"{name}_{counts[name]}" if counts[name] else name) in found:
            counts[name] += 1
        counts[name] += 1
        value_of = paired.get(step.id, chain or step.id)
        found[task_id] = TaskOfRun(id=task_id, step=step, graph=graph, value_of=value_of)
    return found


def rows_of(run: Run) -> dict[str, StepRecord]:
    """Return the rows of a run's steps that have ended, by step."""
    return {row.step_id: row for row in run.runtime.store.list_steps(RunId(run.id))}


def upstream_ids(task: TaskOfRun, tasks: dict[str, TaskOfRun]) -> list[str]:
    """Return the tasks whose values a task takes."""
    by_step = {each.value_of: each.id for each in tasks.values()}
    by_step |= {each.step.id: each.id for each in tasks.values()}
    return [by_step[step] for step in upstream(task.step) if step in by_step]


def _calls(run: Run) -> Iterator[tuple[Plan, StepPlan, str]]:
    """Yield each call with its graph and, for the last of a returned graph, the step it is for."""
    grown = newest_graphs(run.runtime.store.list_expansions(RunId(run.id)))
    graphs: list[tuple[Plan, str]] = [(run.plan, "")]
    while graphs:
        graph, root = graphs.pop(0)
        answer = upstream_of_output(graph) if root else ""
        below: list[tuple[Plan, str]] = []
        for step in graph.steps:
            chain = root if step.id == answer else ""
            yield graph, step, chain
            below += [(link, step.id) for link in grown.get(step.id, [])]
        graphs[:0] = below


def upstream_of_output(graph: Plan) -> str:
    """Return the step that a graph's value is from."""
    return getattr(graph.output, "step", "")


def _is_pair(graph: Plan, step: StepPlan) -> bool:
    function = graph.functions[step.function]
    return (function.module, function.qualname) == (pairs.__name__, "pair")


def _name(graph: Plan, step: StepPlan) -> str:
    """Return the id that a task has for itself: given, or of its function."""
    function = graph.functions[step.function]
    asked = graph.options[step.options].metadata.get(NOTE, {})
    if "task_id" in asked or step.name != function.qualname.replace(".<locals>", ""):
        return step.name
    return f"{function.module}.{slugify(function.qualname)}"


def slugify(text: str) -> str:
    """Return a qualified name without what cannot be in an id: ``f.<locals>.g`` is ``f.locals.g``.

    Source: ``ray._private.utils``-style slugs, after Django's ``slugify``.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w.\-]", "", plain).strip())
