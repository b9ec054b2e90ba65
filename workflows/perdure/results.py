"""Reading what a run has come to: its result over its steps' values, or its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perdure_storage.errors import PerdureError, ValueDamaged
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import ErrorRecord, Place, RunRecord, StoredValue

from perdure import errors
from perdure.engine.state import output_steps
from perdure.errors import RunCancelled, RunFailed, StepFailed
from perdure.plan import decode_plan
from perdure.runtime import Runtime
from perdure.worker.arguments import resolve


def read_result(runtime: Runtime, record: RunRecord) -> Any:
    """Return the result of a run that has succeeded.

    Raises:
        ValueDamaged: a value of the result is missing or damaged; names the step and the command
            that rebuilds it.
    """
    plan = decode_plan(runtime.store.get_plan(record.plan_digest).body)
    needed = output_steps(plan)
    rows = {
        row.step_id: row
        for row in runtime.store.list_steps(record.id)
        if row.step_id in needed and row.status is StepStatus.SUCCEEDED
    }

    def load_step(step_id: str) -> Any:
        row = rows.get(step_id)  # type: ignore[call-overload]
        value = row.value if row is not None else None
        return load_value(runtime, value, record.id, step_id)

    return resolve(
        plan.output,
        constant=_once(lambda index: runtime.values.load(plan.constants[index])),
        step=_once(load_step),
        parameter=_once(lambda name: runtime.values.load(record.inputs[name])),
    )


def _once(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[Any, Any] = {}

    def get(key: Any) -> Any:
        if key not in known:
            known[key] = load(key)
        return known[key]

    return get


def load_value(runtime: Runtime, value: StoredValue | None, run_id: str, step_id: str) -> Any:
    """Decode a step's value. Raises ValueDamaged, naming the step and what to type."""
    if value is None or value.place is Place.NONE:
        raise ValueDamaged(
            f"the value of step {step_id} of run {run_id} is not stored (checkpoint=False, or it "
            f"was lost): `perdure resume {run_id}` rebuilds what the result needs",
            missing=True,
        )
    try:
        return runtime.values.load(value)
    except ValueDamaged as error:
        raise ValueDamaged(
            f"the value of step {step_id} of run {run_id} is gone: {error}. "
            f"`perdure resume {run_id}` rebuilds it from its lineage",
            digest=error.digest,
            missing=error.missing,
        ) from error


def error_of(runtime: Runtime, record: RunRecord) -> PerdureError:
    """Return what a run that did not succeed raises, with the user's exception as its cause."""
    if record.status is RunStatus.CANCELLED:
        return RunCancelled(
            f"run {record.id} was cancelled. Go on with: perdure resume {record.id}",
            run_id=record.id,
        )
    error = record.error
    if error is None:
        return RunFailed(f"run {record.id} failed", run_id=record.id)
    if own := _own_error(record, error):
        return own
    failed = RunFailed(_message(record, error), run_id=record.id, step_id=error.step_id)
    failed.__cause__ = exception_of(runtime, error)
    return failed


def _message(record: RunRecord, error: ErrorRecord) -> str:
    kind = error.type.removeprefix("builtins.")
    where = f"step {error.step_id}" if error.step_id else "the run itself"
    return f"run {record.id} failed: {where}: {kind}: {error.message}\n{next_command(record)}"


def next_command(record: RunRecord) -> str:
    """Return the command that fits the cause, as a sentence."""
    error = record.error
    user_error = error is not None and error.cause.value in ("user error", "timeout")
    if record.status is RunStatus.FAILED and user_error:
        return f"Mend it, then: perdure resume {record.id} --code current"
    return f"Go on with: perdure resume {record.id}"


def _own_error(record: RunRecord, error: ErrorRecord) -> PerdureError | None:
    """Return errors that perdure itself ended the run with, as their own class."""
    name = error.type.rpartition(".")[2]
    if name == "NondeterminismError" and error.type.startswith("perdure."):
        return errors.NondeterminismError(
            error.message, run_id=record.id, step_id=error.step_id
        )
    return None


def exception_of(runtime: Runtime, error: ErrorRecord) -> BaseException:
    """Return the user's exception: the real one if it could be stored, else a stand-in."""
    if error.pickled is not None:
        try:
            exception = runtime.values.codecs.decode_exception(error.pickled)
        except Exception:  # foreign code: whatever unpickling raises, the text is still there
            exception = None
        if isinstance(exception, BaseException):
            return exception
    return StepFailed(
        f"{error.type.removeprefix('builtins.')}: {error.message}",
        type=error.type,
        traceback=error.traceback,
    )


def inputs_of(runtime: Runtime, inputs: Mapping[str, StoredValue]) -> dict[str, Any]:
    """Decode a run's inputs."""
    return {name: runtime.values.load(value) for name, value in inputs.items()}
