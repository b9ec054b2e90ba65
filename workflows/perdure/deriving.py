"""New runs made from earlier ones: ``rerun`` and ``fork``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from perdure.changes import refuse_changes
from perdure.compile import compile_dag, plan_record
from perdure.current_code import Today, find_definition, prepare_today
from perdure.engine.growth import rows_of_graphs
from perdure.engine.takeover import match_donor
from perdure.errors import DefinitionError, RunConflict, known_names
from perdure.fingerprint import fingerprints
from perdure.fork_plan import around, step_of, steps_of, store_given, with_takeover
from perdure.grown import Grown, caught_failures, grown_steps
from perdure.plan import Plan, Takeover, recorded_plan
from perdure.remedies import shell_of
from perdure.runtime import Runtime
from perdure.submission import (
    check_run_id,
    make_run_id,
    refuse_unenforceable,
    summary,
)
from perdure.tracing import current_trace
from perdure_storage.errors import BlobsCondemned
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunRecord, StoredValue
from perdure_storage.values import Values, inputs_digest

FAILED = "failed"
"""What ``force=`` takes for every step that failed, caught or not."""
_ON_CHANGE = ("recompute", "reuse", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A run made from another one; it does not exist yet.

    Attributes:
        record: its row.
        plan: its plan.
        note: a line for people.
    """

    record: RunRecord
    plan: Plan
    note: str


def create_derived(runtime: Runtime, derive: Callable[[], Derived]) -> Derived:
    """Make the run that ``derive`` returns: from here on it exists, with all that was asked for.

    Raises:
        RunConflict: there is a run of that id.
    """
    derived = derive()
    try:
        _create(runtime, derived)
    except BlobsCondemned:
        # gc has taken what was put a moment ago: it comes by once, not twice.
        derived = derive()
        _create(runtime, derived)
    return derived


def _create(runtime: Runtime, derived: Derived) -> None:
    record = derived.record
    body = plan_record(derived.plan, record.inputs)
    crash_point("plan.stored")
    made = runtime.store.create_run(msgspec.structs.replace(record, plan_digest=body.digest), body)
    if made is not None:
        return
    existing = runtime.store.find_run(record.id)
    if existing is None:  # whoever deleted the run of this id died before the end of it
        runtime.sweep_deleted(record.id)
        _create(runtime, derived)
        return
    raise RunConflict(
        f"run {record.id!r} exists ({existing.status}): give another new_id=, or go on with it by "
        f"`{shell_of(runtime.settings).resume(record.id)}`"
    )


def derive_rerun(
    runtime: Runtime,
    run_id: RunId,
    *,
    inputs: Mapping[str, Any] | None = None,
    new_id: str | None = None,
    dag: Any = None,
    values: Values | None = None,
) -> Derived:
    """Return a new run of the same workflow, with today's code, that reuses nothing.

    Args:
        runtime: the stores.
        run_id: the run to run again.
        inputs: other values, by parameter name.
        new_id: id of the new run; made if not given.
        dag: today's definition, where the recorded origin leads nowhere.
        values: where constants are stored; those of the runtime by default.
    """
    verb = f"perdure.rerun({run_id!r})"
    source = _Source(runtime, run_id, verb, inputs, dag, values or runtime.values)
    record = source.record(new_id, source.plan)
    note = f"run {record.id} runs {run_id} again from the start{source.said}"
    return Derived(record=record, plan=source.plan, note=note)


def derive_fork(
    runtime: Runtime,
    run_id: RunId,
    *,
    from_step: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    force: str | Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    on_change: str = "recompute",
    new_id: str | None = None,
    dag: Any = None,
    values: Values | None = None,
) -> Derived:
    """Return a new run that takes over what is not downstream of a change.

    Args:
        runtime: the stores.
        run_id: the run to fork.
        from_step: a step that runs again together with everything downstream.
        inputs: other values, by parameter name.
        force: ids, names or patterns of steps that run again; ``"failed"``: every step that
            failed, caught or not.
        overrides: values in place of steps, by id.
        on_change: what happens to committed steps whose code or arguments changed.
        new_id: id of the new run; made if not given.
        dag: today's definition, where the recorded origin leads nowhere.
        values: where constants are stored; those of the runtime by default.

    Raises:
        DefinitionError: no such step today; a step is both forced and given.
        RunConflict: something changed, and ``on_change="fail"``.
    """
    if on_change not in _ON_CHANGE:
        raise DefinitionError(f"on_change={on_change!r}{known_names(str(on_change), _ON_CHANGE)}")
    values = values or runtime.values
    source = _Source(runtime, run_id, f"perdure.fork({run_id!r})", inputs, dag, values)
    names = _names_of(force)
    if overrides is not None and not isinstance(overrides, Mapping):
        raise DefinitionError(
            f"overrides={overrides!r:.80}: write values by step, overrides={{'load': [1, 2]}}"
        )
    named = [name for name in names if name != FAILED]
    start = (from_step,) if from_step is not None else ()
    grown = source.grown
    for name in start:
        step_of(source.plan, name, "from_step=", grown)
    forced = steps_of(source.plan, grown, named, "force=")
    caught = source.caught() if FAILED in names else ()
    terms = Takeover(
        from_step=from_step,
        force=forced,
        caught=caught,
        around=around(grown, (*start, *forced, *caught)),
        keep_changed=on_change == "reuse",
    )
    given = store_given(source.plan, grown, overrides or {}, values)
    _refuse_both(terms, given)
    if on_change == "fail":
        source.refuse_changes()
    plan = with_takeover(source.plan, terms, given)
    record = source.record(new_id, plan)
    policy = msgspec.structs.replace(record.policy, on_change=on_change)
    record = msgspec.structs.replace(record, policy=policy, reuse_from=run_id)
    note = f"run {record.id} takes over from {run_id}: {source.summary(plan)}{source.said}"
    return Derived(record=record, plan=plan, note=note)


