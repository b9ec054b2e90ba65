"""Reading what a run has come to: its result over its steps' values, or its error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from perdure import errors, words
from perdure.engine.state import output_steps
from perdure.errors import DefinitionError, RunCancelled, RunFailed, StepFailed
from perdure.interactive import has_frames
from perdure.plan import (
    Const,
    FromStep,
    Path,
    Plan,
    StepPlan,
    decode_plan,
    placed,
    project,
    recorded_plan,
    upstream,
)
from perdure.remedies import sentence, shell_of
from perdure.runtime import Runtime
from perdure.templates import resolve
from perdure_storage.errors import PerdureError, StoreError, ValueDamaged
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    Digest,
    ErrorRecord,
    Place,
    RunRecord,
    StepId,
    StepRecord,
    StoredValue,
)


def read_result(runtime: Runtime, record: RunRecord, plan: Plan | None = None) -> Any:
    """Return the result of a run that has succeeded.

    Args:
        runtime: the stores.
        record: the run's row.
        plan: its plan, if that is at hand.

    Raises:
        ValueDamaged: a value of the result is missing or damaged; names the step and the command
            that rebuilds it.
    """
    plan = plan or recorded_plan(runtime.store, record)
    needed = {StepId(name) for name in output_steps(plan)}
    rows = {
        row.step_id: row
        for row in runtime.store.list_steps(record.id, among=needed)
        if row.status is StepStatus.SUCCEEDED
    }
    return resolve(plan.output, Recorded(runtime, record, plan, rows))


def outputs_in(runtime: Runtime) -> Callable[[Digest], frozenset[str]]:
    """Return what says of a plan of a store which steps' values its result is made of."""

    @lru_cache(maxsize=_PLANS)
    def outputs(digest: Digest) -> frozenset[str]:
        return frozenset(output_steps(decode_plan(runtime.store.get_plan(digest).body)))

    return outputs


_PLANS = 16
"""So many answers are remembered: the runs of a workflow have the same plan."""


class Recorded:
    """The leaves of a result or of a step's arguments, as a run recorded them.

    Each is decoded once, so that what was one object stays one.
    """

    def __init__(
        self, runtime: Runtime, record: RunRecord, plan: Plan, rows: Mapping[StepId, StepRecord]
    ) -> None:
        self._runtime = runtime
        self._record = record
        self._plan = plan
        self._rows = rows
        self._steps: dict[str, Any] = {}
        self._constants: dict[int, Any] = {}
        self._inputs: dict[str, Any] = {}

    def step(self, step_id: str, path: Path) -> Any:
        """Return the value of a step, or the projection of it."""
        if step_id not in self._steps:
            row = self._rows.get(StepId(step_id))
            value = row.value if row is not None else None
            self._steps[step_id] = load_value(self._runtime, value, self._record.id, step_id)
        return project(self._steps[step_id], path)

    def items(self, step_id: str) -> Any:
        """Return what a map gave: its value."""
        return self.step(step_id, ())

    def constant(self, index: int) -> Any:
        """Return constant ``index`` of the plan."""
        if index not in self._constants:
            self._constants[index] = self._runtime.values.load(self._plan.constants[index])
        return self._constants[index]

    def parameter(self, name: str, path: Path) -> Any:
        """Return a parameter of the workflow, or the projection of it."""
        if name not in self._inputs:
            self._inputs[name] = self._runtime.values.load(self._record.inputs[name])
        return project(self._inputs[name], path)

    def secret(self, name: str) -> str:
        """Raise DefinitionError: no secret is recorded."""
        raise DefinitionError(
            f"the secret {name!r} cannot be part of a result: return what is made with it"
        )


def load_value(runtime: Runtime, value: StoredValue | None, run_id: str, step_id: str) -> Any:
    """Decode a step's value. Raises ValueDamaged, naming the step and what to type."""
    again = shell_of(runtime.settings).resume(run_id)
    if value is None or value.place is Place.NONE:
        raise ValueDamaged(
            f"the value of step {step_id} of run {run_id} is not stored (checkpoint=False, or it "
            f"was lost): `{again}` rebuilds what the result needs",
            missing=True,
        )
    try:
        return runtime.values.load(value)
    except ValueDamaged as error:
        raise ValueDamaged(
            f"the value of step {step_id} of run {run_id} is gone: {error}. "
            f"`{again}` rebuilds it from its lineage",
            digest=error.digest,
            missing=error.missing,
        ) from error


