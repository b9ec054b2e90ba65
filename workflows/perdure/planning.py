"""Plans of runs that were made without one: of today's code, built where that may be imported.

A tick makes a run with an entry point; who claims the run builds its plan. That imports the
user's modules, so a process that drives other runs too has a child do it (``PlanningChild``). The
child is used again while the files that it has imported are as they were, and is replaced when one
of them has changed: what runs is the code of the moment, and a thousand ticks of one module import
it once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import IO, TYPE_CHECKING

import msgspec

from perdure.errors import DefinitionError, PerdureError
from perdure_storage.clock import Clock
from perdure_storage.records import BuiltPlan, RunId, RunRecord

if TYPE_CHECKING:
    from perdure.runtime import Runtime
    from perdure.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""How long importing and tracing a workflow may take."""
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
    given = {name: runtime.values.load(value) for name, value in record.inputs.items()}
    prepared = prepare(load_target(record.origin), given)
    plan = compile_dag(prepared.dag, runtime.values, origin=record.origin)
    refuse_unenforceable(plan, runtime.settings, record.policy.executor)
    inputs = store_inputs(prepared.inputs, runtime.values)
    return BuiltPlan(
        plan=plan_record(plan, inputs), inputs=inputs, inputs_digest=inputs_digest(inputs)
    )


# --- the child ----------------------------------------------------------------------------------
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a child says to a run id: a plan, or why there is none.

    Attributes:
        is_stale: a file that the child has imported has changed: ask a new child.
    """

    built: BuiltPlan | None = None
    error: str = ""
    is_stale: bool = False


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the stores are, for the child."""

    store: str
    blobs: str
    executor: str


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer run ids, one a line, until there are no more."""
    from perdure.runtime import Runtime
    from perdure.settings import load_settings

    place = msgspec.json.decode(requests.readline(), type=_Place)
    settings = load_settings(store=place.store, blobs=place.blobs, executor=place.executor)
    runtime = Runtime(settings)
    stamps: dict[str, tuple[int, int] | None] = {}
    for line in requests:
        answer = _answer(runtime, RunId(msgspec.json.decode(line)), stamps)
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _answer(runtime: Runtime, run_id: RunId, stamps: dict[str, tuple[int, int] | None]) -> Answer:
    if any(_stamp(file) != stamp for file, stamp in stamps.items()):
        return Answer(is_stale=True)
    try:
        return Answer(built=build(runtime, runtime.store.get_run(run_id)))
    except Exception as error:  # noqa: BLE001 - the user's module: it may raise anything
        return Answer(error=f"{type(error).__name__}: {error}")
    finally:
        for file in _imported() - stamps.keys():
            stamps[file] = _stamp(file)


def _imported() -> set[str]:
    """Return the files of modules that may be edited: those of no installed package."""
    from perdure.sources import is_local_file

    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file for file in files if file is not None and is_local_file(file)}


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


class PlanningChild:
    """A process that builds plans. Used by one thread.

    Args:
        settings: where the stores are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def build(self, run_id: RunId) -> Answer:
        """Return the plan of a run, or why there is none; never stale."""
        answer = self._ask(run_id)
        if answer.is_stale:
            self.close()
            answer = self._ask(run_id)
        return answer

    def _ask(self, run_id: RunId) -> Answer:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(msgspec.json.encode(run_id) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            watchdog.cancel()
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=Answer)
        self.close()
        return Answer(
            error=f"the process that was to import it died, or took more than {PATIENCE_S:g} s"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: a Ctrl-C at the terminal is for who drives.
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "perdure.planning"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        settings = self._settings
        place = _Place(store=settings.store, blobs=settings.blobs, executor=settings.executor)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(place) + b"\n")
        return process

    def close(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not read yet is lost with it
                    pass


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
    # What imported modules print is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    main(sys.stdin.buffer, answers)