def _names_of(force: Any) -> tuple[str, ...]:
    if isinstance(force, str):
        return (force,)
    if isinstance(force, Iterable):
        names = tuple(force)
        if all(isinstance(name, str) for name in names):
            return names
    raise DefinitionError(
        f"force={force!r:.80}: write a step's name, force='load', or a list of names"
    )


def _refuse_both(terms: Takeover, given: Mapping[str, StoredValue]) -> None:
    again = (*terms.force, *terms.caught, terms.from_step, *terms.around)
    both = [s for s in again if s in given]
    if both:
        raise DefinitionError(
            f"{', '.join(map(str, both))}: either it runs again (force=, from_step=) or its value "
            "is given (overrides=), not both"
        )


class _Source:
    """The run that another one is made from, and what it would be today."""

    def __init__(
        self,
        runtime: Runtime,
        run_id: RunId,
        verb: str,
        inputs: Mapping[str, Any] | None,
        dag: Any,
        values: Values,
    ) -> None:
        self._runtime = runtime
        self._record = runtime.store.get_run(run_id)
        definition = find_definition(self._record, dag, verb)
        self._today: Today = prepare_today(
            runtime, self._record, definition, inputs=inputs, values=values
        )
        prepared = self._today.prepared
        self.plan = compile_dag(prepared.dag, values, origin=prepared.origin)
        refuse_unenforceable(self.plan, runtime.settings, self._record.policy.executor)
        expansions = runtime.store.list_expansions(run_id)
        self._steps = runtime.store.list_steps(run_id)
        self._rows, _ = rows_of_graphs(self._steps, expansions)

    @property
    def said(self) -> str:
        """Return what else is to be said about its inputs."""
        names = ", ".join(self._today.left_out)
        return f"; {self.plan.workflow} takes no {names} any more: left out" if names else ""

    def record(self, new_id: str | None, plan: Plan) -> RunRecord:
        """Return the row of a run made from it: as it was asked for, but of today."""
        if new_id is not None:
            check_run_id(new_id)
        old, now = self._record, self._runtime.clock.now()
        return RunRecord(
            id=RunId(new_id or make_run_id(plan.workflow, now)),
            workflow=plan.workflow,
            status=RunStatus.QUEUED,
            plan_digest=old.plan_digest,
            origin=plan.origin,
            inputs=self._today.stored,
            inputs_digest=inputs_digest(self._today.stored),
            policy=msgspec.structs.replace(
                old.policy, code="recorded", on_change="recompute", trace=current_trace()
            ),
            tags=old.tags,
            metadata=old.metadata,
            forked_from=old.id,
            queue=old.queue,
            priority=old.priority,
            limit_key=old.limit_key,
            created_at=now,
        )

    @cached_property
    def grown(self) -> Grown:
        """Return the steps of graphs that grew in it, and in the runs that it took them from."""
        return grown_steps(self._runtime.store, self._record, self._steps)

    def caught(self) -> tuple[str, ...]:
        """Return the steps whose final failure was caught, but for those that today's plan lost."""
        top = {step.id for step in self.plan.steps}
        rows = [*self._rows, *self.grown.rows.values()]
        found = [row for row in rows if self.grown.top(row.step_id) in top]
        return caught_failures(found, self.grown.around)

    def refuse_changes(self) -> None:
        """Raise RunConflict if a committed step would not hold today."""
        refuse_changes(self._runtime.store, self._record, self.plan, self._today.stored)

    def summary(self, plan: Plan) -> str:
        """Say in one line what a fork takes over and why the rest runs."""
        old = recorded_plan(self._runtime.store, self._record)
        matching = match_donor(
            plan,
            fingerprints(plan, self._today.stored),
            self._rows,
            functions={function.counts_as: function for function in old.functions.values()},
            inputs=self._today.stored,
        )
        return summary(matching, plan, old)
