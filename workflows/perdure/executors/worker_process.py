"""One worker process, as its coordinator holds it: lines, output file, what it has been told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

import msgspec

from perdure.calls import CallContext, CallId, Instance, Replay, StepCall
from perdure.executors.gpus import visible_gpus
from perdure.executors.process_tree import kill_processes, process_id
from perdure.plan import Arg, Const, DictArg, ListArg, ObjectArg
from perdure.worker.frames import (
    Define,
    Down,
    Forget,
    FrameBuffer,
    HandOver,
    Kept,
    Stop,
    Up,
    Work,
    decode_up,
    encode_frames,
)
from perdure.worker.inputs import take_out
from perdure.worker.keeper import KILL, STATUS, TERM
from perdure.worker.steps import worker_name
from perdure.worker.tickets import Tickets
from perdure_storage.clock import SystemClock
from perdure_storage.records import Cause, ProcessId, Refusal

_clock = SystemClock()

_RECEIVE_BYTES = 1 << 20
_KEEP_OUTPUT_BYTES = 1 << 20
"""An output file that has grown beyond this is emptied when the worker is idle."""


class Flight:
    """One call in a worker's hands.

    Attributes:
        ending: the cause with which it is being ended; None while it is not.
        timeout_is_retryable: what ``retry_on`` says of a time-out; True until the worker says.
        held_bytes: the memory for which it is being ended; 0 if it is not.
        started_at: when it was handed over: what is told of one that cannot tell itself.
    """

    __slots__ = ("call", "ending", "held_bytes", "started_at", "timeout_is_retryable")

    def __init__(self, call: StepCall) -> None:
        self.call = call
        self.ending: Cause | None = None
        self.timeout_is_retryable = True
        self.held_bytes = 0
        self.started_at = _clock.now()


class WorkerProcess:
    """A fresh interpreter that serves calls, below a keeper. Owned by the coordinator's thread.

    Attributes:
        key: what kind of worker it is; calls go to workers of their kind only.
        flights: the calls that it has, in the order in which they were handed over.
        worker_pid: the worker's own pid, below the keeper's; 0 until it has said that it reads.
        is_ending: it is being killed; no call is given to it any more.
        has_hung_up: it has closed its line, or died.
        calls_given: how many calls it has had.
        status: its exit status once it and everything below it are gone; None before, and for
            ever if its keeper was killed.
    """

    def __init__(self, key: WorkerKey) -> None:
        self.key = key
        self.flights: dict[CallId, Flight] = {}
        self.worker_pid = 0
        self.is_ending = False
        self.has_hung_up = False
        self.calls_given = 0
        self.status: int | None = None
        self._known: dict[str, tuple[set[str], set[int]]] = {}
        self._frames = FrameBuffer()
        self._unsent = bytearray()
        self._read_at = 0
        self._identity: ProcessId | None = None
        self.line, their_line = socket.socketpair()
        self.life, their_life = socket.socketpair()
        self._output, their_output = _make_output_file()
        self._tickets = Tickets()
        try:
            self._process = _start_interpreter(
                key, their_line, their_life, their_output, self._tickets.fd
            )
        except BaseException:
            self._close_lines()
            raise
        finally:
            their_line.close()
            their_life.close()
            os.close(their_output)
        self.line.setblocking(False)
        self.life.setblocking(False)

    @property
    def pid(self) -> int:
        """Return the pid of the keeper, which outlives the worker and all that it starts."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Say whether it has said that it reads."""
        return self.worker_pid != 0

    @property
    def name(self) -> str:
        """Return what the worker calls itself, for outcomes that it cannot send."""
        return worker_name(self.worker_pid or self.pid, self.key.gpu_ids or ())

    @property
    def identity(self) -> ProcessId | None:
        """Return the keeper's identity; None if it is gone."""
        if self._identity is None:
            self._identity = process_id(self.pid)
        return self._identity

    # --- downwards ------------------------------------------------------------------------------
    @property
    def has_unsent(self) -> bool:
        """Say whether the line was full: ``send_rest`` is to be called when it is writable."""
        return bool(self._unsent)

    def give(self, calls: Sequence[StepCall], contexts: dict[str, CallContext]) -> None:
        """Hand over calls, and first what they need that this worker does not know yet."""
        messages: list[Down] = []
        self.calls_given += len(calls)
        for call in calls:
            self.flights[call.id] = Flight(call)
            define = self._missing(call, contexts[call.id.run_id])
            if define is not None:
                messages.append(define)
        # The tickets first: a call that finds none was taken back.
        lot = 0 if self.key.is_async else self._tickets.give(len(calls))
        lighter, shared = take_out(calls)
        messages.append(Work(lighter, lot, shared))
        self._send(messages)

    def take_back(self, *, leaving: int = 0) -> list[StepCall]:
        """Take back the calls that have not begun, in order; it will begin none of them.

        Args:
            leaving: so many of those that it has are left to it, begun or not.
        """
        if self.key.is_async:
            return []
        count = self._tickets.take_back(at_most=len(self.flights) - leaving)
        back = [flight.call for flight in list(self.flights.values())[len(self.flights) - count :]]
        for call in back:
            del self.flights[call.id]
        return back

    def ask(self, at: CallId) -> None:
        """Ask for the end of a call: by message where calls share a loop, else by SIGTERM."""
        if self.key.is_async:
            self._send([Stop((at,))])
        else:
            self._order(TERM)

    def answer(self, number: int, refusal: Refusal | None) -> None:
        """Answer the question of that number of a call that saves."""
        self._send([Kept(number, refusal)])

    def hand_over(self, calls: Sequence[CallId]) -> None:
        """Tell calls that they may end early."""
        self._send([HandOver(tuple(calls))])

    def kill(self) -> None:
        """Have the keeper SIGKILL the worker and end everything below it."""
        self.is_ending = True
        self._order(KILL)

    def forget(self, run_id: str) -> None:
        """Tell the worker that a run is over, if it has heard of it."""
        if self._known.pop(run_id, None) is not None:
            self._send([Forget(run_id)])

    def send_rest(self) -> None:
        """Send as much as the line takes of what it did not take before."""
        try:
            sent = self.line.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # It is dying; its keeper will say so.

    def _send(self, messages: Iterable[Down]) -> None:
        self._unsent += encode_frames(messages)
        self.send_rest()

    def _order(self, order: bytes) -> None:
        try:
            self.life.send(order)
        except OSError:
            pass  # The keeper is gone, and the worker with it.

    def _missing(self, call: StepCall, context: CallContext) -> Define | None:
        known = self._known.get(call.id.run_id)
        base = None
        if known is None:
            known = self._known[call.id.run_id] = (set(), set())
            base = bare(context)
        functions, constants = known
        new_functions = needed_functions(call) - functions
        new_constants = needed_constants(call) - constants
        if base is None and not new_functions and not new_constants:
            return None
        functions |= new_functions
        constants |= new_constants
        return Define(
            run_id=call.id.run_id,
            context=base,
            functions={name: context.functions[name] for name in new_functions},
            constants={index: context.constants[index] for index in new_constants},
        )

    # --- upwards --------------------------------------------------------------------------------
    def receive(self) -> list[Up]:
        """Return the messages that have come; notes when the worker has closed its line."""
        messages: list[Up] = []
        while not self.has_hung_up:
            try:
                data = self.line.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            self.has_hung_up = not data
            messages += map(decode_up, self._frames.feed(data))
            if len(data) < _RECEIVE_BYTES:
                break
        return messages

    def read_status(self) -> bool:
        """Take news from the keeper; say whether it has ended, and the worker's tree with it."""
        try:
            data = self.life.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if len(data) == STATUS.size:
            (self.status,) = STATUS.unpack(data)
            return False
        return True

    def read_output(self, up_to: int | None = None) -> bytes:
        """Return what was printed since the last call, up to an offset of the output file."""
        if up_to is not None and up_to <= self._read_at:
            return b""
        size = os.fstat(self._output).st_size
        end = size if up_to is None else min(up_to, size)
        if end <= self._read_at:
            return b""
        data = os.pread(self._output, end - self._read_at, self._read_at)
        self._read_at += len(data)
        return data

    def trim_output(self) -> None:
        """Give the output file's space back; only while the worker is idle."""
        if self._read_at > _KEEP_OUTPUT_BYTES:
            os.ftruncate(self._output, 0)
            self._read_at = 0

    # --- the end --------------------------------------------------------------------------------
    def bury(self) -> None:
        """Reap the keeper and release everything; the tree is gone, or is ended here."""
        identity = self._identity or process_id(self.pid)
        self._process.wait()
        if self.status is None and identity is not None:
            # The keeper itself was killed. What the kernel did not end with it, we do.
            kill_processes([identity])
        self._close_lines()

    def _close_lines(self) -> None:
        self.line.close()
        self.life.close()
        os.close(self._output)
        self._tickets.close()


