"""One attempt, from its call to its outcome: the same in every executor."""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from perdure import effects
from perdure.calls import Desk, FirstTry, Growth, Outcome, StepCall, Wait
from perdure.errors import DefinitionError, StepTimeout
from perdure.plan import path_text, project
from perdure.worker.arguments import Arguments
from perdure.worker.context import Context, StopSignal, running
from perdure.worker.failures import Refusal, StepInterrupted, StepStopped, error_record
from perdure.worker.forks import leave_if_forked
from perdure.worker.memory import PeakMemory
from perdure.worker.output import AttemptOutput
from perdure.worker.saving import NoDesk, Saves
from perdure.worker.scope import RunScope
from perdure.worker.secrets import secret_names
from perdure.worker.surroundings import Surroundings
from perdure_storage.clock import SystemClock
from perdure_storage.errors import (
    InternalError,
    NotSerializable,
    PerdureError,
    StoreError,
    StoreUnavailable,
    ValueUnavailable,
)
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, ErrorRecord, StoredValue
from perdure_storage.shapes import shown_name

if TYPE_CHECKING:
    from perdure.graph.node import Call
    from perdure.pausing import Pause
    from perdure.worker.actors import ActorTurn

T = TypeVar("T")
_clock = SystemClock()
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""Types of results none of which stands for calls or a wait."""


class Attempt:
    """One call being run: what it shares with its executor is here."""

    __slots__ = (
        "call",
        "context",
        "in_user_code",
        "memory",
        "output",
        "pid",
        "saves",
        "scope",
        "started_at",
        "stop",
        "surroundings",
        "turn",
    )

    def __init__(
        self,
        call: StepCall,
        scope: RunScope,
        *,
        memory: PeakMemory | None = None,
        surroundings: Surroundings | None = None,
        desk: Desk | None = None,
    ) -> None:
        at = call.id
        self.call = call
        self.scope = scope
        self.memory = memory
        self.surroundings = surroundings
        self.pid = os.getpid()
        self.in_user_code = False
        self.turn: ActorTurn | None = None
        self.stop = StopSignal()
        self.output = AttemptOutput(at, scope.logs, scope.redactor)
        self.started_at: datetime = _clock.now()
        self.saves = Saves(
            at,
            scope.values,
            scope.directories,
            desk or NoDesk(),
            call.saves,
            redactor=scope.redactor,
        )
        self.context = Context(
            at.run_id,
            at.step_id,
            at.generation,
            at.attempt,
            call.idempotency_key,
            self.stop,
            self.output,
            self.saves,
        )

    def run(self) -> Outcome:
        """Run the call in this thread, in a copy of the context variables of its own.

        Raises:
            KeyboardInterrupt: raised inside; whose it is, the executor knows.
        """
        return contextvars.copy_context().run(self._run)

    def interrupt(self) -> None:
        """Ask the attempt to end; for signal handlers, in the thread that runs it.

        Raises:
            StepInterrupted: into user code that does not watch ``should_stop``.
        """
        self.stop.asked = True
        if self.in_user_code and not self.stop.watched:
            raise StepInterrupted("the step was asked to end")

    def close(self) -> None:
        """Write what was printed, tell the last progress, remove what was made to be loaded into.

        Before the outcome is told: whoever hears that nobody runs the step any more is right.
        """
        self.saves.close()
        self.output.close()

    def failed(self, error: BaseException) -> Outcome:
        """Return the outcome of an error that the user's code raised."""
        return self._raised(error)

    def judge_timeout(self) -> bool:
        """Say whether ``retry_on`` would admit a time-out."""
        try:
            return self._judge(StepTimeout("", step_id=self.call.id.step_id))[0]
        except Refusal:
            return False  # The attempt itself meets the same obstacle and reports it.

    def _run(self) -> Outcome:
        running.set(self.context)
        if self.call.trace:
            self._go_on_in_trace()
        effects.begin()
        try:
            try:
                function, args, kwargs = self._prepare()
            finally:
                if self.surroundings is not None:
                    self.surroundings.note()
            crash_point("worker.before-user-code")
            try:
                self.in_user_code = True
                result = function(*args, **kwargs)
                leave_if_forked(self.pid)
            except BaseException as error:
                leave_if_forked(self.pid, error)
                if isinstance(error, KeyboardInterrupt):
                    raise
                return self._raised(error)
            finally:
                self.in_user_code = False
                if self.surroundings is not None:
                    self.surroundings.restore()
            crash_point("worker.after-user-code")
            return self._succeeded(result)
        except Refusal as refusal:
            return self._refused(refusal)

    async def run_async(self) -> Outcome:
        """Run the call, an ``async def`` or a plain function, on the loop that is running."""
        running.set(self.context)
        if self.call.trace:
            self._go_on_in_trace()
        effects.begin()
        try:
            function, args, kwargs = self._prepare()
            crash_point("worker.before-user-code")
            try:
                result = function(*args, **kwargs)
                if isinstance(result, Coroutine):
                    result = await result
                leave_if_forked(self.pid)
            except BaseException as error:
                leave_if_forked(self.pid, error)
                if isinstance(error, KeyboardInterrupt):
                    raise
                return self._raised(error)
            crash_point("worker.after-user-code")
            return self._succeeded(result)
        except Refusal as refusal:
            return self._refused(refusal)

    def _go_on_in_trace(self) -> None:
        from perdure.tracing import go_on_in

        go_on_in(self.call.trace)

    # --- before ---------------------------------------------------------------------------------
    def _prepare(self) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
        function: Callable[..., Any]
        if self.call.actor is None:
            function = self.scope.function(self.call.function)
        else:
            from perdure.worker.actors import ActorTurn  # as slow to load as all of compiling

            function = self.turn = ActorTurn(self.call, self.scope)
            self.scope.redactor.add_named(secret_names(self.call))
        arguments = Arguments(self.call, self.scope)
        prepared = function, arguments.positional(), arguments.keywords()
        if self.turn is not None:
            self.turn.prepare()
        if self.stop.asked:
            raise Refusal(Cause.CANCELLED, StepInterrupted("the step was asked to end"))
        return prepared

    # --- after ----------------------------------------------------------------------------------
    def _succeeded(self, result: Any) -> Outcome:
        if self.turn is not None:
            return self._called(self.turn, result)
        if type(result) not in _SCALARS:
            if _is_ray_node(result):
                result = self._imported(result)
            if _is_graph(result):
                return self._grown(result)
            if _is_pause(result):
                return self._waiting(result)
        self._refuse_lost_calls()
        self._refuse_handle(result)
        self._check(result)
        stops = self._stops(result)
        value = self._store(result)
        crash_point("worker.after-encode")
        return self._outcome(Cause.SUCCEEDED, value=value, stops=stops)

    def _imported(self, node: Any) -> Any:
        """Return the graph of a node of Ray's that the function returned."""
        from perdure.errors import DefinitionError
        from perdure.ray_dag import from_ray

        try:
            return from_ray(node)
        except DefinitionError as error:
            raise _user_refusal(error) from error

    def _called(self, turn: ActorTurn, result: Any) -> Outcome:
        """Keep what a call of an actor gave, and the state after it."""
        if _is_graph(result) or _is_pause(result):
            kind = "a node" if _is_graph(result) else "a wait"
            raise _user_refusal(turn.refuse_growth(kind))
        self._refuse_lost_calls()
        self._check(result)
        stops = self._stops(result)
        value = self._store(result)
        states = self._encoded(turn.finish, "the state of the actor after the call")
        crash_point("worker.after-encode")
        return self._outcome(Cause.SUCCEEDED, value=value, stops=stops, states=states)

    def _stops(self, result: Any) -> bool:
        """Ask ``stop_when`` whether the other children of the map are needed after this value."""
        if self.call.stop_when is None:
            return False
        predicate = self.scope.constant(self.call.stop_when)
        try:
            return bool(predicate(result))
        except Exception as error:
            error.add_note("in stop_when, which was asked about the value that the step returned")
            raise _user_refusal(error) from error

    def _refuse_lost_calls(self) -> None:
        try:
            effects.refuse_lost()
        except DefinitionError as error:
            raise _user_refusal(error) from None

    def _refuse_handle(self, result: Any) -> None:
        """Refuse an actor as a value; without looking into values where no handle can be."""
        nodes = sys.modules.get("perdure.graph.node")
        may_hold = self.call.turns and isinstance(result, list | tuple | dict | set)
        if nodes is None or not (may_hold or isinstance(result, nodes.Handle)):
            return
        from perdure.worker.growth import refuse_handle

        try:
            refuse_handle(result)
        except DefinitionError as error:
            raise _user_refusal(error) from None

    def _check(self, result: Any) -> None:
        """Refuse a result that cannot stand for the step's value."""
        wanted = self.call.outputs
        if wanted > 1 and not (isinstance(result, tuple | list) and len(result) == wanted):
            got = len(result) if isinstance(result, tuple | list) else type(result).__name__
            raise _user_refusal(TypeError(f"outputs={wanted}, but the function returned {got}"))

    def _grown(self, result: Any) -> Outcome:
        """Turn what stands for calls that are to be made into a graph."""
        from perdure.worker.growth import grow  # as slow to load as all of compiling

        try:
            growth = grow(result, self.call, self.scope.values, self._first_try)
            effects.refuse_lost()
        except (ValueUnavailable, StoreUnavailable) as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error) from error
        except StoreError as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        except PerdureError as error:
            raise _user_refusal(error) from error
        crash_point("worker.after-encode")
        return self._outcome(Cause.SUCCEEDED, growth=growth)

    def _first_try(self, error: Exception, call: Call) -> FirstTry:
        """Return what an item of a chunk raised, as the first try of the step that it becomes."""
        admitted = call.spec.retry_on
        if admitted is None or isinstance(admitted, type | tuple):
            retryable, note = admitted is None or isinstance(error, admitted), ""
        else:
            retryable, note = self._ask(admitted, error)
        return FirstTry(self._record(error, Cause.USER_ERROR, note), retryable)

    def _waiting(self, pause: Pause) -> Outcome:
        """Turn a wait that is to begin into one with a deadline on the wall."""
        from perdure.pausing import NO_DEFAULT

        deadline = None
        if pause.timeout_s is not None:
            deadline = _clock.now() + timedelta(seconds=pause.timeout_s)
        default = None if pause.default is NO_DEFAULT else self._store(pause.default)
        wait = Wait(
            kind=pause.kind,
            name=pause.name,
            match=pause.match,
            deadline=deadline,
            default=default,
            steps=pause.steps,
            wanted=pause.wanted,
            cancel_rest=pause.cancel_rest,
        )
        crash_point("worker.after-encode")
        return self._outcome(Cause.SUCCEEDED, wait=wait)

    def _store(self, result: Any) -> StoredValue:
        parts = {}
        for path in self.call.parts:
            try:
                parts[path_text(path)] = project(result, path)
            except Exception:  # noqa: BLE001 - the consumer that asks for it will say so
                continue

        def store() -> StoredValue:
            return self.scope.values.store(result, checkpoint=self.call.checkpoint, parts=parts)

        return self._encoded(store, "the value that the function returned", result)

    def _encoded(self, encode: Callable[[], T], what: str, result: Any = None) -> T:
        """Encode something of the user's; what goes wrong in that is told as an outcome."""
        try:
            return encode()
        except (ValueUnavailable, StoreUnavailable) as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error) from error
        except NotSerializable as error:
            _refuse_nodes_inside(result)
            raise _user_refusal(self._with_remedy(error)) from error
        except StoreError as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        except Exception as error:
            # Encoding runs the value's own code (``__reduce__``, ``__getstate__``).
            error.add_note(f"while encoding {what}")
            raise _user_refusal(error) from error

    def _with_remedy(self, error: NotSerializable) -> NotSerializable:
        state = ", or give its class __getstate__ and __setstate__ that leave this part out"
        return NotSerializable(
            f"{error}. Return what it is made of (numbers, arrays, a path) and make it where it is "
            f"used{state if self.scope.values.codecs.allow_pickle else ''}",
            path=error.path,
        )

    def _raised(self, error: BaseException) -> Outcome:
        if error is self.saves.unavailable:
            return self._outcome(Cause.INPUT_UNAVAILABLE, error=_bare(error))
        if isinstance(error, StepStopped) and not self.stop.asked:
            return self._outcome(Cause.ABANDONED, error=_bare(error))
        if self.stop.asked or isinstance(error, StepInterrupted | StepStopped):
            return self._outcome(Cause.CANCELLED, error=error, retryable=False)
        if isinstance(error, ModuleNotFoundError) and error.name:
            # As where the step's module imports it: no retry finds it here, another host may.
            return self._outcome(Cause.SETUP_ERROR, error=error)
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
        return self._ask(admitted, error)

    def _ask(self, admitted: Callable[..., Any], error: BaseException) -> tuple[bool, str]:
        try:
            return bool(admitted(error)), ""
        except Exception as second:  # noqa: BLE001 - a user's predicate
            return False, f"retry_on raised {shown_name(type(second))}: {second}; not retried"

    def _refused(self, refusal: Refusal) -> Outcome:
        return self._outcome(
            refusal.cause,
            error=_bare(refusal.error),
            retryable=refusal.retryable,
            culprit=refusal.culprit,
        )

    def _outcome(
        self,
        cause: Cause,
        *,
        value: StoredValue | None = None,
        growth: Growth | None = None,
        wait: Wait | None = None,
        error: BaseException | None = None,
        retryable: bool = True,
        stops: bool = False,
        culprit: str = "",
        note: str = "",
        states: dict[str, StoredValue] | None = None,
    ) -> Outcome:
        return Outcome(
            id=self.call.id,
            cause=cause,
            value=value,
            growth=growth,
            wait=wait,
            error=None if error is None else self._record(error, cause, note),
            retryable=retryable,
            stops=stops,
            culprit=culprit,
            worker=worker_name(self.pid, self.call.gpu_ids),
            started_at=self.started_at,
            finished_at=_clock.now(),
            peak_memory_bytes=None if self.memory is None else self.memory.read_bytes(),
            states=states or {},
        )

    def _record(self, error: BaseException, cause: Cause, note: str) -> ErrorRecord:
        return error_record(
            error,
            cause=cause,
            step_id=self.call.id.step_id,
            pickle=self.scope.values.codecs.pickle,
            redactor=self.scope.redactor,
            note=note,
        )


