"""Runs attempts on a Ray cluster: steps as Ray tasks. Nothing else on this floor imports ray.

Ray finds the places and starts the processes; its own retries are off, since what runs again is the
engine's to say. A call goes down in a lot with its Ray task and its outcome comes back as what the
task returns, or over the mailbox, where it is one of several. Values go neither way: workers read
them from the blob store and put them there.

Everything happens in the coordinator's thread, inside ``submit``, ``kill`` and ``poll``; what Ray's
threads say waits in a queue for it.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.calls import CallContext, CallId, Desk, Instance, Outcome, Saving, StepCall
from perdure.errors import DefinitionError
from perdure.executors.capacity import ENOUGH
from perdure.executors.endings import ended, lost, refused, unbegun
from perdure.executors.protocol import Capacity
from perdure.executors.spools import drop_leftovers, drop_spool
from perdure.executors.timers import Timers
from perdure.executors.waking import WakePipe
from perdure.executors.worker_process import bare, needed_constants, needed_functions
from perdure.plan import Function
from perdure.settings import Settings
from perdure.worker.frames import Done, Tell
from perdure.worker.lots import Begun, Lot, Mark, News, decode_ended, decode_news, encode
from perdure.worker.mailbox import Mailbox
from perdure.worker.ray_worker import run_lot
from perdure.worker.readiness import wait_readable
from perdure.worker.saving import NoDesk
from perdure_storage.clock import SystemClock
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, Place, ProcessId, Refusal, StoredValue

_log = logging.getLogger(__name__)
_clock = SystemClock()
_homes = itertools.count(1)

_SLOTS = 256
"""So many attempts may be under way, whatever they ask for: each is a process of Ray's."""
_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
_decode_saving = msgspec.msgpack.Decoder(Saving).decode


class RayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster, and how it is spoken to.

    Attributes:
        address: as ``ray.init`` takes it; None: what ``RAY_ADDRESS`` names, one that runs on this
            machine, or else one that is started here and ends with this process.
        namespace: of this coordinator's actors.
        runtime_env: what Ray is to prepare for the workers.
        cpus: how many of the cluster's CPUs steps may use at one time; None: all.
    """

    address: str | None = None
    namespace: str | None = None
    runtime_env: Mapping[str, Any] = {}
    cpus: float | None = None


def terms_of(settings: Settings) -> RayTerms:
    """Return what the settings say of Ray."""
    return RayTerms(
        address=settings.ray_address,
        namespace=settings.ray_namespace,
        runtime_env=settings.ray_runtime_env,
        cpus=settings.cpus if settings.cpus is not None else settings.workers,
    )


class RayExecutor:
    """The executor ``"ray"``. Owned by one thread."""

    name = "ray"
    can_kill = True
    runs_here = False

    def __init__(self, terms: RayTerms | None = None) -> None:
        self._terms = terms or RayTerms()
        self._ray = connect(self._terms)
        self.capacity = _capacity(self._ray, self._terms)
        self._run_lot = self._ray.remote(run_lot)
        self._mailbox = _make_mailbox(self._ray)
        self._contexts: dict[str, CallContext] = {}
        self._home_of: dict[str, str] = {}
        self._lots: dict[int, _Lot] = {}
        self._flights: dict[CallId, _Flight] = {}
        self._numbers = itertools.count(1)
        self._outcomes: list[Outcome] = []
        self._come: deque[Callable[[], None]] = deque()
        self._woken = threading.Event()
        self._wake = WakePipe()
        self._timers = Timers()
        self._desk: Desk = NoDesk()
        self._spooled: set[str] = set()
        self._closed = False
        self._ask_for_mail()

    # --- the contract ---------------------------------------------------------------------------
    def attend(self, desk: Desk) -> None:
        self._desk = desk

    def hand_over(self, calls: Sequence[CallId]) -> None:
        self._mailbox.wish.remote([encode(at) for at in calls if at in self._flights])

    def open_run(self, context: CallContext) -> None:
        self._contexts[context.run_id] = context
        # Of this process, this executor and this opening: what workers remember is never another's.
        self._home_of[context.run_id] = f"{os.getpid()}/{next(_homes)}"
        drop_leftovers(context)

    def extend_run(
        self, run_id: str, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None:
        context = self._contexts[run_id]
        context.functions.update(functions)
        context.constants.update(constants)

    def close_run(self, run_id: str) -> None:
        context = self._contexts.pop(run_id, None)
        self._home_of.pop(run_id, None)
        if context is not None and run_id in self._spooled:
            self._spooled.discard(run_id)
            drop_spool(context)

    def submit(self, calls: Sequence[StepCall]) -> None:
        for call in calls:
            if call.actor is None:
                self._send([call])
            else:
                self._outcomes.append(refused(call, "actors do not run on Ray yet"))

    def retire(self, instances: Sequence[Instance]) -> None:
        """Do nothing yet: no actors live here."""

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        for at in calls:
            flight = self._flights.get(at)
            if flight is not None:
                self._end(flight, cause, grace_s)

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._turn(0.0 if self._outcomes else self._patience(until))
            woken = self._woken.is_set()
            late = until is not None and time.monotonic() >= until
            if self._outcomes or woken or late:
                self._woken.clear()
                outcomes, self._outcomes = self._outcomes, []
                return outcomes

    def wake(self) -> None:
        self._woken.set()
        self._wake.wake()

    def workers(self) -> tuple[ProcessId, ...]:
        """Return none: Ray ends what belongs to a driver that is gone, on every node."""
        return ()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for lot in self._lots.values():
            self._ray.cancel(lot.ref, force=True)
        self._ray.kill(self._mailbox)
        self._lots.clear()
        self._flights.clear()
        self._outcomes.clear()
        self._wake.close()

    # --- one turn of the loop -------------------------------------------------------------------
    def _patience(self, until: float | None) -> float | None:
        left = self._timers.seconds_left()
        if until is None:
            return left
        patience = max(0.0, until - time.monotonic())
        return patience if left is None else min(patience, left)

    def _turn(self, timeout_s: float | None) -> None:
        """Wait once, and deal with what has come."""
        if not self._come and timeout_s != 0:
            wait_readable([self._wake.fd], timeout_s)
        self._wake.drain()
        while self._come:
            self._come.popleft()()
        self._timers.run_due()

    def _later(self, deal: Callable[[], None]) -> None:
        """Have the coordinator's thread deal with something. For Ray's threads."""
        self._come.append(deal)
        self._wake.wake()

    # --- calls on their way down ----------------------------------------------------------------
    def _send(self, calls: list[StepCall]) -> None:
        number = next(self._numbers)
        first = calls[0]
        context = self._contexts[first.id.run_id]
        lot = Lot(number, self._home_of[first.id.run_id], _part_for(calls, context), tuple(calls))
        options = _options(first)
        ref = self._run_lot.options(**options).remote(encode(lot), self._mailbox)
        sent = self._lots[number] = _Lot(number, ref)
        for call in calls:
            self._flights[call.id] = sent.flights[call.id] = _Flight(call, sent)
        ref.future().add_done_callback(lambda done: self._later(lambda: self._hear_end(sent, done)))

    # --- news on their way up -------------------------------------------------------------------
    def _ask_for_mail(self) -> None:
        ref = self._mailbox.take.remote()
        ref.future().add_done_callback(lambda done: self._later(lambda: self._take_mail(done)))

    def _take_mail(self, done: Any) -> None:
        if self._closed:
            return
        if done.exception() is not None:
            self._replace_mailbox()
            return
        self._ask_for_mail()
        news, questions = done.result()
        for data in news:
            self._take(decode_news(data))
        for number, question in questions:
            self._answer(number, _decode_saving(question))

    def _replace_mailbox(self) -> None:
        """The node of the mailbox is gone: calls that begin from now on have another one."""
        _log.warning("the mailbox on Ray is gone; a new one is made")
        self._mailbox = _make_mailbox(self._ray)
        self._ask_for_mail()
        for lot in list(self._lots.values()):
            if lot.error is not None:
                self._bury(lot)  # its mark was in the one that is gone

    def _take(self, news: News) -> None:
        if isinstance(news, Done):
            for outcome in news.outcomes:
                self._land(outcome)
        elif isinstance(news, Tell):
            if news.told.call in self._flights:
                self._desk.tell(news.told)
        elif isinstance(news, Begun):
            self._note_begun(news)
        else:
            assert isinstance(news, Mark)
            lot = self._lots.get(news.lot)
            if lot is not None:
                self._bury(lot)

    def _answer(self, number: int, saving: Saving) -> None:
        """Have a save made durable, unless the attempt is over as far as the engine knows."""
        refusal: Refusal | None = Refusal(kind="stale", message="the attempt has been ended")
        if saving.call in self._flights:
            refusal = self._desk.keep(saving)
            crash_point("save.before-telling")
        self._mailbox.answer.remote(number, encode(refusal))

    def _note_begun(self, begun: Begun) -> None:
        lot = self._lots.get(begun.lot)
        flight = self._flights.get(begun.call)
        if lot is None or flight is None:
            return
        lot.begun = begun
        flight.started_at = _clock.now()
        if flight.call.timeout_s is not None:
            self._time(flight, flight.call.timeout_s)

    def _hear_end(self, lot: _Lot, done: Any) -> None:
        """A Ray task is over: take its outcomes, or find out which of its calls are lost."""
        if self._closed or lot.number not in self._lots:
            return
        error = done.exception()
        if error is None:
            end = decode_ended(done.result())
            for told in end.told:
                if told.call in self._flights:
                    self._desk.tell(told)
            for outcome in end.outcomes:
                self._land(outcome)
            self._bury(lot)
            return
        lot.error = error
        # What the lot has said before is on its way, and comes before this mark does.
        self._mailbox.post.remote(encode(Mark(lot.number)))

    def _land(self, outcome: Outcome) -> None:
        flight = self._flights.pop(outcome.id, None)
        if flight is None:
            return  # told already, or ended meanwhile
        del flight.lot.flights[outcome.id]
        if outcome.value is not None and outcome.value.place is Place.SPOOL:
            self._spooled.add(outcome.id.run_id)
        self._outcomes.append(outcome)

    def _bury(self, lot: _Lot) -> None:
        """A Ray task is over and all it said is heard: say what became of its other calls."""
        del self._lots[lot.number]
        for flight in list(lot.flights.values()):
            del self._flights[flight.call.id]
            self._outcomes.append(self._lost(flight, lot))

    def _lost(self, flight: _Flight, lot: _Lot) -> Outcome:
        worker = lot.begun.worker if lot.begun is not None else ""
        if flight.ending is not None:
            retryable = lot.timeout_is_retryable if flight.ending is Cause.TIMEOUT else True
            if lot.begun is None:
                return unbegun(flight.call, flight.ending)
            outcome = ended(flight.call, flight.ending, retryable=retryable, worker=worker)
        else:
            cause, message = self._describe(lot)
            outcome = lost(flight.call, cause, message, worker=worker)
        return msgspec.structs.replace(outcome, started_at=flight.started_at)

    def _describe(self, lot: _Lot) -> tuple[Cause, str]:
        """Say why a Ray task was lost, and on which node."""
        errors = self._ray.exceptions
        where = f" on node {lot.begun.node}" if lot.begun is not None else ""
        said = str(lot.error).strip().partition("\n")[0]
        if isinstance(lot.error, errors.OutOfMemoryError):
            return Cause.OUT_OF_MEMORY, (
                f"Ray has ended its worker{where}: the node was out of memory. Ask for what it "
                f"needs with memory=, so that fewer steps run at once. Ray says: {said}"
            )
        if isinstance(lot.error, errors.NodeDiedError):
            return Cause.WORKER_LOST, f"its Ray node was lost{where}: {said}"
        return Cause.WORKER_LOST, f"its Ray worker was lost{where}: {said}"

    # --- ends -----------------------------------------------------------------------------------
    def _time(self, flight: _Flight, seconds: float) -> None:
        def end_if_running() -> None:
            if self._flights.get(flight.call.id) is flight and flight.ending is None:
                self._end(flight, Cause.TIMEOUT, 5.0)

        self._timers.after(seconds, end_if_running)

    def _end(self, flight: _Flight, cause: Cause, grace_s: float) -> None:
        """Ask a call to end, and see to it that it does."""
        if flight.ending is None:
            self._mailbox.wish.remote([encode(flight.call.id)])
            self._ray.cancel(flight.lot.ref, force=False)
        flight.ending = cause

        def kill_if_running() -> None:
            if self._flights.get(flight.call.id) is flight:
                self._ray.cancel(flight.lot.ref, force=True)

        if grace_s > 0:
            self._timers.after(grace_s, kill_if_running)
        else:
            kill_if_running()


class _Flight:
    """One call that Ray has.

    Attributes:
        ending: the cause with which it is being ended; None while it is not.
        started_at: when it began, or was handed over.
    """

    __slots__ = ("call", "ending", "lot", "started_at")

    def __init__(self, call: StepCall, lot: _Lot) -> None:
        self.call = call
        self.lot = lot
        self.ending: Cause | None = None
        self.started_at = _clock.now()


class _Lot:
    """One Ray task.

    Attributes:
        flights: the calls of it of which nothing has been heard, in order.
        begun: who runs it, once that has been heard.
        error: with what it ended, if it has not ended as it should.
    """

    __slots__ = ("begun", "error", "flights", "number", "ref")

    def __init__(self, number: int, ref: Any) -> None:
        self.number = number
        self.ref = ref
        self.flights: dict[CallId, _Flight] = {}
        self.begun: Begun | None = None
        self.error: BaseException | None = None

    @property
    def timeout_is_retryable(self) -> bool:
        """Return what ``retry_on`` says of a time-out; True until the worker has said it."""
        return self.begun is None or self.begun.timeout_is_retryable


# --- Ray --------------------------------------------------------------------------------------
def connect(terms: RayTerms) -> Any:
    """Return the module ``ray``, connected to a cluster; a program that is connected stays so.

    Raises:
        DefinitionError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise DefinitionError(
            "executor='ray' needs Ray, which is not installed here: pip install 'perdure[ray]'"
        ) from error
    with _connecting:
        if not ray.is_initialized():
            _init(ray, terms)
    return ray