class WorkerKey:
    """What calls must have in common to share a worker. Compared by value.

    Attributes:
        is_async: they share a loop.
        folder: where the sources of their run are, if they differ from today's.
        actor: whose calls they are: the instance of the actor lives in that process.
        is_pooled: that is one of a pool, which its constructor makes again wherever it is needed.
        gpu_ids: the GPUs that it sees: a process chooses once. None: no GPUs are counted here,
            and it sees what the coordinator does.
    """

    __slots__ = ("actor", "folder", "gpu_ids", "is_async", "is_pooled")

    def __init__(
        self,
        *,
        is_async: bool,
        folder: str | None = None,
        actor: Instance | None = None,
        is_pooled: bool = False,
        gpu_ids: tuple[str, ...] | None = None,
    ) -> None:
        self.is_async = is_async
        self.folder = folder
        self.actor = actor
        self.is_pooled = is_pooled
        self.gpu_ids = gpu_ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerKey) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def shares_gpu(self, other: WorkerKey) -> bool:
        """Say whether both see the same GPU."""
        return not set(self.gpu_ids or ()).isdisjoint(other.gpu_ids or ())

    def _parts(self) -> tuple[object, ...]:
        return self.is_async, self.folder, self.actor, self.gpu_ids


def bare(context: CallContext) -> CallContext:
    """Return the context without functions and constants: those are sent as they are needed."""
    return msgspec.structs.replace(context, functions={}, constants={})


