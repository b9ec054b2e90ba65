"""A worker for plain functions: one call at a time, in the main thread."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from perdure.calls import StepCall
from perdure.worker.forks import cut_off_children
from perdure.worker.frames import Define, Done, Down, Forget, Judged, Ready, Work
from perdure.worker.line import Line
from perdure.worker.memory import PeakMemory
from perdure.worker.scopes import Scopes
from perdure.worker.steps import Attempt
from perdure.worker.streams import StandardStreams
from perdure.worker.surroundings import Surroundings
from perdure.worker.tickets import TicketTaker
from perdure_storage.faults import crash_point


def serve(line: socket.socket, tickets: int) -> None:
    """Serve calls until the coordinator closes ``line``."""
    cut_off_children(line.fileno(), tickets)
    Server(line, TicketTaker(tickets)).serve()


class Server:
    """Runs the calls that come over a line, in order. Owned by the main thread."""

    def __init__(self, line: socket.socket, tickets: TicketTaker) -> None:
        self._interruption = Interruption()
        self._line = Line(line, shield=self._interruption.put_off)
        self._tickets = tickets
        self._scopes = Scopes()
        self._calls: deque[tuple[int, StepCall]] = deque()
        self._memory = PeakMemory()
        self._streams = StandardStreams()
        self._surroundings = Surroundings()

    def serve(self) -> None:
        """Read and run until the line closes."""
        crash_point("worker.start")
        self._line.send(Ready(os.getpid()))
        while self._read():
            self._run_calls()

    def _read(self) -> bool:
        """Wait for messages and take them in; say whether the line is open."""
        self._interruption.rest()
        try:
            come = self._line.receive()
        finally:
            self._interruption.rouse()
        for message in come:
            self._take(message)
        return self._line.is_open

    def _take(self, message: Down) -> None:
        if isinstance(message, Work):
            self._calls.extend((message.lot, call) for call in message.whole_calls())
        elif isinstance(message, Define):
            self._scopes.define(message)
        elif isinstance(message, Forget):
            self._scopes.forget(message.run_id)
        # ``Stop`` is for async workers: this one is asked by SIGTERM.

    def _run_calls(self) -> None:
        while self._calls:
            lot, call = self._calls.popleft()
            if self._tickets.take(lot):
                self._run(call)

    def _run(self, call: StepCall) -> None:
        self._memory.reset()
        self._streams.restore()
        attempt = Attempt(
            call,
            self._scopes.of(call),
            memory=self._memory,
            surroundings=self._surroundings,
            desk=self._line,
        )
        if call.timeout_s is not None and call.retry_on is not None:
            self._line.send(Judged(call.id, attempt.judge_timeout()))
        self._interruption.begin(attempt)
        try:
            outcome = attempt.run()
        except KeyboardInterrupt as error:
            outcome = attempt.failed(error)  # The step raised it itself: SIGINT is ignored here.
        finally:
            self._interruption.end()
        attempt.saves.close()
        self._line.forget(call.id)
        # At once: the next call may take long, whatever those before it took.
        crash_point("worker.before-outcome")
        self._line.send(Done((outcome,), (self._streams.written_bytes(),)))
        crash_point("worker.after-outcome")


class Interruption:
    """SIGTERM means: end the call that runs. Installed in the main thread, where calls run."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._attempt: Attempt | None = None
        self._is_idle = False
        self._came_early = False
        self._came_shielded = False
        self._is_shielded = False
        self._handlers = {
            signal.SIGTERM: self._on_sigterm,
            signal.SIGINT: signal.getsignal(signal.SIGINT),
        }

    def rest(self) -> None:
        """Say that nothing runs and nothing is owed. A SIGTERM ends the worker from now on.

        Between calls, either this worker is on its way out, since its call has just ended, or
        somebody else has sent the signal, and no later call is to pay for that.
        """
        self._is_idle = True
        if self._came_early:
            _die(signal.SIGTERM)

    def rouse(self) -> None:
        """Say that calls may have come."""
        self._is_idle = False

    def begin(self, attempt: Attempt) -> None:
        """Name the attempt that runs from now on."""
        # Steps may set handlers of their own; the next call starts with ours again.
        for signum, handler in self._handlers.items():
            if signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)
        self._attempt = attempt
        if self._came_early:
            attempt.stop.asked = True

    def end(self) -> None:
        """Say that no attempt runs."""
        self._attempt = None
        self._came_shielded = False

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Put an interruption off while a call talks to the coordinator: no message is cut short.

        Handlers run in the main thread only, and so others need nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False
        if self._came_shielded and self._attempt is not None:
            self._came_shielded = False
            self._attempt.interrupt()

    def _on_sigterm(self, signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid or self._is_idle:
            # In a child that the step forked without exec, it means what it always does.
            _die(signum)
        elif self._attempt is not None and self._is_shielded:
            self._attempt.stop.asked = self._came_shielded = True
        elif self._attempt is not None:
            self._attempt.interrupt()
        else:
            self._came_early = True  # For a call that has come and not begun, or that is over.


def _die(signum: int) -> None:
    """End as the signal ends a process that has no handler for it."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
