"""Runs attempts in worker processes on this host: warm, killable one by one, with their trees.

Everything happens in the coordinator's thread, inside ``submit``, ``kill`` and ``poll``: workers
are started as calls need them, handed calls, timed, asked to end, killed, and buried. No call here
waits for a worker, except ``poll``, which waits for all of them at once.
"""

from __future__ import annotations

import math
import selectors
import time
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from perdure.calls import CallContext, CallId, Desk, Instance, Outcome, StepCall
from perdure.executors.bundles import take_bundle
from perdure.executors.capacity import detect_capacity
from perdure.executors.cgroups import count_oom_kills
from perdure.executors.endings import describe_death, ended, lost, too_large, unbegun
from perdure.executors.memory_watch import is_beyond, most_bytes
from perdure.executors.protocol import Capacity
from perdure.executors.recorded import RecordedSources
from perdure.executors.spools import drop_leftovers, drop_spool
from perdure.executors.timers import Timers
from perdure.executors.transcripts import Transcripts
from perdure.executors.waking import WakePipe
from perdure.executors.worker_process import Flight, WorkerKey, WorkerProcess
from perdure.plan import Function
from perdure.worker.frames import Done, Judged, Keep, Ready, Tell, Up
from perdure.worker.saving import NoDesk
from perdure.worker.tickets import MOST
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, Place, ProcessId, Refusal, StoredValue

TIMEOUT_GRACE_S = 5.0
"""Between asking a call whose time is up to end, and SIGKILL."""

_CLOSE_S = 5.0
_BUNDLE_S = 0.05
"""How long brief calls may wait in a worker behind another one before they are taken back."""
_LOOK_AT_OUTPUT_S = 1.0
_LOOK_AT_MEMORY_S = 0.2
_KEEP_GPUS_S = 10.0
"""How long an idle worker may keep GPUs: what it has allocated there is free only when it ends."""