def needed_functions(call: StepCall) -> set[str]:
    """Return the functions that a call needs: of an actor's its class as well."""
    return {call.function} if call.actor is None else {call.function, call.actor.of.cls}


def needed_constants(call: StepCall) -> set[int]:
    """Return the constants that the call's arguments and ``retry_on`` refer to."""
    found: set[int] = set()
    calls: list[StepCall | Replay] = [call]
    if call.actor is not None:
        calls += call.actor.replay
    for each in calls:
        for arg in (*each.args, *each.kwargs.values()):
            _collect(arg, found)
    if call.retry_on is not None:
        found.add(call.retry_on)
    if call.stop_when is not None:
        found.add(call.stop_when)
    return found


def _collect(arg: Arg, found: set[int]) -> None:
    if isinstance(arg, Const):
        found.add(arg.index)
    elif isinstance(arg, ListArg):
        for item in arg.items:
            _collect(item, found)
    elif isinstance(arg, DictArg):
        found.update(key.index for key in arg.keys)
        for item in arg.values:
            _collect(item, found)
    elif isinstance(arg, ObjectArg):
        found.add(arg.cls.index)
        for item in arg.fields.values():
            _collect(item, found)


def _make_output_file() -> tuple[int, int]:
    """Return a nameless file twice: for us to read, and for the worker to append to."""
    ours, path = tempfile.mkstemp(prefix="perdure-output-")
    try:
        theirs = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    finally:
        os.unlink(path)
    return ours, theirs


def _start_interpreter(
    key: WorkerKey, line: socket.socket, life: socket.socket, output: int, tickets: int
) -> subprocess.Popen[bytes]:
    """Start a worker in a fresh interpreter: same path, folder and environment as here.

    Not ``-m``: the path is set before anything of ours is imported, so that a perdure which is
    only on this process's path is found too.
    """
    path = [str(entry) for entry in sys.path]
    if key.folder is not None:
        path.insert(0, key.folder)
    kind = "async" if key.is_async else "sync"
    arguments = (os.getpid(), line.fileno(), life.fileno(), tickets, kind)
    program = f"import sys; sys.path[:] = {path!r}; " + (
        f"from perdure.worker.entry import main; main{arguments!r}"
    )
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # CUDA reads it once, at the latest when a step's module is imported.
        env=None if key.gpu_ids is None else {**os.environ, **visible_gpus(key.gpu_ids)},
        pass_fds=(line.fileno(), life.fileno(), tickets),
        start_new_session=True,
    )