def error_of(runtime: Runtime, record: RunRecord) -> PerdureError:
    """Return what a run that did not succeed raises, with the user's exception as its cause."""
    if record.status is RunStatus.CANCELLED:
        return RunCancelled(
            f"run {record.id} was cancelled. {what_to_type(runtime, record)}", run_id=record.id
        )
    error = record.error
    if error is None:
        return RunFailed(
            f"run {record.id} failed\n{what_to_type(runtime, record)}", run_id=record.id
        )
    if own := _own_error(runtime, record, error):
        return own
    failed = RunFailed(
        _message(runtime, record, error),
        run_id=record.id,
        step_id=error.step_id,
        traceback=error.traceback if has_frames(error.traceback) else "",
    )
    failed.__cause__ = _with_traceback(exception_of(runtime, error), error)
    return failed


def _with_traceback(exception: BaseException, error: ErrorRecord) -> BaseException:
    """Return the exception with a note of where it was raised: its frames stayed in the worker."""
    if has_frames(error.traceback):
        where = f" in step {error.step_id}" if error.step_id else ""
        with contextlib.suppress(Exception):  # a user's class may refuse attributes
            exception.add_note(f"It was raised{where}:\n{error.traceback.rstrip()}")
    return exception


def what_to_type(runtime: Runtime, record: RunRecord) -> str:
    """Return what to do about a run that has not succeeded, with the command, as a sentence."""
    return sentence(record, shell_of(runtime.settings))


def _message(runtime: Runtime, record: RunRecord, error: ErrorRecord) -> str:
    where = _where(runtime, record, error)
    what = words.failure(error.type, error.message, error.step_id)
    if error.traceback:
        what = words.beginning(what)
    return f"run {record.id} failed: {where}{what}\n{what_to_type(runtime, record)}"


def _where(runtime: Runtime, record: RunRecord, error: ErrorRecord) -> str:
    """Return the step, and where its function is if no traceback says so: ``step f (a.py:9): ``."""
    if error.step_id is None:
        return ""
    if item := find_item(runtime, record, error.step_id):
        return f"step {error.step_id} ({item}): "
    if has_frames(error.traceback):
        return f"step {error.step_id}: "
    plan = recorded_plan(runtime.store, record)
    found = (placed(step, plan.functions) for step in plan.steps if step.id == error.step_id)
    return f"{next(found, f'step {error.step_id}')}: "


def find_item(runtime: Runtime, record: RunRecord, step_id: str) -> str:
    """Return which item of a map a step was for, and what it was given; "" for other steps."""
    if "[" not in step_id:
        return ""
    for expansion in runtime.store.list_expansions(record.id):
        plan = decode_plan(expansion.plan.body)
        for step in plan.steps:
            if step.id == step_id and step.item is not None:
                above = {StepId(name) for name in upstream(step)}
                rows = runtime.store.list_steps(record.id, among=above)
                values = {row.step_id: row.value for row in rows}
                return item_of(step, plan.constants, values)
    return ""


def item_of(
    step: StepPlan,
    constants: Sequence[StoredValue],
    values: Mapping[Any, StoredValue | None],
) -> str:
    """Return which item of a map a step is for, and what that looks like; "" for other steps.

    Args:
        step: the call.
        constants: those of its graph.
        values: of the steps whose values it takes, by step id.
    """
    if step.item is None or step.width:
        return ""
    given = [constants[arg.index] if isinstance(arg, Const) else None for arg in step.args]
    taken = [values.get(arg.step) if isinstance(arg, FromStep) else None for arg in step.args]
    found = [one or other for one, other in zip(given, taken)]
    shown = ", ".join(
        words.shown(msgspec.json.decode(value.preview))
        for value in found
        if value and value.preview
    )
    return f"item {step.item}{f', given {shown}' if shown else ''}"


def _own_error(runtime: Runtime, record: RunRecord, error: ErrorRecord) -> PerdureError | None:
    """Return errors that perdure itself ended the run with, as their own class."""
    told = f"{error.message}\n{what_to_type(runtime, record)}"
    match error.type:
        case "perdure.errors.ReplayDiffers":
            return errors.ReplayDiffers(told, run_id=record.id, step_id=error.step_id)
        case "perdure.errors.NondeterminismError":
            return errors.NondeterminismError(told, run_id=record.id, step_id=error.step_id)
    return None


def exception_of(runtime: Runtime, error: ErrorRecord) -> BaseException:
    """Return the user's exception: the real one if it could be stored, else a stand-in."""
    if error.pickled is not None:
        try:
            exception = runtime.values.codecs.decode_exception(error.pickled)
        except StoreError:  # its class is not importable here, say: the text is still there
            exception = None
        if exception is not None:
            return exception
    return StepFailed(
        f"{error.type.removeprefix('builtins.')}: {error.message}",
        type=error.type,
        traceback=error.traceback,
    )


def inputs_of(runtime: Runtime, inputs: Mapping[str, StoredValue]) -> dict[str, Any]:
    """Decode a run's inputs."""
    return {name: runtime.values.load(value) for name, value in inputs.items()}
