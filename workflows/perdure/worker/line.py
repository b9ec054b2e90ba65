"""The worker's end of its line to the coordinator, from which questions are answered, too.

While a call runs nobody reads the line, unless the call asks something: then whoever asks reads,
and what comes beside the answer waits for the server. One thread reads at a time.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from perdure.calls import CallId, Saving, Told
from perdure.errors import DefinitionError
from perdure.worker.frames import (
    Down,
    FrameBuffer,
    HandOver,
    Keep,
    Kept,
    Tell,
    Up,
    decode_down,
    encode_frames,
)
from perdure.worker.readiness import wait_readable
from perdure_storage.records import Refusal

_RECEIVE_BYTES = 1 << 18
_READ_BY_ANOTHER_S = 0.02


class Line:
    """Sends and receives messages; the ``Desk`` of this worker's attempts.

    Args:
        line: to the coordinator; blocking.
        shield: what a question is asked under, so that no signal handler cuts it short.
        on_come: called when whoever asked has read something that waits for ``receive``.
    """

    def __init__(
        self,
        line: socket.socket,
        *,
        shield: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_come: Callable[[], None] = lambda: None,
    ) -> None:
        self._line = line
        self._shield = shield
        self._on_come = on_come
        self._pid = os.getpid()
        self._frames = FrameBuffer()
        self._come: deque[Down] = deque()
        self._answers: dict[int, Refusal | None] = {}
        self._asked = 0
        self._wishes: set[CallId] = set()
        self._is_open = True
        # Held while a thread reads, and while it sends: a message is never cut into another.
        self._reading = threading.Lock()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor, for a loop to watch."""
        return self._line.fileno()

    @property
    def is_open(self) -> bool:
        """Say whether the coordinator has not closed it."""
        return self._is_open

    def send(self, message: Up) -> None:
        """Send a message, whole."""
        with self._sending:
            self._line.sendall(encode_frames([message]))

    def receive(self, *, wait: bool = True) -> list[Down]:
        """Return the messages that have come, waiting for some if there are none."""
        if not self._come and self._reading.acquire(blocking=wait):
            try:
                if not self._come:
                    self._read(wait=wait)
            finally:
                self._reading.release()
        come: list[Down] = []
        while self._come:  # another thread may add to it meanwhile
            come.append(self._come.popleft())
        return come

    # --- the desk ---------------------------------------------------------------------------
    def keep(self, saving: Saving) -> Refusal | None:
        """Ask the coordinator to make a save durable, and wait for its answer."""
        self._require_worker()
        with self._shield():
            with self._sending:
                self._asked += 1
                number = self._asked
                self._line.sendall(encode_frames([Keep(number, saving)]))
            return self._answer(number)

    def _answer(self, number: int) -> Refusal | None:
        while number not in self._answers:
            # Another thread may read meanwhile, and with it our answer.
            if self._reading.acquire(timeout=_READ_BY_ANOTHER_S):
                try:
                    if number not in self._answers and not self._read():
                        return Refusal(kind="gone", message="the coordinator is gone")
                finally:
                    self._reading.release()
        if self._come:
            self._on_come()
        return self._answers.pop(number)

    def tell(self, told: Told) -> None:
        """Say how far an attempt is."""
        if os.getpid() == self._pid:
            with self._shield():
                self.send(Tell(told))

    def look(self, call: CallId) -> bool:
        """Take in what has come meanwhile, and say whether the attempt may hand over."""
        if os.getpid() == self._pid and self._reading.acquire(blocking=False):
            try:
                with self._shield():
                    while self._read(wait=False):
                        pass
            finally:
                self._reading.release()
            if self._come:
                self._on_come()
        return call in self._wishes

    def forget(self, call: CallId) -> None:
        """Forget what was wished of a call that is over."""
        self._wishes.discard(call)

    # --- reading, by whoever holds the lock ---------------------------------------------------
    def _read(self, *, wait: bool = True) -> bool:
        """Take in what comes; False: the line is closed, or nothing is there now."""
        if not wait and not wait_readable([self._line.fileno()], 0):
            return False
        try:
            data = self._line.recv(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        self._is_open = bool(data)
        for body in self._frames.feed(data):
            message = decode_down(body)
            if isinstance(message, Kept):
                self._answers[message.number] = message.refusal
            elif isinstance(message, HandOver):
                self._wishes.update(message.calls)
            else:
                self._come.append(message)
        return self._is_open

    def _require_worker(self) -> None:
        if os.getpid() != self._pid:
            raise DefinitionError("save() was called in a process that the step has forked")
