"""Runs attempts inside ``poll``, one after the other, in the coordinator's own thread.

For tests, debuggers and tiny steps. It cannot end a running attempt: no time-out is enforced, and
a crash of a step is a crash of the process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from perdure.calls import CallContext, CallId, Desk, Instance, Outcome, StepCall
from perdure.executors.capacity import detect_capacity
from perdure.executors.endings import ended, unbegun
from perdure.executors.protocol import Capacity
from perdure.executors.spools import drop_leftovers
from perdure.executors.waking import WakePipe
from perdure.plan import Function
from perdure.worker.output import StepLogHandler, captured_streams
from perdure.worker.readiness import wait_readable
from perdure.worker.saving import NoDesk
from perdure.worker.scope import RunScope
from perdure.worker.steps import Attempt
from perdure_storage.records import Cause, ProcessId, StoredValue

_QUEUED = 512
_TURN_S = 0.01
"""``poll`` returns with what it has after this time: so that short calls come in batches and the
outcome of a long one is told, and made durable, before the next begins."""


class InlineExecutor:
    """The executor ``"inline"``. Owned by one thread."""

    name = "inline"
    can_kill = False

    def __init__(self, capacity: Capacity | None = None) -> None:
        # What is submitted waits here: enough at one time for commits to be worth their sync.
        offered = capacity or detect_capacity()
        self.capacity = msgspec.structs.replace(offered, slots=_QUEUED, is_serial=True)
        self._scopes: dict[str, RunScope] = {}
        self._calls: deque[StepCall] = deque()
        self._outcomes: list[Outcome] = []
        self._wake = WakePipe()
        self._desk: Desk = NoDesk()
        self._handler = StepLogHandler()
        self._closed = False
        self.runs_here = False

    def attend(self, desk: Desk) -> None:
        self._desk = desk

    def hand_over(self, calls: Sequence[CallId]) -> None:
        # What runs here asks the desk itself.
        self.kill(calls, grace_s=0, cause=Cause.ABANDONED)

    def open_run(self, context: CallContext) -> None:
        self._scopes[context.run_id] = RunScope(context)
        drop_leftovers(context)

    def extend_run(
        self, run_id: str, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None:
        self._scopes[run_id].learn(functions, constants)

    def close_run(self, run_id: str) -> None:
        scope = self._scopes.pop(run_id, None)
        if scope is not None:
            scope.close()

    def submit(self, calls: Sequence[StepCall]) -> None:
        self._calls.extend(calls)

    def retire(self, instances: Sequence[Instance]) -> None:
        """Do nothing: actors have no processes of their own here."""

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        """End calls that have not begun; no other can be in flight between two polls."""
        wanted = set(calls)
        unstarted = [call for call in self._calls if call.id in wanted]
        self._calls = deque(call for call in self._calls if call.id not in wanted)
        self._outcomes += [unbegun(call, cause) for call in unstarted]

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        if not self._calls and not self._outcomes:
            self._wait(timeout_s)
        if self._calls:
            self.runs_here = True
            try:
                with captured_streams(self._handler):
                    self._run_calls()
            finally:
                self.runs_here = False
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def wake(self) -> None:
        self._wake.wake()

    def workers(self) -> tuple[ProcessId, ...]:
        return ()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._calls.clear()
        for run_id in list(self._scopes):
            self.close_run(run_id)
        self._wake.close()

    # --- inside poll ----------------------------------------------------------------------------
    def _wait(self, timeout_s: float | None) -> None:
        if timeout_s != 0:
            wait_readable([self._wake.fd], timeout_s)
        self._wake.drain()

    def _run_calls(self) -> None:
        until = time.monotonic() + _TURN_S
        while self._calls:
            call = self._calls.popleft()
            scope = self._scopes[call.id.run_id]
            if scope.is_async(call.function):
                self._run_async([call, *self._take_async()])
            else:
                self._outcomes.append(self._run_one(call, scope))
            if time.monotonic() >= until:
                return

    def _run_one(self, call: StepCall, scope: RunScope) -> Outcome:
        attempt = Attempt(call, scope, desk=self._desk)
        try:
            outcome = attempt.run()
        except BaseException:
            # Ctrl-C while user code ran. The call ends as nobody's fault if we are polled again.
            self._outcomes.append(ended(call, Cause.ABANDONED))
            raise
        finally:
            attempt.close()
        return outcome

    def _take_async(self) -> list[StepCall]:
        """Take the other ``async def`` calls that wait: they run together."""
        taken: list[StepCall] = []
        left: deque[StepCall] = deque()
        room = self.capacity.async_slots - 1
        for call in self._calls:
            if len(taken) < room and self._scopes[call.id.run_id].is_async(call.function):
                taken.append(call)
            else:
                left.append(call)
        self._calls = left
        return taken

    def _run_async(self, calls: list[StepCall]) -> None:
        # Imported here: the event loop's library is as slow to load as all of perdure.
        from perdure.executors.together import run_together

        attempts = [Attempt(call, self._scopes[call.id.run_id], desk=self._desk) for call in calls]
        try:
            self._outcomes += run_together(attempts)
        except BaseException:
            self._outcomes += [ended(call, Cause.ABANDONED) for call in calls]
            raise
        finally:
            for attempt in attempts:
                attempt.close()