class ProcessExecutor:
    """The executor ``"processes"``. Owned by one thread, which must live as long as its workers.

    Args:
        capacity: what to offer; detected if None.
        timeout_grace_s: between asking a call whose time is up to end, and SIGKILL.
    """

    name = "processes"
    can_kill = True
    runs_here = False

    def __init__(
        self, capacity: Capacity | None = None, *, timeout_grace_s: float = TIMEOUT_GRACE_S
    ) -> None:
        self.capacity = capacity or detect_capacity()
        self._timeout_grace_s = timeout_grace_s
        self._contexts: dict[str, CallContext] = {}
        self._queues: dict[WorkerKey, deque[StepCall]] = {}
        self._workers: dict[int, WorkerProcess] = {}
        self._idle: dict[WorkerKey, list[WorkerProcess]] = {}
        self._homes: dict[CallId, WorkerProcess] = {}
        self._outcomes: list[Outcome] = []
        self._selector = selectors.DefaultSelector()
        self._full_lines: set[int] = set()
        self._wake = WakePipe()
        self._desk: Desk = NoDesk()
        self._selector.register(self._wake.fd, selectors.EVENT_READ, None)
        self._timers = Timers()
        self._sources = RecordedSources()
        self._transcripts = Transcripts()
        self._spooled: set[str] = set()
        self._oom_kills = count_oom_kills()
        self._looks_at_output = False
        self._looks_at_memory = False
        self._closed = False
        # More at once would only slow each other down; there is always one on its way.
        self._most_starting = max(1, math.ceil(self.capacity.cpus))

    # --- the contract ---------------------------------------------------------------------------
    def attend(self, desk: Desk) -> None:
        self._desk = desk

    def hand_over(self, calls: Sequence[CallId]) -> None:
        for worker in self._homes_of(calls):
            self._take_back(worker)
        self._end_queued(set(calls) - self._homes.keys(), Cause.ABANDONED)
        for worker in self._homes_of(calls):
            worker.hand_over([at for at in calls if at in worker.flights])
            self._watch(worker)
        self._assign()  # what was taken back of other runs: as in ``kill``

    def open_run(self, context: CallContext) -> None:
        self._contexts[context.run_id] = context
        self._sources.use_where_they_differ(context)
        drop_leftovers(context)

    def extend_run(
        self, run_id: str, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None:
        context = self._contexts[run_id]  # its maps are its own, made when the run was opened
        context.functions.update(functions)
        context.constants.update(constants)

    def close_run(self, run_id: str) -> None:
        context = self._contexts.pop(run_id, None)
        for worker in self._workers.values():
            worker.forget(run_id)
            self._watch(worker)
        self._end_actors(run_id)
        self._transcripts.forget(run_id)
        self._sources.forget(run_id)
        if context is not None and run_id in self._spooled:
            self._spooled.discard(run_id)
            drop_spool(context)

    def _end_actors(self, run_id: str) -> None:
        """End the processes in which actors of a run lived."""
        for worker in list(self._workers.values()):
            if worker.key.actor is not None and worker.key.actor.run_id == run_id:
                self._retire(worker)
        for key in [k for k in self._queues if k.actor is not None and k.actor.run_id == run_id]:
            del self._queues[key]
            self._idle.pop(key, None)

    def retire(self, instances: Sequence[Instance]) -> None:
        for worker in list(self._workers.values()):
            if worker.key.actor in instances and not worker.is_ending:
                self._retire(worker)

    def submit(self, calls: Sequence[StepCall]) -> None:
        for call in calls:
            self._enqueue(call)
        self._assign()

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        for worker in self._homes_of(calls):
            # What has not begun is not to pay for what has; what is over has its own outcome.
            self._take_back(worker)
            if not worker.has_hung_up:
                self._hear(worker)
        self._end_queued(set(calls) - self._homes.keys(), cause)
        for at in calls:
            home = self._homes.get(at)
            if home is not None:
                self._end(home, home.flights[at], cause, grace_s)
        self._assign()  # what was taken back: no event may come that would make us look again

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            woken = self._turn(0.0 if self._outcomes else self._timers.patience(until))
            late = until is not None and time.monotonic() >= until
            if self._outcomes or woken or late:
                outcomes, self._outcomes = self._outcomes, []
                return outcomes

    def wake(self) -> None:
        self._wake.wake()

    def workers(self) -> tuple[ProcessId, ...]:
        found = (worker.identity for worker in self._workers.values())
        return tuple(identity for identity in found if identity is not None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queues.clear()
        for worker in self._workers.values():
            worker.kill()
        until = time.monotonic() + _CLOSE_S
        while self._workers and time.monotonic() < until:
            self._turn(until - time.monotonic())
        for worker in list(self._workers.values()):
            self._bury(worker)
        self._outcomes.clear()
        self._selector.close()
        self._wake.close()
        self._sources.close()

    # --- one turn of the loop -------------------------------------------------------------------
    def _turn(self, timeout_s: float | None) -> bool:
        """Wait once, take what has come, hand out what can be; say whether ``wake`` was called."""
        woken = False
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                woken = self._wake.drain()
                continue
            worker: WorkerProcess = key.data[0]
            if worker.pid in self._workers:  # Else buried earlier in this very turn.
                self._attend(worker, events, is_life=key.data[1])
        self._timers.run_due()
        if not self._closed:
            self._assign()
        return woken

    def _attend(self, worker: WorkerProcess, events: int, *, is_life: bool) -> None:
        """Deal with what happened on one of a worker's lines."""
        if is_life:
            if worker.read_status():
                self._bury(worker)
            return
        if events & selectors.EVENT_WRITE:
            worker.send_rest()
        if events & selectors.EVENT_READ:
            self._hear(worker)
        self._watch(worker)

    def _hear(self, worker: WorkerProcess) -> None:
        """Take what a worker has sent; once it has closed its line, the keeper has the rest."""
        for message in worker.receive():
            self._take(worker, message)
        if worker.has_hung_up:
            self._selector.unregister(worker.line)

    def _take(self, worker: WorkerProcess, message: Up) -> None:
        if isinstance(message, Done):
            for number, outcome in enumerate(message.outcomes):
                printed = message.printed[number] if message.printed else None
                self._land(worker, outcome, printed)
            self._settle(worker)
        elif isinstance(message, Ready):
            worker.worker_pid = message.pid
            self._settle(worker)
        elif isinstance(message, Keep):
            self._keep(worker, message)
        elif isinstance(message, Tell):
            if message.told.call in worker.flights:
                self._desk.tell(message.told)
        else:
            assert isinstance(message, Judged)
            flight = worker.flights.get(message.call)
            if flight is not None:
                flight.timeout_is_retryable = message.timeout_is_retryable

    def _keep(self, worker: WorkerProcess, asked: Keep) -> None:
        """Have a save made durable, unless the attempt is over as far as the engine knows."""
        refusal: Refusal | None = Refusal(kind="stale", message="the attempt has been ended")
        if asked.saving.call in worker.flights:
            refusal = self._desk.keep(asked.saving)
            crash_point("save.before-telling")
        worker.answer(asked.number, refusal)
        self._watch(worker)

    def _settle(self, worker: WorkerProcess) -> None:
        """Give an idle worker its place among the idle, or its end."""
        if worker.flights or worker.is_ending:
            return
        worker.trim_output()
        if not worker.key.is_async:
            self._idle.setdefault(worker.key, []).append(worker)
        if worker.key.gpu_ids and worker.key.actor is None:
            self._end_if_idle_for_long(worker)

    # --- calls on their way down ----------------------------------------------------------------
    def _enqueue(self, call: StepCall) -> None:
        context = self._contexts[call.id.run_id]
        key = WorkerKey(
            is_async=context.functions[call.function].is_async,
            folder=self._sources.folder_of(call.id.run_id),
            actor=_instance_of(call),
            is_pooled=call.actor is not None and call.actor.of.state == "rebuild",
            gpu_ids=call.gpu_ids if self.capacity.gpu_ids else None,
        )
        if key.actor is not None and key not in self._queues:
            self.retire([key.actor])  # it sees other GPUs now, or other sources
        self._queues.setdefault(key, deque()).append(call)

    def _assign(self) -> None:
        """Hand queued calls to workers; start workers for those that find none."""
        for key, queue in self._queues.items():
            if not queue or not self._clear_gpus(key, queue[0]) or self._is_crowded(queue[0]):
                continue
            if key.is_async:
                self._assign_async(key, queue)
            else:
                self._assign_sync(key, queue)

    def _assign_sync(self, key: WorkerKey, queue: deque[StepCall]) -> None:
        idle = self._idle.get(key, [])
        while queue and idle:
            worker = idle.pop()
            if _is_too_large_for(worker, queue[0]):
                worker.kill()
            else:
                self._give(worker, self._bundle(queue))
        while queue and self._may_start(key, len(queue)):
            self._start(key, queue)

    def _bundle(self, queue: deque[StepCall]) -> list[StepCall]:
        """Take the next call, or a fair share of brief ones, off the queue."""
        return take_bundle(queue, min(MOST, math.ceil(len(queue) / self._most_starting)))

    def _take_back(self, worker: WorkerProcess, *, leaving: int = 0) -> None:
        """Put what a worker has not begun back to the front of the queue, but for so many calls."""
        back = worker.take_back(leaving=leaving)
        for call in back:
            del self._homes[call.id]
        if back and not self._closed:  # else there is no queue to put them back into
            self._queues[worker.key].extendleft(reversed(back))
            self._settle(worker)  # it may have begun none: then no outcome will say that it is idle

    def _take_back_if_late(self, worker: WorkerProcess) -> None:
        """Take calls that were to be brief from a worker that is held up by one that is not.

        One it keeps, also where it has begun none: it would be given the same ones again, and so on
        as long as it gets no time of a core.
        """
        if len(worker.flights) > 1 and worker.pid in self._workers:
            self._take_back(worker, leaving=1)

    def _assign_async(self, key: WorkerKey, queue: deque[StepCall]) -> None:
        living = [w for w in self._workers.values() if w.key == key and not w.is_ending]
        if not living:
            self._start(key, queue)
        elif living[0].is_ready:
            room = self.capacity.async_slots - len(living[0].flights)
            batch = [queue.popleft() for _ in range(min(room, len(queue)))]
            if batch:
                self._give(living[0], batch)

    def _may_start(self, key: WorkerKey, queued: int) -> bool:
        """Say whether a worker of this kind may be started now.

        Processes of pools are not counted among the others: idle ones wait for calls that will
        come, and the engine ends those that hold what is needed.
        """
        ordinary = [worker for worker in self._workers.values() if not worker.key.is_async]
        starting = sum(not worker.is_ready for worker in ordinary)
        if key.actor is not None:
            if any(worker.key == key and not worker.is_ending for worker in ordinary):
                return False  # one process an instance
        elif starting >= queued:
            return False
        if starting >= self._most_starting:
            return False
        if key.is_pooled or sum(not w.key.is_pooled for w in ordinary) < self.capacity.slots:
            return True
        self._retire_one_idle(but=key)
        return False

    def _retire_one_idle(self, *, but: WorkerKey) -> None:
        """Make room: end an idle worker of another kind, unless one is on its way out."""
        counted = [w for w in self._workers.values() if not (w.key.is_async or w.key.is_pooled)]
        if any(worker.is_ending for worker in counted):
            return
        for key, idle in self._idle.items():
            if idle and key != but and not key.is_pooled:
                idle.pop().kill()
                return

    def _clear_gpus(self, key: WorkerKey, call: StepCall) -> bool:
        """End idle workers that hold memory of the call's GPUs; say whether all of them are gone.

        One of its own kind it may have for itself; beside a call that has but a part of a GPU
        others of its kind may stay.
        """
        if not call.gpu_ids:
            return True
        own = [w for w in self._workers.values() if w.key == key]
        if not call.shares_gpu and not key.is_async:
            own = self._idle.get(key, [])[-1:]
        others = [w for w in self._workers.values() if w.key.shares_gpu(key) and w not in own]
        for worker in others:
            # What a process of an actor holds is the engine's business, also while it is idle.
            is_idle = worker.is_ready and not worker.flights and worker.key.actor is None
            if is_idle and not worker.is_ending:
                self._retire(worker)
        return not any(worker.is_ending for worker in others)

    def _is_crowded(self, call: StepCall) -> bool:
        """Say whether a process of an actor still has memory that this call is to have."""
        return call.memory_bytes is not None and any(
            worker.is_ending and worker.key.actor is not None for worker in self._workers.values()
        )

    def _retire(self, worker: WorkerProcess) -> None:
        """End a worker that has nothing to do."""
        idle = self._idle.get(worker.key, [])
        if worker in idle:
            idle.remove(worker)
        worker.kill()

    def _end_if_idle_for_long(self, worker: WorkerProcess) -> None:
        seen = worker.calls_given

        def end_if_idle() -> None:
            is_here = worker.pid in self._workers and not worker.is_ending
            if is_here and not worker.flights and worker.calls_given == seen:
                self._retire(worker)

        self._timers.after(_KEEP_GPUS_S, end_if_idle)

    def _start(self, key: WorkerKey, queue: deque[StepCall]) -> None:
        try:
            worker = WorkerProcess(key)
        except OSError as error:
            # Out of processes, memory or descriptors. One call bears it; the next tries again.
            message = f"no worker process could be started: {error}"
            self._outcomes.append(lost(queue.popleft(), Cause.WORKER_LOST, message))
            return
        self._workers[worker.pid] = worker
        self._selector.register(worker.line, selectors.EVENT_READ, (worker, False))
        self._selector.register(worker.life, selectors.EVENT_READ, (worker, True))

    def _give(self, worker: WorkerProcess, calls: list[StepCall]) -> None:
        worker.give(calls, self._contexts)
        self._watch(worker)
        for call in calls:
            self._homes[call.id] = worker
            if call.timeout_s is not None:
                self._time(worker, call.id, call.timeout_s)
        if len(calls) > 1 and not worker.key.is_async:
            self._timers.after(_BUNDLE_S, lambda: self._take_back_if_late(worker))
        self._keep_looking_at_output()
        if any(call.memory_bytes for call in calls) and _is_watched(worker):
            self._keep_looking_at_memory()

    def _watch(self, worker: WorkerProcess) -> None:
        """Wait for the line to take more only while there is more."""
        if worker.has_hung_up or worker.pid not in self._workers:
            return
        if worker.has_unsent != (worker.pid in self._full_lines):
            self._full_lines ^= {worker.pid}
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.has_unsent else 0)
            self._selector.modify(worker.line, events, (worker, False))

    # --- ends -----------------------------------------------------------------------------------
    def _time(self, worker: WorkerProcess, at: CallId, seconds: float) -> None:
        def end_if_running() -> None:
            flight = worker.flights.get(at)
            if flight is not None and flight.ending is None:
                self._end(worker, flight, Cause.TIMEOUT, self._timeout_grace_s)

        self._timers.after(seconds, end_if_running)

    def _homes_of(self, calls: Sequence[CallId]) -> set[WorkerProcess]:
        return {self._homes[at] for at in calls if at in self._homes}

    def _end_queued(self, calls: set[CallId], cause: Cause) -> None:
        if not calls:
            return
        for key, queue in self._queues.items():
            for call in queue:
                if call.id in calls:
                    self._outcomes.append(unbegun(call, cause))
            self._queues[key] = deque(call for call in queue if call.id not in calls)

    def _end(self, worker: WorkerProcess, flight: Flight, cause: Cause, grace_s: float) -> None:
        """Ask a running call to end, and see to it that it does."""
        if flight.ending is None:
            worker.ask(flight.call.id)
            self._watch(worker)
        flight.ending = cause

        def kill_if_running() -> None:
            if flight.call.id in worker.flights:
                worker.kill()

        if grace_s > 0:
            self._timers.after(grace_s, kill_if_running)
        else:
            kill_if_running()

    def _land(self, worker: WorkerProcess, outcome: Outcome, printed: int | None) -> None:
        """Take an outcome from a worker."""
        flight = worker.flights.get(outcome.id)
        if flight is None:
            return  # Ended meanwhile, and already told so.
        if not worker.key.is_async:
            self._note_output(worker, flight, printed, last=True)
        if outcome.value is not None and outcome.value.place is Place.SPOOL:
            self._spooled.add(outcome.id.run_id)
        if outcome.cause is Cause.CANCELLED and not worker.key.is_async:
            # Interrupted as asked, or by a SIGTERM that was not ours: then its worker is lost. It
            # counts when its process, with all it started, is gone.
            flight.ending = flight.ending or Cause.WORKER_LOST
            worker.kill()
            return
        self._forget_flight(worker, flight)
        if flight.ending is not None and not worker.key.is_async:
            # Ended by itself meanwhile; but a SIGTERM is on its way, and not for the next call.
            worker.kill()
        if outcome.cause is Cause.CANCELLED:
            outcome = self._ended(worker, flight, flight.ending or Cause.WORKER_LOST)
        elif self._may_run_recorded(worker, outcome):
            self._enqueue(flight.call)
            return
        self._outcomes.append(outcome)

    def _may_run_recorded(self, worker: WorkerProcess, outcome: Outcome) -> bool:
        """Say whether today's code would not do, and there are recorded sources to try."""
        context = self._contexts.get(outcome.id.run_id)  # gone, where it ends with its run
        if outcome.cause is not Cause.SETUP_ERROR or worker.key.folder is not None:
            return False
        return context is not None and self._sources.use_for(context)

    def _ended(self, worker: WorkerProcess, flight: Flight, cause: Cause) -> Outcome:
        if cause is Cause.OUT_OF_MEMORY:
            outcome = too_large(flight.call, flight.held_bytes, worker=worker.name)
        else:
            retryable = flight.timeout_is_retryable if cause is Cause.TIMEOUT else True
            outcome = ended(flight.call, cause, retryable=retryable, worker=worker.name)
        return _begun(outcome, flight)

    def _forget_flight(self, worker: WorkerProcess, flight: Flight) -> None:
        del worker.flights[flight.call.id]
        del self._homes[flight.call.id]

    def _bury(self, worker: WorkerProcess) -> None:
        """The worker and its tree are gone: say what became of its calls."""
        if not worker.has_hung_up:
            self._hear(worker)
        if not worker.has_hung_up:
            self._selector.unregister(worker.line)
        self._selector.unregister(worker.life)
        del self._workers[worker.pid]
        self._full_lines.discard(worker.pid)
        self._take_back(worker)
        idle = self._idle.get(worker.key, [])
        if worker in idle:
            idle.remove(worker)
        self._tell_of_death(worker)
        worker.bury()

    def _tell_of_death(self, worker: WorkerProcess) -> None:
        cause, message = describe_death(worker.status, out_of_memory=self._was_out_of_memory())
        if not worker.is_ready and not worker.is_ending:
            self._tell_of_stillbirth(worker, message)
        flights = list(worker.flights.values())
        if len(flights) == 1:
            self._note_output(worker, flights[0], None, last=True)
        for flight in flights:
            self._forget_flight(worker, flight)
            if flight is not flights[-1] and not worker.key.is_async:
                # It was over, and its worker died before it was heard: nobody's fault.
                self._outcomes.append(self._ended(worker, flight, Cause.ABANDONED))
            elif flight.ending is not None:
                self._outcomes.append(self._ended(worker, flight, flight.ending))
            elif worker.is_ending:
                # Its process was killed for the sake of a neighbour on the same loop.
                self._outcomes.append(self._ended(worker, flight, Cause.ABANDONED))
            else:
                self._outcomes.append(
                    _begun(lost(flight.call, cause, message, worker=worker.name), flight)
                )

    def _tell_of_stillbirth(self, worker: WorkerProcess, message: str) -> None:
        """A worker died before it read a call: one waiting call bears that."""
        queue = self._queues.get(worker.key)
        if queue:
            said = worker.read_output().decode(errors="replace").strip()
            message = f"{message}, before it could begin{said and ': ' + said}"
            self._outcomes.append(
                lost(queue.popleft(), Cause.WORKER_LOST, message, worker=worker.name)
            )

    def _was_out_of_memory(self) -> bool:
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        return before is not None and self._oom_kills is not None and self._oom_kills > before

    # --- output ---------------------------------------------------------------------------------
    def _note_output(
        self, worker: WorkerProcess, flight: Flight, up_to: int | None, *, last: bool
    ) -> None:
        data = worker.read_output(up_to)
        context = self._contexts.get(flight.call.id.run_id)
        if context is not None:
            self._transcripts.append(flight.call, context, data, last=last)

    def _keep_looking_at_output(self) -> None:
        if not self._looks_at_output:
            self._looks_at_output = True
            self._timers.after(_LOOK_AT_OUTPUT_S, self._look_at_output)

    def _look_at_output(self) -> None:
        """Once a second while calls run: what they print is to be seen while they print it."""
        self._looks_at_output = False
        for worker in self._workers.values():
            if len(worker.flights) == 1 and not worker.key.is_async:
                (flight,) = worker.flights.values()
                self._note_output(worker, flight, None, last=False)
        if self._homes:
            self._keep_looking_at_output()

    # --- memory ---------------------------------------------------------------------------------
    def _keep_looking_at_memory(self) -> None:
        if not self._looks_at_memory:
            self._looks_at_memory = True
            self._timers.after(_LOOK_AT_MEMORY_S, self._look_at_memory)

    def _look_at_memory(self) -> None:
        """Several times a second while calls run that have asked for some: none may take more."""
        self._looks_at_memory = False
        for worker in list(self._workers.values()):
            if not _is_watched(worker):
                continue
            self._keep_looking_at_memory()
            flight = next(iter(worker.flights.values()))  # those behind it have not begun
            asked = flight.call.memory_bytes
            if (
                asked
                and flight.ending is None
                and (held := is_beyond(worker.pid, most_bytes(asked)))
            ):
                flight.held_bytes = held
                self._end(worker, flight, Cause.OUT_OF_MEMORY, 0)


def _instance_of(call: StepCall) -> Instance | None:
    if call.actor is None:
        return None
    return Instance(call.id.run_id, call.actor.of.actor, call.actor.number)


def _begun(outcome: Outcome, flight: Flight) -> Outcome:
    """Return an outcome of an attempt that cannot tell itself when it began."""
    return msgspec.structs.replace(outcome, started_at=flight.started_at)


def _is_watched(worker: WorkerProcess) -> bool:
    """Say whether it runs a call whose memory can be told from that of others."""
    if worker.key.is_async or worker.is_ending:
        return False
    return any(flight.call.memory_bytes for flight in worker.flights.values())


def _is_too_large_for(worker: WorkerProcess, call: StepCall) -> bool:
    """Say whether calls before have left more in a worker than this one may take at all."""
    asked = call.memory_bytes
    if asked is None or worker.key.actor is not None:  # what an actor has left there is its own
        return False
    return is_beyond(worker.pid, most_bytes(asked)) > 0
