"""A worker process of Ray's that runs perdure's calls: what a Ray task does.

The process is Ray's and serves other tasks of the same job too. What is set for a call is set back
after it: the standard streams, what Ctrl-C means, the surroundings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from perdure.bundle import unpack_bundle
from perdure.calls import CallContext, CallId, Outcome, Saving, StepCall, Told
from perdure.errors import DefinitionError
from perdure.worker.frames import Done, Tell
from perdure.worker.kinship import adopt_orphans, descendant_pids
from perdure.worker.lots import Back, Begun, Ended, Lot, News, decode_lot, encode
from perdure.worker.memory import PeakMemory
from perdure.worker.output import SEGMENT_AGE_S, DivertedStream
from perdure.worker.scope import RunScope
from perdure.worker.steps import Attempt, worker_name
from perdure.worker.streams import StandardStreams, log_to_stderr, open_stream
from perdure.worker.surroundings import Surroundings
from perdure_storage.blobs import open_blobs
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, ProcessId, Refusal

_MOST_RUNS = 8
"""So many runs are remembered in a process; what a lot needs comes with it."""
SOURCES = "_PERDURE_RAY_SOURCES"
"""In the environment of workers that are to have recorded sources first on their path: which."""
MARK = "_PERDURE_RAY_WORKER"
"""In the environment of all that a worker starts: which worker that was."""
PATIENCE_S = 0.05
"""How long calls may wait behind another one before they are given back."""
_LOOK_EVERY_S = 0.2
_KEEP_OUTPUT_BYTES = 1 << 20
decode_call_id = msgspec.msgpack.Decoder(CallId).decode
_decode_refusal = msgspec.msgpack.Decoder(Refusal | None).decode


def run_lot(data: bytes, mailbox: Any) -> bytes:
    """Run the calls of a lot in order; return their outcomes.

    Args:
        data: the ``Lot``.
        mailbox: Ray's handle of the coordinator's ``Mailbox``.
    """
    return here().run(decode_lot(data), mailbox)


def mark_of(process: ProcessId) -> str:
    """Return the mark of a worker on all that it starts."""
    return f"{process.pid}.{process.started:.2f}"


def end_worker(process: ProcessId) -> None:
    """End a worker of this node, and all that it has started, also where it is gone itself.

    What has left its tree is found by the mark in its environment.
    """
    import psutil

    mark = f"{MARK}={mark_of(process)}".encode()
    for pid in psutil.pids():
        try:
            is_its_own = pid == process.pid and mark_of(_identity(pid)) == mark_of(process)
            if is_its_own:
                _kill(pid for pid in descendant_pids(pid) if pid != process.pid)
            if is_its_own or mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                _kill([pid])
        except (OSError, psutil.Error):
            continue  # gone meanwhile, or another user's


def _identity(pid: int) -> ProcessId:
    import psutil

    return ProcessId(pid=pid, started=psutil.Process(pid).create_time())


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(ref: Any) -> Any:
    """Return what a reference stands for; not by ``ray.get``, which lends the CPUs to others."""
    return ref.future().result()


class ActorHost:
    """A Ray actor in which one instance of an actor lives. Ray runs its calls in order."""

    def run(self, data: bytes, mailbox: Any) -> bytes:
        """Run the call of a lot; return its outcome."""
        return run_lot(data, mailbox)


class AsyncHost:
    """A Ray actor that runs ``async def`` calls together, on its event loop."""

    def __init__(self) -> None:
        self._worker = here()
        self._running: dict[CallId, tuple[Attempt, asyncio.Task[Any]]] = {}
        self._flusher: asyncio.Task[None] | None = None
        sys.stdout = DivertedStream(sys.stdout)
        sys.stderr = DivertedStream(sys.stderr)

    async def run(self, data: bytes, mailbox: Any) -> bytes:
        """Run the one call of a lot; return its outcome."""
        lot = decode_lot(data)
        (call,) = lot.calls
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        attempt, desk = self._worker.attempt(lot, call, mailbox)
        self._worker.say_begun(lot, attempt, mailbox)
        task = asyncio.get_running_loop().create_task(attempt.run_async())
        self._running[call.id] = attempt, task
        try:
            outcome = await task
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            outcome = attempt.failed(error)  # before its first line ran; or it raised it itself
        del self._running[call.id]
        attempt.close()
        outcome = msgspec.structs.replace(outcome, worker=self._worker.name)
        return encode(Ended((outcome,), desk.last))

    async def stop(self, calls: list[bytes]) -> None:
        """Cancel calls, if they run."""
        for data in calls:
            running = self._running.get(decode_call_id(data))
            if running is not None:
                attempt, task = running
                attempt.stop.asked = True
                task.cancel()

    async def _flush(self) -> None:
        """Write what running calls have printed, every second."""
        while True:
            await asyncio.sleep(SEGMENT_AGE_S)
            for attempt, _ in list(self._running.values()):
                attempt.output.flush()


class RayWorker:
    """What this process keeps between lots. Owned by the main thread, in which Ray runs tasks."""

    def __init__(self) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        crash_point("worker.start")
        self.node = str(ray.get_runtime_context().get_node_id())
        self._pid = os.getpid()
        self._process = _identity(self._pid)
        os.environ[MARK] = mark_of(self._process)
        adopt_orphans()  # so that whatever a step starts is found below this process
        self._scopes: OrderedDict[str, RunScope] = OrderedDict()
        self._memory = PeakMemory()
        self._surroundings = Surroundings()
        self._output = Output()
        self._interruption = Interruption()
        self._has_sources = False
        log_to_stderr()

    @property
    def name(self) -> str:
        """Return ``"host/pid node id"`` of this process, with the GPUs that Ray has given it."""
        import ray  # pyright: ignore[reportMissingImports]

        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        host, _, rest = worker_name(self._pid, gpus).partition(" ")
        return " ".join(part for part in (f"{host} node {self.node[:12]}", rest) if part)

    def run(self, lot: Lot, mailbox: Any) -> bytes:
        """Run the calls of a lot; tell of each at its end, and of all in what is returned."""
        outcomes: list[Outcome] = []
        told: list[Told] = []
        name = self.name
        begun = self._begun(lot, name) if lot.is_brief else None
        news = Despatches(mailbox, begun)
        with self._output.diverted(), Remainder(lot, news) as remainder:
            while (call := remainder.next()) is not None:
                attempt, desk = self.attempt(lot, call, mailbox, self._surroundings)
                if begun is None and not outcomes:
                    self.say_begun(lot, attempt, mailbox)
                outcome = msgspec.structs.replace(self._run(attempt, mailbox), worker=name)
                crash_point("worker.before-outcome")
                if call is not lot.calls[-1]:
                    news.tell(Done((outcome,)))
                outcomes.append(outcome)
                told += desk.last
        crash_point("worker.after-outcome")
        return encode(Ended(tuple(outcomes), tuple(told), begun))

    def attempt(
        self, lot: Lot, call: StepCall, mailbox: Any, surroundings: Surroundings | None = None
    ) -> tuple[Attempt, MailDesk]:
        """Return an attempt of a call, and the desk that it has."""
        desk = MailDesk(mailbox)
        attempt = Attempt(
            call, self._scope(lot), memory=self._memory, surroundings=surroundings, desk=desk
        )
        return attempt, desk

    def say_begun(self, lot: Lot, attempt: Attempt, mailbox: Any) -> None:
        """Tell the coordinator who runs the lot from now on."""
        call = attempt.call
        judged = True
        if call.timeout_s is not None and call.retry_on is not None:
            judged = attempt.judge_timeout()
        # Heard before it goes on: should it die at once, it is known who it was, and where.
        wait_for(mailbox.post.remote(encode(self._begun(lot, self.name, judged))))

    def _begun(self, lot: Lot, name: str, judged: bool = True) -> Begun:
        host = os.uname().nodename
        return Begun(lot.number, lot.calls[0].id, name, self._process, host, self.node, judged)

    def _scope(self, lot: Lot) -> RunScope:
        scope = self._scopes.get(lot.home)
        if scope is None:
            self._take_sources(lot.context)
            scope = self._scopes[lot.home] = RunScope(lot.context)
            while len(self._scopes) > _MOST_RUNS:
                self._scopes.popitem(last=False)
        else:
            self._scopes.move_to_end(lot.home)
            scope.learn(lot.context.functions, lot.context.constants)
        return scope

    def _take_sources(self, context: CallContext) -> None:
        """Put the recorded sources first on the path, if this process was started for them."""
        bundle = context.bundle
        if bundle is None or os.environ.get(SOURCES) != bundle or self._has_sources:
            return
        root = Path(tempfile.gettempdir()) / f"perdure-sources-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            root = Path(tempfile.mkdtemp(prefix="perdure-sources-"))  # somebody else's
        folder = root / bundle.partition(":")[2]
        if not folder.exists():
            blobs = open_blobs(context.blobs_url, context.store_id)
            unpack_bundle(blobs.open(bundle, context.bundle_size), folder)
        sys.path.insert(0, str(folder))
        self._has_sources = True

    def _run(self, attempt: Attempt, mailbox: Any) -> Outcome:
        self._memory.reset()
        self._output.begin(attempt)
        self._interruption.begin(attempt, mailbox)
        try:
            if attempt.scope.is_async(attempt.call.function):
                outcome = asyncio.run(attempt.run_async())
            else:
                outcome = attempt.run()
        except KeyboardInterrupt as error:
            outcome = attempt.failed(error)  # the step raised it itself
        finally:
            self._interruption.end()
        attempt.saves.close()
        self._output.end()
        attempt.output.close()
        if outcome.cause is Cause.CANCELLED:
            self._leave()
        return outcome

    def _leave(self) -> None:
        """End this process, and all that the step has started: the coordinator has asked for it."""
        _end_here(self._pid)


def _end_here(pid: int) -> None:
    """End this process at once, with all that it has started."""
    _kill(each for each in descendant_pids(pid) if each != pid)
    os._exit(0)


_here: RayWorker | None = None


def here() -> RayWorker:
    """Return what this process keeps between lots."""
    global _here
    if _here is None:
        _here = RayWorker()
    return _here


class Despatches:
    """What a lot says before it is over: at once, or together when what was said last has come."""

    def __init__(self, mailbox: Any, begun: Begun | None) -> None:
        self._mailbox = mailbox
        self._lock = threading.Lock()
        self._waiting = [] if begun is None else [encode(begun)]
        self._under_way: Any = None

    def tell(self, done: Done) -> None:
        """Tell of calls that are over."""
        with self._lock:
            self._waiting.append(encode(done))
            if self._under_way is None or self._under_way.done():
                self._send()

    def flush(self, *more: News) -> None:
        """Tell now what has not been told, and this."""
        with self._lock:
            self._waiting += map(encode, more)
            if self._waiting:
                self._send()

    def _send(self) -> None:
        self._under_way = self._mailbox.post.remote(*self._waiting).future()
        self._waiting = []


class Remainder:
    """The calls of a lot that have not begun: taken one by one, or given back all at once.

    They were to be brief. Behind one that is not they would wait for nothing.
    """

    def __init__(self, lot: Lot, news: Despatches) -> None:
        self._lot = lot
        self._news = news
        self._calls = deque(lot.calls)
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._taken = 0

    def __enter__(self) -> Remainder:
        if self._lot.is_brief:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def next(self) -> StepCall | None:
        """Return the next call, which begins now; None: there is none any more."""
        with self._lock:
            self._taken += 1
            return self._calls.popleft() if self._calls else None

    def _watch(self) -> None:
        seen = 0
        while not self._is_over.wait(PATIENCE_S):
            self._news.flush()
            with self._lock:
                is_held_up, seen = self._taken == seen, self._taken
                back = tuple(call.id for call in self._calls) if is_held_up else ()
                if back:
                    self._calls.clear()
            if back:
                self._news.flush(Back(self._lot.number, back))
            if not self._calls:
                return


class Interruption:
    """A SIGINT to this process means: end the call that runs. Installed in the main thread.

    Sent by the process itself, when it hears that a call is to end: Ray's own cancel does not wake
    what sleeps or waits. A SIGTERM is sent by Ray, or by whoever stops the machine, and ends the
    process: Ray would raise SystemExit in the middle of the step, which did not fail.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._attempt: Attempt | None = None
        self._is_asked = False

    def begin(self, attempt: Attempt, mailbox: Any) -> None:
        """Name the attempt that runs from now on, and listen for it."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray has it blocked
        self._attempt = attempt
        if not attempt.call.is_brief:
            heard = mailbox.hear.remote(encode(attempt.call.id)).future()
            heard.add_done_callback(lambda done: self._hear(attempt, done))

    def end(self) -> None:
        """Say that no attempt runs."""
        self._attempt = None

    def _hear(self, attempt: Attempt, done: Any) -> None:
        """Pass on to the main thread that an attempt is to end. In one of Ray's threads."""
        if done.exception() is None and done.result() and self._attempt is attempt:
            self._is_asked = True
            os.kill(self._pid, signal.SIGINT)

    def _on_end(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:
            _end_here(self._pid)
        signal.signal(signum, signal.SIG_DFL)  # in a child, which ends as it would anywhere
        os.kill(os.getpid(), signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        attempt, is_asked, self._is_asked = self._attempt, self._is_asked, False
        if os.getpid() != self._pid or (attempt is None and not is_asked):
            signal.default_int_handler(signum, frame)  # in a child, or in another task of Ray's
        elif attempt is not None:
            attempt.interrupt()


class MailDesk:
    """The ``Desk`` of an attempt: what it saves and says goes over the mailbox.

    Attributes:
        last: how far the attempt said last that it was, if it has said something.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._pid = os.getpid()
        self.last: tuple[Told, ...] = ()
        self._looked_at = 0.0
        self._wished = False

    def keep(self, saving: Saving) -> Refusal | None:
        """Ask the coordinator to make a save durable, and wait for its answer."""
        import ray  # pyright: ignore[reportMissingImports]

        if os.getpid() != self._pid:
            raise DefinitionError("save() was called in a process that the step has forked")
        try:
            answer: bytes = wait_for(self._mailbox.ask.remote(encode(saving)))
        except ray.exceptions.RayActorError:
            return Refusal(kind="gone", message="the coordinator is gone")
        refusal: Refusal | None = _decode_refusal(answer)
        return refusal

    def tell(self, told: Told) -> None:
        """Say how far an attempt is."""
        if os.getpid() == self._pid:
            self.last = (told,)
            self._mailbox.post.remote(encode(Tell(told)))

    def look(self, call: CallId) -> bool:
        """Say whether the attempt may hand over; asks the mailbox a few times a second."""
        import ray  # pyright: ignore[reportMissingImports]

        now = time.monotonic()
        if not self._wished and now - self._looked_at > _LOOK_EVERY_S and os.getpid() == self._pid:
            self._looked_at = now
            try:
                self._wished = bool(wait_for(self._mailbox.look.remote(encode(call))))
            except ray.exceptions.RayActorError:
                self._wished = True  # the coordinator is gone
        return self._wished


class Output:
    """What this process prints while it runs calls: it goes to a file, and from there to logs."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp(prefix="perdure-output-")
        self._writer = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.unlink(path)
        self._read_at = 0
        self._lock = threading.Lock()
        self._attempt: Attempt | None = None
        self._streams: StandardStreams | None = None

    @contextmanager
    def diverted(self) -> Iterator[None]:
        """Have both streams lead to the file while the block runs."""
        stdout, stderr = sys.stdout, sys.stderr
        _flush(stdout, stderr)
        kept = os.dup(1), os.dup(2)
        os.dup2(self._writer, 1)
        os.dup2(self._writer, 2)
        if self._streams is None:
            sys.stdout, sys.stderr = open_stream(1), open_stream(2)
            self._streams = StandardStreams()
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            _flush(sys.stdout, sys.stderr)
            for number, fd in enumerate(kept, start=1):
                os.dup2(fd, number)
                os.close(fd)
            sys.stdout, sys.stderr = stdout, stderr
            if self._read_at > _KEEP_OUTPUT_BYTES:
                os.ftruncate(self._file, 0)
                self._read_at = 0

    def begin(self, attempt: Attempt) -> None:
        """Say whose output it is from now on."""
        assert self._streams is not None
        self._streams.restore()
        with self._lock:
            self._attempt = attempt

    def end(self) -> None:
        """Give the attempt the rest of what it has printed."""
        assert self._streams is not None
        self._streams.written_bytes()
        with self._lock:
            self._give(last=True)
            self._attempt = None

    def _watch(self, over: threading.Event) -> None:
        """Once a second: what a step prints is to be seen while it runs."""
        while not over.wait(SEGMENT_AGE_S):
            with self._lock:
                self._give(last=False)

    def _give(self, *, last: bool) -> None:
        size = os.fstat(self._file).st_size
        data = os.pread(self._file, size - self._read_at, self._read_at)
        self._read_at += len(data)
        if self._attempt is not None and (data or last):
            self._attempt.output.log.append(data, last=last)


def _flush(*streams: Any) -> None:
    for stream in streams:
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a step's own object, or a stream it closed
            continue
