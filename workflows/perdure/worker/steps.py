"""One attempt, from its call to its outcome: the same in every executor."""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import msgspec
from perdure_storage.clock import SystemClock
from perdure_storage.errors import (
    NotSerializable,
    StoreError,
    StoreUnavailable,
    ValueUnavailable,
)
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, StoredValue

from perdure.calls import Outcome, StepCall
from perdure.plan import path_text, project
from perdure.worker.arguments import Arguments
from perdure.worker.context import Context, StopSignal, running
from perdure.worker.failures import Refusal, StepInterrupted, error_record, type_name
from perdure.worker.output import AttemptLog, AttemptOutput
from perdure.worker.scope import RunScope

_clock = SystemClock()


class Attempt:
    """One call being run: what it shares with its executor is here."""

    __slots__ = ("call", "context", "output", "scope", "started_at", "stop")

    def __init__(self, call: StepCall, scope: RunScope) -> None:
        at = call.id
        self.call = call
        self.scope = scope
        self.stop = StopSignal()
        self.output = AttemptOutput(AttemptLog(at, scope.logs, scope.redactor))
        self.started_at: datetime = _clock.now()
        self.context = Context(
            at.run_id,
            at.step_id,
            at.generation,
            at.attempt,
            call.idempotency_key,
            self.stop,
            self.output,
        )

    def run(self) -> Outcome:
        """Run the call in this thread, in a copy of the context variables of its own.

        Raises:
            KeyboardInterrupt: raised inside; whose it is, the executor knows.
        """
        return contextvars.copy_context().run(self._run)

    def _run(self) -> Outcome:
        running.set(self.context)
        try:
            function, args, kwargs = self._prepare()
            crash_point("worker.before-user-code")
            try:
                result = function(*args, **kwargs)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - the user's: SystemExit is an error too
                return self._raised(error)
            crash_point("worker.after-user-code")
            return self._succeeded(result)
        except Refusal as refusal:
            return self._refused(refusal)

    async def run_async(self) -> Outcome:
        """Run the call, an ``async def`` or a plain function, on the loop that is running."""
        running.set(self.context)
        try:
            function, args, kwargs = self._prepare()
            crash_point("worker.before-user-code")
            try:
                result = function(*args, **kwargs)
                if isinstance(result, Coroutine):
                    result = await result
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - as above; CancelledError ends here too
                return self._raised(error)
            crash_point("worker.after-user-code")
            return self._succeeded(result)
        except Refusal as refusal:
            return self._refused(refusal)

    # --- before ---------------------------------------------------------------------------------
    def _prepare(self) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
        function = self.scope.function(self.call.function)
        arguments = Arguments(self.call, self.scope)
        return function, arguments.positional(), arguments.keywords()

    # --- after ----------------------------------------------------------------------------------
    def _succeeded(self, result: Any) -> Outcome:
        self._check(result)
        value = self._store(result)
        crash_point("worker.after-encode")
        return self._outcome(Cause.SUCCEEDED, value=value)

    def _check(self, result: Any) -> None:
        """Refuse a result that cannot stand for the step's value."""
        wanted = self.call.outputs
        if wanted > 1 and not (isinstance(result, tuple | list) and len(result) == wanted):
            got = len(result) if isinstance(result, tuple | list) else type(result).__name__
            raise _user_refusal(TypeError(f"outputs={wanted}, but the function returned {got}"))
        if _is_node(result):
            raise _user_refusal(
                TypeError(
                    "the function returned a node, a call that was not made: return the value, "
                    "or bind the call in the workflow's body"
                )
            )

    def _store(self, result: Any) -> StoredValue:
        parts = {}
        for path in self.call.parts:
            try:
                parts[path_text(path)] = project(result, path)
            except Exception:  # noqa: BLE001 - the consumer that asks for it will say so
                continue
        try:
            return self.scope.values.store(result, checkpoint=self.call.checkpoint, parts=parts)
        except (ValueUnavailable, StoreUnavailable) as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error) from error
        except NotSerializable as error:
            raise _user_refusal(error) from error
        except StoreError as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        except Exception as error:
            # Encoding runs the value's own code (``__reduce__``, ``__getstate__``).
            error.add_note("while encoding the value that the function returned")
            raise _user_refusal(error) from error

    def _raised(self, error: BaseException) -> Outcome:
        if self.stop.asked or isinstance(error, StepInterrupted):
            return self._outcome(Cause.CANCELLED, error=error, retryable=False)
        retryable, note = self._judge(error)
        return self._outcome(Cause.USER_ERROR, error=error, retryable=retryable, note=note)

    def _judge(self, error: BaseException) -> tuple[bool, str]:
        """Ask ``retry_on``; a predicate that raises answers no."""
        index = self.call.retry_on
        if index is None:
            return isinstance(error, Exception), ""
        admitted = self.scope.constant(index)
        if isinstance(admitted, type | tuple):
            return isinstance(error, admitted), ""
        try:
            return bool(admitted(error)), ""
        except Exception as second:  # noqa: BLE001 - a user's predicate
            return False, f"retry_on raised {type_name(type(second))}: {second}; not retried"

    def _refused(self, refusal: Refusal) -> Outcome:
        return self._outcome(
            refusal.cause,
            error=refusal.error,
            retryable=refusal.retryable,
            culprit=refusal.culprit,
        )

    def _outcome(
        self,
        cause: Cause,
        *,
        value: StoredValue | None = None,
        error: BaseException | None = None,
        retryable: bool = True,
        culprit: str = "",
        note: str = "",
    ) -> Outcome:
        return Outcome(
            id=self.call.id,
            cause=cause,
            value=value,
            error=error
            and error_record(
                error,
                cause=cause,
                step_id=self.call.id.step_id,
                redactor=self.scope.redactor,
                note=note,
            ),
            retryable=retryable,
            culprit=culprit,
            worker=worker_name(),
            started_at=self.started_at,
            finished_at=_clock.now(),
        )


def _user_refusal(error: Exception) -> Refusal:
    return Refusal(Cause.USER_ERROR, error, retryable=False)


def _is_node(result: Any) -> bool:
    """Say whether ``result`` is a node; without importing the graph: none was made then."""
    module = sys.modules.get("perdure.graph.node")
    return module is not None and isinstance(result, module.Node)


_name: tuple[int, str] = (0, "")


def worker_name() -> str:
    """Return ``"host/pid"`` of this process, also after a fork."""
    global _name
    pid = os.getpid()
    if _name[0] != pid:
        _name = (pid, f"{os.uname().nodename}/{pid}")
    return _name[1]
