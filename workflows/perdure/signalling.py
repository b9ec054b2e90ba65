"""Signals to runs and events for anyone, from outside: checked, then kept by the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from perdure.conform import check_value
from perdure.errors import DefinitionError, RunConflict
from perdure.plan import Arg, Const, FromInput, Plan, StepPlan, decode_plan, recorded_plan
from perdure.remedies import shell_of
from perdure.runtime import Runtime
from perdure.waits import match_of, type_of
from perdure.worker.context import running
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import MessageRecord, RunId, RunRecord, StoredValue
from perdure_storage.shapes import readable

Fit = Callable[[Any, Any, str], Any]
"""Makes a value fit a type, or refuses it: ``fit(value, annotation, what)``."""


def as_it_is(value: Any, annotation: Any, what: str) -> Any:
    """Return the value if it is of the type. Raises DefinitionError if it is not."""
    check_value(value, annotation, what)
    return value


def send_signal(
    runtime: Runtime,
    run_id: str,
    name: str,
    value: Any,
    *,
    dedup_key: str | None = None,
    fit: Fit = as_it_is,
) -> MessageRecord | None:
    """Send a signal to a run; it is kept until a step of the run takes it.

    Args:
        runtime: the opened stores.
        run_id: the run.
        name: which signal.
        value: its value; has to fit the ``schema`` of the steps that wait for this name.
        dedup_key: of several signals with one key, the first counts.
        fit: makes the value fit that schema.

    Returns:
        The message, or None if one of this key was sent before.

    Raises:
        RunNotFound, RunConflict: there is no such run, or it is over.
        DefinitionError: the value does not fit.
    """
    _require_name(name)
    record = runtime.store.get_run(RunId(run_id))
    _refuse_ended(runtime, record)
    for schema in _schemas(runtime, record.id, name):
        value = fit(value, schema, f"signal {name!r}")
    return _send(runtime, record.id, name, value, {}, dedup_key)


def send_event(
    runtime: Runtime,
    name: str,
    payload: Any,
    *,
    match: Mapping[str, Any] | None = None,
    dedup_key: str | None = None,
) -> MessageRecord | None:
    """Send an event to every run that waits for it, or will and was created before.

    Args:
        runtime: the opened stores.
        name: which event.
        payload: its value.
        match: what it says about itself, by which waits select; JSON scalars.
        dedup_key: of several events with one key, the first counts.

    Returns:
        The message, or None if one of this key was sent before.
    """
    _require_name(name)
    said = match_of(match)
    return _send(runtime, None, name, payload, said, dedup_key)


def is_waited_for(runtime: Runtime, run_id: RunId, name: str) -> bool:
    """Say whether a step of the run waits for signals of this name, now or later on."""
    return next(_waits(runtime, run_id, name), None) is not None


def _refuse_ended(runtime: Runtime, record: RunRecord) -> None:
    """Refuse a signal to a run that is over, with what can be done: a wait may be answered yet."""
    if record.status not in RUN_TERMINAL:
        return
    shell = shell_of(runtime.settings)
    doing = f"Open it again with `{shell.resume(record.id)}`, and signal it while it waits"
    if record.status is RunStatus.SUCCEEDED:
        doing = f"What it came to says `{shell.command('show', record.id)}`"
    raise RunConflict(f"cannot signal run {record.id!r}: it is {record.status} already. {doing}")


def _require_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"a signal or an event needs a name, a text, not {name!r}")


def _send(
    runtime: Runtime,
    run_id: RunId | None,
    name: str,
    value: Any,
    match: dict[str, Any],
    dedup_key: str | None,
) -> MessageRecord | None:
    stored = runtime.values.store(value, name=f"the value of {readable(name)}")
    step = running.get()
    message = MessageRecord(
        run_id=run_id,
        name=name,
        value=stored,
        match=match,
        dedup_key=dedup_key,
        at=runtime.clock.now(),
        sender=None if step is None else RunId(step.run_id),
    )
    return runtime.store.send(message)


def _schemas(runtime: Runtime, run_id: RunId, name: str) -> list[Any]:
    """Return the types that steps of the run ask of the signal."""
    found = []
    for plan, step in _waits(runtime, run_id, name):
        schema = step.kwargs.get("schema")
        if isinstance(schema, Const):
            found.append(type_of(runtime.values.load(plan.constants[schema.index])))
    return found


def _waits(runtime: Runtime, run_id: RunId, name: str) -> Iterator[tuple[Plan, StepPlan]]:
    store = runtime.store
    waiting = {
        wait.step_id
        for wait in store.list_waits(run_id)
        if wait.kind == "signal" and wait.name == name and wait.message is None
    }
    inputs = store.get_run(run_id).inputs
    plans = [recorded_plan(store, store.get_run(run_id))]
    plans += [decode_plan(each.plan.body) for each in store.list_expansions(run_id)]
    for plan in plans:
        for step in plan.steps:
            function = plan.functions[step.function]
            is_wait = function.module == "perdure.waits" and function.qualname == "_wait_signal"
            if is_wait and (
                step.id in waiting or _says(runtime, plan, inputs, step.args[0]) == name
            ):
                yield plan, step


def _says(runtime: Runtime, plan: Plan, inputs: Mapping[str, StoredValue], arg: Arg) -> Any:
    """Return the name that an argument gives to a wait; None where a step computes it."""
    if isinstance(arg, Const):
        return runtime.values.load(plan.constants[arg.index])
    if isinstance(arg, FromInput) and not arg.path:
        return runtime.values.load(inputs[arg.name])
    return None
