"""Plans of runs that were made without one: of today's code, built where that may be imported.

A tick makes a run with an entry point, and so does an arrival; who claims the run builds its plan.
That imports the user's modules, so a process that drives other runs too has a child do it
(``PlanningChild``).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.child import Child, ChildLost, answer_by
from perdure.errors import DefinitionError, PerdureError
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreUnavailable
from perdure_storage.records import BuiltPlan, RunId, RunRecord

if TYPE_CHECKING:
    from perdure.runtime import Runtime
    from perdure.settings import Settings
    from perdure.workflow import Workflow

log = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(seconds=10)
"""When what could not be built is tried again: somebody may have mended it."""


def build(runtime: Runtime, record: RunRecord) -> BuiltPlan:
    """Return the plan of a run's entry point as it is today, with the inputs that go with it.

    Raises:
        DefinitionError: the entry point leads nowhere, or the inputs do not fit it.
    """
    from perdure.compile import compile_dag, plan_record, prepare
    from perdure.submission import refuse_unenforceable, store_inputs
    from perdure.target import load_target
    from perdure_storage.values import inputs_digest

    if record.origin is None:
        raise DefinitionError(f"run {record.id} has no entry point, and no plan either")
    workflow = load_target(record.origin)  # first: values may be of classes that it defines
    given = {name: runtime.values.load(value) for name, value in record.inputs.items()}
    if record.trigger is not None:
        given = _fitted(workflow, given)
    prepared = prepare(workflow, given)
    plan = compile_dag(prepared.dag, runtime.values, origin=record.origin)
    refuse_unenforceable(plan, runtime.settings, record.policy.executor)
    inputs = store_inputs(prepared.inputs, runtime.values)
    return BuiltPlan(
        plan=plan_record(plan, inputs), inputs=inputs, inputs_digest=inputs_digest(inputs)
    )


def build_or_note(runtime: Runtime, record: RunRecord) -> BuiltPlan | None:
    """Return the plan of a run, or None, when why there is none is noted with the run.

    It stays QUEUED then, and whoever drives others beside it goes on.
    """
    try:
        return build(runtime, record)
    except StoreUnavailable:
        raise
    except Exception as error:  # the user's module: it may raise anything
        why = str(error) if isinstance(error, PerdureError) else f"{type(error).__name__}: {error}"
        runtime.store.note_unplanned(record.id, why)
        log.debug("run %s has no plan yet", record.id, exc_info=True, extra={"run_id": record.id})
        return None


def _fitted(workflow: Workflow[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs as the parameters take them: what fits stays as it is, the rest is JSON.

    Facts of what arrived are JSON, constants beside them are Python values that were checked when
    they were written: to convert these too would make a number of a text that may be either.
    """
    from perdure.schema import convert

    schema = workflow.schema
    fitting = {name: value for name, value in given.items() if schema.fits(name, value)}
    return {**given, **convert(schema, {n: v for n, v in given.items() if n not in fitting})}


# --- the child ----------------------------------------------------------------------------------
class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is asked for: the plan of a run."""

    run_id: RunId


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, or why there is none."""

    built: BuiltPlan | None = None
    error: str = ""


def prepare_answers(settings: Settings) -> Callable[[bytes], Answer]:
    """Return what answers questions in a child."""
    from perdure.runtime import Runtime

    runtime = Runtime(settings)
    return lambda line: _answer(runtime, msgspec.json.decode(line, type=Question))


def _answer(runtime: Runtime, question: Question) -> Answer:
    try:
        return Answer(built=build(runtime, runtime.store.get_run(question.run_id)))
    except PerdureError as error:
        return Answer(error=str(error))
    except Exception as error:  # noqa: BLE001 - the user's module: it may raise anything
        return Answer(error=f"{type(error).__name__}: {error}")


class PlanningChild:
    """A process that builds plans. Any thread may ask it; it answers in turn.

    Args:
        settings: where the stores are.
    """

    def __init__(self, settings: Settings) -> None:
        self._child = Child(settings, "perdure.planning")

    def build(self, run_id: RunId) -> Answer:
        """Return the plan of a run, or why there is none."""
        try:
            return self._child.ask(Question(run_id=run_id), Answer)
        except ChildLost as lost:
            return Answer(error=str(lost))

    def close(self) -> None:
        """End the process. Idempotent."""
        self._child.close()


# --- for who claims -----------------------------------------------------------------------------
class Planner:
    """Has plans built beside whoever drives: ``plan_for`` never waits.

    Args:
        child: builds them.
        clock: when to try again.
        note: called, in another thread, with a run and why it has no plan.
    """

    def __init__(
        self,
        child: PlanningChild,
        clock: Clock,
        note: Callable[[RunId, str], object],
    ) -> None:
        self._child = child
        self._clock = clock
        self._tell_store = note
        self._changed = threading.Condition()
        self._asked: deque[RunId] = deque()
        self._built: dict[RunId, BuiltPlan] = {}
        self._failed: dict[RunId, float] = {}
        self._thread: threading.Thread | None = None
        self._is_over = False

    def plan_for(self, record: RunRecord) -> BuiltPlan | None:
        """Return the plan of a run, or None: then it is asked for, and there later."""
        with self._changed:
            built = self._built.pop(record.id, None)
            if built is not None or record.id in self._asked:
                return built
            failed_at = self._failed.get(record.id)
            now = self._clock.monotonic()
            if failed_at is not None and now - failed_at < AGAIN_AFTER.total_seconds():
                return None
            self._asked.append(record.id)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="perdure-planner", daemon=True
                )
                self._thread.start()
            self._changed.notify()
            return None

    def _work(self) -> None:
        while (run_id := self._next()) is not None:
            answer = self._child.build(run_id)
            self._note(run_id, answer)
            if answer.built is None and not self._is_over:
                self._tell(run_id, answer.error)

    def _next(self) -> RunId | None:
        """Return the run that was asked for first, or None when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._is_over)
            return None if self._is_over else self._asked[0]

    def _note(self, run_id: RunId, answer: Answer) -> None:
        with self._changed:
            self._asked.popleft()
            if answer.built is not None:
                self._built[run_id] = answer.built
                self._failed.pop(run_id, None)
            else:
                self._failed[run_id] = self._clock.monotonic()

    def _tell(self, run_id: RunId, why: str) -> None:
        log.warning("run %s waits: it has no plan yet: %s", run_id, why, extra={"run_id": run_id})
        try:
            self._tell_store(run_id, why)
        except PerdureError as error:
            log.debug("could not note why a run has no plan: %s", error)

    def close(self) -> None:
        """End the thread and the child. Idempotent."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._child.close()
        if self._thread is not None:
            self._thread.join()


if __name__ == "__main__":
    answer_by(prepare_answers)