def _refuse_nodes_inside(result: Any) -> None:
    """Say of a value that cannot be stored that this is for the nodes in it, if it is."""
    if "perdure.graph.node" not in sys.modules:
        return
    from perdure.worker.growth import refuse_nodes_inside

    try:
        refuse_nodes_inside(result)
    except DefinitionError as error:
        raise _user_refusal(error) from None


def _bare(error: BaseException) -> BaseException:
    """Return an error of ours without its way through perdure, which tells its reader nothing."""
    if isinstance(error, PerdureError) and not isinstance(error, InternalError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _user_refusal(error: Exception) -> Refusal:
    return Refusal(Cause.USER_ERROR, error, retryable=False)


def _is_graph(result: Any) -> bool:
    """Say whether ``result`` stands for calls; without importing the graph: none was made then."""
    nodes = sys.modules.get("perdure.graph.node")
    maps = sys.modules.get("perdure.mapping")
    chunks = sys.modules.get("perdure.chunks")
    return (
        (nodes is not None and isinstance(result, nodes.Node))
        or (maps is not None and isinstance(result, maps.Children))
        or (chunks is not None and isinstance(result, chunks.PartlyFailed))
    )


def _is_ray_node(result: Any) -> bool:
    """Say whether ``result`` is a node of Ray's; without importing it: none was made then."""
    rays = sys.modules.get("ray.dag")
    return rays is not None and isinstance(result, rays.DAGNode)


def _is_pause(result: Any) -> bool:
    """Say whether ``result`` is a wait; without importing them: none was made then."""
    pauses = sys.modules.get("perdure.pausing")
    return pauses is not None and isinstance(result, pauses.Pause)


_host = ""
_SHOWN = 12
"""So much of a GPU's name tells it from the others of a machine."""


def worker_name(pid: int, gpu_ids: Sequence[str] = ()) -> str:
    """Return ``"host/pid"`` of a process on this host, with the GPUs that it has been given."""
    global _host
    _host = _host or os.uname().nodename
    gpus = f" gpu {','.join(each[:_SHOWN] for each in gpu_ids)}" if gpu_ids else ""
    return f"{_host}/{pid}{gpus}"
