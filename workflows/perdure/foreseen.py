"""Graphs that a run would grow, as far as they are known before it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perdure.calls import Growth, decode_items, encode_items
from perdure.compile import compile_growth, plan_record
from perdure.engine.foresight import is_pretended
from perdure.engine.growth import expand, root_of, source_of
from perdure.engine.matching import match_name
from perdure.engine.state import RunState, StepState, starts_chain
from perdure.graph.growth import answer_id, first_answer_id, link_of
from perdure.mapping import expand as expand_items
from perdure.mapping import is_map
from perdure.plan import FromStep, Function, Path, project
from perdure.reference import StepRef
from perdure.secret import SecretRef
from perdure.templates import resolve
from perdure.worker.growth import graph_of
from perdure_storage.records import ExpansionRecord, StoredValue
from perdure_storage.values import Values


class Foreseen:
    """Tells the graph that a step would give: of a map by its items, of others as it was before.

    Args:
        values: reads what maps take, and keeps constants of their graphs for as long as that.
        before: the graphs that were given before, by this run and the one it is made from.

    Attributes:
        open: steps that give a graph which is not known.
    """

    def __init__(self, values: Values, before: Iterable[ExpansionRecord]) -> None:
        self._values = values
        self._before: dict[tuple[str, int, str], ExpansionRecord] = {
            (each.step_id, each.link, each.source): each for each in before
        }
        self._gave = {(step_id, link) for step_id, link, _ in self._before}
        self.open: dict[str, None] = {}
        self._maps: dict[tuple[str, str], Growth | None] = {}

    def __call__(self, run: RunState, step: StepState) -> ExpansionRecord | None:
        """Return the graph, or None: none is known, and the step counts as one with a value."""
        if step.plan.width:  # which items of a chunk fail is not known, if any does
            return None
        root, function = root_of(step), _function(run, step)
        is_over_items = function is not None and is_map(function)
        found = self._map(run, step) if is_over_items else self._as_before(run, step, root)
        if found is None and (is_over_items or (root.id, _link(step, root)) in self._gave):
            self.open[root.id] = None
        return found

    def _as_before(self, run: RunState, step: StepState, root: StepState) -> ExpansionRecord | None:
        return self._before.get((root.id, _link(step, root), source_of(run, root)))

    def _map(self, run: RunState, step: StepState) -> ExpansionRecord | None:
        key = step.id, source_of(run, step)
        if key not in self._maps:
            try:
                self._maps[key] = self._expanded(run, step)
            except Exception:  # noqa: BLE001 - the user's iterables and keys: the run will say so
                self._maps[key] = None
        growth = self._maps[key]
        return expand(run, step, growth) if growth is not None else None

    def _expanded(self, run: RunState, step: StepState) -> Growth | None:
        taken = [run.steps[ref.step] for ref in step.refs if isinstance(ref, FromStep)]
        if any(each.value is None or is_pretended(each.value) for each in taken):
            return None
        function = _function(run, step)
        assert function is not None
        source = _Known(run, self._values)
        args = [resolve(arg, source) for arg in step.plan.args]
        kwargs = {name: resolve(arg, source) for name, arg in step.plan.kwargs.items()}
        answer = first_answer_id(step.id) if starts_chain(step) else answer_id(step.id)
        dag = graph_of(expand_items(*args, **kwargs), step.id, match_name(step.plan), answer)
        turns = {turn.actor: turn.step for turn in step.plan.turns}
        plan = compile_growth(dag, self._values, turns)
        return Growth(kind="map", count=len(plan.steps), plan=plan_record(plan, {}))


class _Known:
    """What a step takes of a run that is only thought of: all of it is real."""

    def __init__(self, run: RunState, values: Values) -> None:
        self._run = run
        self._values = values
        self._constants: dict[int, StoredValue] = dict(enumerate(run.plan.constants))
        for extension in run.extensions:
            self._constants.update(extension.constants)

    def step(self, step_id: str, path: Path) -> Any:
        """Return the value of a step, or the projection of it."""
        value = self._run.steps[step_id].value
        assert value is not None
        return project(self._values.load(value), path)

    def items(self, step_id: str) -> Any:
        """Return references to what a map gives, or its value."""
        items: tuple[StepRef, ...] | None = self._run.steps[step_id].items
        return self.step(step_id, ()) if items is None else decode_items(encode_items(items))

    def constant(self, index: int) -> Any:
        """Return a constant of the plan, or of a graph."""
        return self._values.load(self._constants[index])

    def parameter(self, name: str, path: Path) -> Any:
        """Return a parameter of the workflow, or the projection of it."""
        return project(self._values.load(self._run.record.inputs[name]), path)

    def secret(self, name: str) -> Any:
        """Return its name, by which it is bound on: its value is of no interest here."""
        return SecretRef(name)


def _function(run: RunState, step: StepState) -> Function | None:
    """Return the function of a step, of the run's plan or of a graph."""
    found = run.plan.functions.get(step.plan.function)
    graphs = (each.functions.get(step.plan.function) for each in run.extensions)
    return found or next(filter(None, graphs), None)


def _link(step: StepState, root: StepState) -> int:
    """Return the number of the graph that a step would give, in its chain."""
    return link_of(step.id)[1] if root is not step else 0
