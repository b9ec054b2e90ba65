"""A worker for ``async def`` functions: many calls at a time on one event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable

from perdure.calls import CallId, Outcome, StepCall
from perdure.worker.forks import cut_off_children
from perdure.worker.frames import (
    Define,
    Done,
    Down,
    Forget,
    Judged,
    Ready,
    Stop,
    Work,
)
from perdure.worker.line import Line
from perdure.worker.memory import PeakMemory
from perdure.worker.output import SEGMENT_AGE_S, DivertedStream
from perdure.worker.scopes import Scopes
from perdure.worker.steps import Attempt
from perdure_storage.faults import crash_point


def serve_async(line: socket.socket) -> None:
    """Serve calls until the coordinator closes ``line``."""
    sys.stdout = DivertedStream(sys.stdout)
    sys.stderr = DivertedStream(sys.stderr)
    cut_off_children(line.fileno())
    asyncio.run(_serve(line))


async def _serve(line: socket.socket) -> None:
    await AsyncServer(line).serve()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


class AsyncServer:
    """Runs the calls that come over a line together. Owned by the loop's thread.

    The line is read as it becomes readable, and by a coroutine that saves, which waits for its
    answer: so not by a stream of asyncio's, which would have read on beyond it.
    """

    def __init__(self, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._line = Line(line, on_come=lambda: _soon(loop, self._hear))
        self._over = asyncio.Event()
        self._scopes = Scopes()
        self._attempts: dict[CallId, Attempt] = {}
        self._tasks: dict[CallId, asyncio.Task[None]] = {}
        self._outcomes: list[Outcome] = []
        self._memory = PeakMemory()

    async def serve(self) -> None:
        """Read and start calls until the line closes."""
        crash_point("worker.start")
        self._line.send(Ready(os.getpid()))
        self._flush_logs()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._line.fileno(), self._hear)
        try:
            await self._over.wait()
        finally:
            loop.remove_reader(self._line.fileno())

    def _hear(self) -> None:
        for message in self._line.receive(wait=False):
            self._take(message)
        if not self._line.is_open:
            self._over.set()

    def _take(self, message: Down) -> None:
        if isinstance(message, Work):
            for call in message.whole_calls():
                self._start(call)
        elif isinstance(message, Stop):
            for at in message.calls:
                self._cancel(at)
        elif isinstance(message, Define):
            self._scopes.define(message)
        else:
            assert isinstance(message, Forget)
            self._scopes.forget(message.run_id)

    def _start(self, call: StepCall) -> None:
        scope = self._scopes.of(call)
        attempt = Attempt(call, scope, memory=self._memory, desk=self._line)
        if call.timeout_s is not None and call.retry_on is not None:
            self._line.send(Judged(call.id, attempt.judge_timeout()))
        self._attempts[call.id] = attempt
        self._tasks[call.id] = asyncio.get_running_loop().create_task(self._run(attempt))

    def _cancel(self, at: CallId) -> None:
        if at in self._tasks:
            self._attempts[at].stop.asked = True
            self._tasks[at].cancel()

    async def _run(self, attempt: Attempt) -> None:
        try:
            outcome = await attempt.run_async()
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            # Cancelled before its first line ran; or the step raised Ctrl-C's exception itself.
            outcome = attempt.failed(error)
        del self._attempts[attempt.call.id], self._tasks[attempt.call.id]
        attempt.close()
        self._line.forget(attempt.call.id)
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self._tell)
        self._outcomes.append(outcome)

    def _tell(self) -> None:
        crash_point("worker.before-outcome")
        self._line.send(Done(tuple(self._outcomes)))
        self._outcomes.clear()
        crash_point("worker.after-outcome")

    def _flush_logs(self) -> None:
        """Write what running calls have printed, every second from now on."""
        for attempt in self._attempts.values():
            attempt.output.flush()
        asyncio.get_running_loop().call_later(SEGMENT_AGE_S, self._flush_logs)
