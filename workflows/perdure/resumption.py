"""Going on with a run by its id: what it would come to, and doing it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from perdure.changes import refuse_changed_steps
from perdure.compile import compile_dag, plan_record
from perdure.current_code import find_definition, prepare_today
from perdure.engine.ownership import driver_of, is_driven
from perdure.errors import DefinitionError, RunConflict, known_names
from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromStep,
    ListArg,
    ObjectArg,
    Plan,
    StepOptions,
    StepPlan,
    Takeover,
    own_digest,
    passed_with,
    recorded_plan,
    references,
    step_code,
)
from perdure.remedies import shell_of
from perdure.runs import status_of
from perdure.runtime import Runtime
from perdure.submission import (
    Action,
    Intent,
    Wishes,
    bury_owner,
    values_are_there,
)
from perdure_storage.guards import reopened
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunRecord
from perdure_storage.values import Values


def reopen_run(runtime: Runtime, run_id: RunId, **options: Any) -> str:
    """Make a run ready to be driven again; returns a line that says what it was.

    Options as ``intend_resume``.
    """
    intent = intend_resume(runtime, run_id, **options)
    if intent.action is Action.KEEP:
        return intent.note
    record = runtime.store.get_run(run_id)
    changed = intent.plan if intent.record.plan_digest != record.plan_digest else None
    bury_owner(runtime.store, record)
    runtime.store.reset_run(
        run_id,
        plan=None if changed is None else plan_record(changed, {}),
        policy=intent.record.policy,
        reason="resume",
    )
    return intent.note


def intend_resume(
    runtime: Runtime,
    run_id: RunId,
    *,
    code: str = "recorded",
    on_change: str = "recompute",
    on_divergence: str = "fail",
    executor: str | None = None,
    dag: Any = None,
    values: Values | None = None,
) -> Intent:
    """Return what a resume would do now; writes no row.

    Args:
        runtime: the stores.
        run_id: the run.
        code: ``"recorded"`` or ``"current"``.
        on_change: as in ``run``.
        on_divergence: as in ``run``.
        executor: another executor, or None.
        dag: today's definition, for ``"current"``.
        values: where today's constants are stored; those of the runtime by default.

    Raises:
        RunConflict: today's definition has another graph; or something committed would change
            under ``on_change="fail"``.
    """
    if code not in ("recorded", "current"):
        raise DefinitionError(f"code={code!r}{known_names(code, ('recorded', 'current'))}")
    Wishes(given={}, executor=executor, on_change=on_change, on_divergence=on_divergence).check()
    record = runtime.store.get_run(run_id)
    if is_driven(record):
        note = f"{run_id} is {record.status} and driven by {driver_of(record)}: attached"
        return Intent(action=Action.KEEP, record=record, plan=None, note=note)
    if record.status is RunStatus.SUCCEEDED and values_are_there(runtime, record):
        note = f"{run_id} has succeeded: recorded result"
        return Intent(action=Action.KEEP, record=record, plan=None, note=note)
    policy = msgspec.structs.replace(
        record.policy,
        code=code,
        on_change=on_change,
        on_divergence=on_divergence,
        executor=executor or record.policy.executor,
    )
    plan = body = None
    if code == "current":
        plan = _plan_of_today(runtime, record, dag, values or runtime.values)
        if on_change == "fail":
            refuse_changed_steps(runtime.store, record, plan)
        body = plan_record(plan, {})
    return Intent(
        action=Action.REOPEN,
        record=reopened(record, body, policy),
        plan=plan,
        note=f"{run_id} was {status_of(record)}: goes on",
    )


def _plan_of_today(runtime: Runtime, record: RunRecord, dag: Any, values: Values) -> Plan:
    """Return the recorded plan with today's code and arguments for what has not committed.

    The graph stays as it was recorded: today's definition must have the same steps, which take
    the same values of each other.
    """
    recorded = recorded_plan(runtime.store, record)
    today = _compile_today(runtime, record, dag, values)
    ours, theirs = {s.id: s for s in recorded.steps}, {s.id: s for s in today.steps}
    if ours.keys() != theirs.keys():
        differing = ", ".join(sorted(ours.keys() ^ theirs.keys())[:5])
        raise RunConflict(
            f"a resume never changes the graph, and today's has other steps ({differing}). Make a "
            "new run that takes over what has not changed: "
            f"`{shell_of(runtime.settings).command('fork', record.id)}`"
        )
    for step_id, step in ours.items():
        if references(step) != references(theirs[step_id]):
            raise RunConflict(
                f"a resume never changes the graph, and today {step_id} takes the values of other "
                "steps, or in another way. Make a new run that takes over what has not changed: "
                f"`{shell_of(runtime.settings).command('fork', record.id)}`"
            )
    done = {row.step_id for row in runtime.store.list_steps(record.id) if row.value is not None}
    fixed = done | (recorded.takeover or Takeover()).given.keys()
    bodies = _Bodies(recorded, today)
    steps = tuple(
        _kept(step, theirs[step.id]) if step.id in fixed else bodies.renew(step, theirs[step.id])
        for step in recorded.steps
    )
    return bodies.put_into(steps)


def _kept(step: StepPlan, other: StepPlan) -> StepPlan:
    """Return a step that has committed as it was; of an actor, whether replays may differ is new.

    Its calls that are left ask the constructor's step for that: what a task was given is a handle
    as it was then.
    """
    if step.actor is None or other.actor is None:
        return step
    accepts = other.actor.nondeterminism
    return msgspec.structs.replace(
        step, actor=msgspec.structs.replace(step.actor, nondeterminism=accepts)
    )


def _compile_today(runtime: Runtime, record: RunRecord, dag: Any, values: Values) -> Plan:
    verb = f"perdure.resume({record.id!r}, code='current')"
    today = prepare_today(runtime, record, find_definition(record, dag, verb), values=values)
    return compile_dag(today.prepared.dag, values, origin=today.prepared.origin)


class _Bodies:
    """Puts today's functions and options into a recorded plan. Mutable, used once."""

    def __init__(self, recorded: Plan, today: Plan) -> None:
        self._recorded = recorded
        self._today = today
        self._functions = dict(recorded.functions)
        self._options = list(recorded.options)
        self._constants = list(recorded.constants)

    def renew(self, step: StepPlan, other: StepPlan) -> StepPlan:
        """Return the recorded step with the code, the options and the arguments of today.

        What it refers to is the graph's, and is the same in both.
        """
        function = self._today.functions[other.function]
        self._functions[function.id] = function
        options = self._renewed(step, self._today.options[other.options])
        if options not in self._options:
            self._options.append(options)
        code = step_code(function.counts_as, self._passed(step, other))
        if other.actor is not None:  # the methods that run are those of today's class
            actors_class = self._today.functions[other.actor.cls]
            self._functions[actors_class.id] = actors_class
        return msgspec.structs.replace(
            step,
            function=function.id,
            args=tuple(map(self._argument, other.args)),
            kwargs={name: self._argument(arg) for name, arg in other.kwargs.items()},
            given=other.given,
            actor=other.actor,
            passed=self._passed(step, other),
            own=own_digest(code, options.outputs, options.catch, other.given),
            options=self._options.index(options),
        )

    def _passed(self, step: StepPlan, other: StepPlan) -> str:
        """Return the digest of the code that a step is given, an actor's class of today with it.

        The constructor has committed and stays as it was. A map of a method, or a task that is
        given the handle, would keep the graph that it gave, with calls of the class as it was.
        """
        given = [ref.step for ref in references(step) if isinstance(ref, FromStep)]
        changed = [self._edits[name] for name in given if name in self._edits]
        return passed_with(other.passed, changed)

    @cached_property
    def _edits(self) -> dict[str, str]:
        """Return of actors the code of their classes today, where it was another, by step."""
        before = {step.id: self._class_of(self._recorded, step) for step in self._recorded.steps}
        today = {step.id: self._class_of(self._today, step) for step in self._today.steps}
        return {name: code for name, code in today.items() if code and code != before[name]}

    def _class_of(self, plan: Plan, step: StepPlan) -> str:
        if step.actor is None or step.actor.role != "new":
            return ""
        return plan.functions[step.function].counts_as

    def _argument(self, arg: Arg) -> Arg:
        """Return one of today's arguments, its constants numbered as here."""
        match arg:
            case Const():
                return self._constant(arg)
            case ListArg(items, kind):
                return ListArg(tuple(map(self._argument, items)), kind)
            case DictArg(keys, values):
                return DictArg(tuple(map(self._constant, keys)), tuple(map(self._argument, values)))
            case ObjectArg(cls, fields):
                fields = {name: self._argument(value) for name, value in fields.items()}
                return ObjectArg(self._constant(cls), fields)
        return arg

    def _constant(self, constant: Const) -> Const:
        index = self._taken_along(constant.index)
        assert index is not None
        return Const(index, constant.is_code)

    def _renewed(self, step: StepPlan, options: StepOptions) -> StepOptions:
        # The number of outputs is the graph's, which consumers were bound to.
        outputs = self._recorded.options[step.options].outputs
        return msgspec.structs.replace(
            options,
            outputs=outputs,
            retry_on=self._taken_along(options.retry_on),
            stop_when=self._taken_along(options.stop_when),
        )

    def _taken_along(self, index: int | None) -> int | None:
        """Return the index that one of today's constants has in the recorded plan."""
        if index is None:
            return None
        constant = self._today.constants[index]
        if constant not in self._constants:
            self._constants.append(constant)
        return self._constants.index(constant)

    def put_into(self, steps: tuple[StepPlan, ...]) -> Plan:
        """Return the recorded plan with these steps and all that they need."""
        return msgspec.structs.replace(
            self._recorded,
            steps=steps,
            functions=self._functions,
            options=tuple(self._options),
            constants=tuple(self._constants),
            bundle=self._today.bundle,
            bundle_size=self._today.bundle_size,
        )