_connecting = threading.Lock()


def _init(ray: Any, terms: RayTerms) -> None:
    """Connect, in a thread that lives as long as the process.

    A local cluster's processes end with the thread that has started them.
    """
    done = threading.Event()
    failed: list[BaseException] = []

    def init_and_stay() -> None:
        try:
            ray.init(
                address=terms.address,
                namespace=terms.namespace,
                runtime_env=dict(terms.runtime_env) or None,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except Exception as error:  # noqa: BLE001 - told in the thread that waits
            failed.append(error)
        done.set()
        if not failed:
            threading.Event().wait()

    threading.Thread(target=init_and_stay, name="perdure-ray", daemon=True).start()
    done.wait()
    if failed:
        where = f" at {terms.address}" if terms.address else ""
        raise DefinitionError(f"no Ray cluster answers{where}: {failed[0]}") from failed[0]


def _make_mailbox(ray: Any) -> Any:
    made = ray.remote(Mailbox).options(
        num_cpus=0, max_restarts=0, max_task_retries=0, max_concurrency=10_000
    )
    return made.remote()


def _capacity(ray: Any, terms: RayTerms) -> Capacity:
    """Return what the nodes that live have, all together."""
    total: dict[str, float] = {}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        for name, amount in node["Resources"].items():
            if not name.startswith("node:"):
                total[name] = total.get(name, 0.0) + amount
        for name, value in node.get("Labels", {}).items():
            total[f"{name}={value}"] = ENOUGH
    cpus = total.get("CPU", 0.0)
    if terms.cpus is not None:
        cpus = min(cpus, terms.cpus)
    return Capacity(
        cpus=cpus,
        gpu_ids=tuple(str(number) for number in range(int(total.get("GPU", 0)))),
        memory_bytes=int(total.get("memory", 0)),
        resources={name: some for name, some in total.items() if name not in _OWN_RESOURCES},
        slots=max(_SLOTS, math.ceil(cpus)),
    )


def _options(call: StepCall) -> dict[str, Any]:
    """Return what a call asks for in Ray's words."""
    labels = {}
    resources = {}
    for name, amount in call.resources.items():
        label, is_label, value = name.partition("=")
        if is_label:
            labels[label] = value
        elif amount:
            resources[name] = amount
    options: dict[str, Any] = {
        "num_cpus": call.cpus,
        "max_retries": 0,
        "name": call.id.step_id,
    }
    if call.gpus:
        options["num_gpus"] = call.gpus
    if call.memory_bytes:
        options["memory"] = call.memory_bytes
    if resources:
        options["resources"] = resources
    if labels:
        options["label_selector"] = labels
    return options


def _part_for(calls: Sequence[StepCall], context: CallContext) -> CallContext:
    """Return the context with what these calls need of it."""
    functions = set().union(*map(needed_functions, calls))
    constants = set().union(*map(needed_constants, calls))
    return msgspec.structs.replace(
        bare(context),
        functions={name: context.functions[name] for name in functions},
        constants={index: context.constants[index] for index in constants},
    )
