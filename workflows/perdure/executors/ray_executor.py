"""Runs attempts on a Ray cluster: steps as Ray tasks, instances of actors as Ray actors.

Ray finds the places and starts the processes; its own retries are off, since what runs again is the
engine's to say. Calls go down in lots, one to a Ray task: one call, or several brief ones. An
outcome comes back as what the task returns, or over the mailbox, where it is one of several. Values
go neither way: workers read them from the blob store and put them there.

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
from functools import partial
from typing import Any

import msgspec

from perdure.calls import CallContext, CallId, Desk, Instance, Outcome, Saving, StepCall
from perdure.errors import DefinitionError
from perdure.executors.endings import lost, unbegun
from perdure.executors.protocol import Capacity
from perdure.executors.ray_cluster import (
    RayTerms,
    capacity_of_cluster,
    connect,
    is_node_alive,
    is_of_ray,
    last_words,
    make_mailbox,
    on_node,
    own_node,
    request_of_actor,
    request_of_call,
    sources_env,
)
from perdure.executors.ray_lots import Flight, Kind, SentLot, part_for
from perdure.executors.recorded import RecordedSources
from perdure.executors.spools import drop_leftovers, drop_spool
from perdure.executors.timers import Timers
from perdure.executors.waking import WakePipe
from perdure.plan import Function
from perdure.worker.frames import Done, Tell
from perdure.worker.lots import Back, Begun, Lot, Mark, News, decode_ended, decode_news, encode
from perdure.worker.ray_worker import ActorHost, AsyncHost, end_worker, run_lot
from perdure.worker.readiness import wait_readable
from perdure.worker.saving import NoDesk
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, Place, ProcessId, Refusal, StoredValue

TIMEOUT_GRACE_S = 5.0
"""Between asking a call whose time is up to end, and its end."""

_log = logging.getLogger(__name__)
_homes = itertools.count(1)

_MOST_IN_LOT = 256
_FORCE_S = 0.5
"""How long the end of a worker may take before Ray is told to end it, with what it finds of it."""
_REAP_S = 15.0
"""How long the end of what a worker has started is waited for: its node may be gone."""
_MOST_MAILBOXES = 3
"""After so many mailboxes, none of which has given anything, there is none to be had."""
_ANOTHER_S = 0.5
_LOOK_AT_NODES_S = 5.0
_decode_saving = msgspec.msgpack.Decoder(Saving).decode


class RayExecutor:
    """The executor ``"ray"``. Owned by one thread.

    Args:
        terms: which cluster, and how it is spoken to.
        timeout_grace_s: between asking a call whose time is up to end, and its end.
    """

    name = "ray"
    can_kill = True
    runs_here = False

    def __init__(
        self, terms: RayTerms | None = None, *, timeout_grace_s: float = TIMEOUT_GRACE_S
    ) -> None:
        self._terms = terms or RayTerms()
        self._timeout_grace_s = timeout_grace_s
        self._ray = connect(self._terms)
        self.capacity = capacity_of_cluster(self._ray, self._terms)
        self._node = own_node(self._ray)
        self._run_lot = self._ray.remote(run_lot)
        self._end_worker = self._ray.remote(end_worker)
        self._mailbox = make_mailbox(self._ray)
        self._mailboxes_lost = 0
        self._unfit = ""
        self._contexts: dict[str, CallContext] = {}
        self._home_of: dict[str, str] = {}
        self._queues: dict[Kind, deque[StepCall]] = {}
        self._lots: dict[int, SentLot] = {}
        self._flights: dict[CallId, Flight] = {}
        self._actors: dict[Instance, Any] = {}
        self._async_hosts: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._outcomes: list[Outcome] = []
        self._over: list[bytes] = []
        self._come: deque[Callable[[], None]] = deque()
        self._woken = threading.Event()
        self._wake = WakePipe()
        self._timers = Timers()
        self._desk: Desk = NoDesk()
        self._sources = RecordedSources()
        self._spooled: set[str] = set()
        self._neighbours: set[ProcessId] = set()
        self._closed = False
        self._is_over = threading.Event()
        self._ask_for_mail()
        threading.Thread(target=self._follow_nodes, name="perdure-ray-nodes", daemon=True).start()

    # --- the contract ---------------------------------------------------------------------------
    def attend(self, desk: Desk) -> None:
        self._desk = desk

    def hand_over(self, calls: Sequence[CallId]) -> None:
        self._end_queued(set(calls) - self._flights.keys(), Cause.ABANDONED)
        for at in calls:
            if at in self._flights:
                self._flights[at].is_wished = True
                self._mailbox.wish.remote(encode(at))

    def open_run(self, context: CallContext) -> None:
        if self._unfit:  # it may have been mended
            self._unfit, self._mailboxes_lost = "", 0
            self._make_another_mailbox()
        self._contexts[context.run_id] = context
        # Of this process, this executor and this opening: what workers remember is never another's.
        self._home_of[context.run_id] = f"{os.getpid()}/{next(_homes)}"
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
        self._home_of.pop(run_id, None)
        self._sources.forget(run_id)
        self.retire([instance for instance in self._actors if instance.run_id == run_id])
        if context is not None and run_id in self._spooled:
            self._spooled.discard(run_id)
            drop_spool(context)

    def submit(self, calls: Sequence[StepCall]) -> None:
        for call in calls:
            self._enqueue(call)
        self._assign()

    def retire(self, instances: Sequence[Instance]) -> None:
        for instance in instances:
            actor = self._actors.pop(instance, None)
            if actor is not None:
                self._ray.kill(actor)

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        queued = set(calls) - self._flights.keys()
        if queued:
            self._end_queued(queued, cause)
        for at in calls:
            flight = self._flights.get(at)
            if flight is not None:
                self._end(flight, cause, grace_s)

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._turn(0.0 if self._outcomes else self._timers.patience(until))
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
        """Return those on this host. Ray ends what belongs to a driver that is gone, everywhere."""
        return tuple(sorted(self._neighbours, key=lambda each: each.pid))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._is_over.set()
        # When Python exits Ray may have gone first, and all with it: to speak would connect anew.
        if self._ray.is_initialized():
            self._end_all()
        self._queues.clear()
        self._lots.clear()
        self._flights.clear()
        self._actors.clear()
        self._neighbours.clear()
        self._outcomes.clear()
        self._wake.close()
        self._sources.close()

    def _end_all(self) -> None:
        for lot in self._lots.values():
            if lot.host is None:
                self._ray.cancel(lot.ref, force=True)
        for actor in (*self._actors.values(), *self._async_hosts.values(), self._mailbox):
            self._ray.kill(actor)

    # --- one turn of the loop -------------------------------------------------------------------
    def _turn(self, timeout_s: float | None) -> None:
        """Wait once, deal with what has come, send what can be sent."""
        if not self._come and timeout_s != 0:
            wait_readable([self._wake.fd], timeout_s)
        self._wake.drain()
        while self._come:
            self._come.popleft()()
        self._timers.run_due()
        if self._over:
            self._mailbox.forget.remote(self._over)
            self._over = []
        self._assign()

    def _follow_nodes(self) -> None:
        """Look now and then at what the cluster has: nodes come and go. In a thread of its own."""
        seen = self.capacity
        while not self._is_over.wait(_LOOK_AT_NODES_S):
            try:
                has = capacity_of_cluster(self._ray, self._terms)
                is_connected = is_node_alive(self._ray, self._node)
            except Exception as error:  # noqa: BLE001 - the cluster does not answer: it is asked again
                _log.debug("the nodes of Ray could not be looked at: %s", error)
                continue
            if not is_connected:
                self._come.append(self._lose_own_node)
                self._wake.wake()
                return
            if has != seen:
                seen = has
                self._come.append(partial(self._have, has))
                self._wake.wake()

    def _lose_own_node(self) -> None:
        """Give everything up: nothing is heard any more, and Ray does not connect anew by itself.

        Raises:
            DefinitionError: always, out of ``poll``.
        """
        raise DefinitionError(
            f"the node of Ray that this process is connected to, {self._node}, is gone. Once there "
            "is one again, start this anew, or resume its runs"
        )

    def _have(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._woken.set()  # what did not fit may fit now

    def _when_done(self, ref: Any, deal: Callable[[Any], None]) -> None:
        """Have the coordinator's thread deal with what a reference will stand for."""

        def tell(done: Any) -> None:  # in one of Ray's threads
            self._come.append(lambda: None if self._closed else deal(done))
            self._wake.wake()

        ref.future().add_done_callback(tell)

    # --- calls on their way down ----------------------------------------------------------------
    def _enqueue(self, call: StepCall) -> None:
        kind = self._kind(call)
        if kind.is_shared:
            self._queues.setdefault(kind, deque()).append(call)
        else:
            self._send(kind, [call])

    def _kind(self, call: StepCall) -> Kind:
        context = self._contexts[call.id.run_id]
        instance = None
        if call.actor is not None:
            instance = Instance(call.id.run_id, call.actor.of.actor, call.actor.number)
        is_async = context.functions[call.function].is_async and instance is None
        takes_cpus_only = not (call.gpus or call.memory_bytes or call.resources)
        bundle = context.bundle if self._sources.folder_of(call.id.run_id) else None
        return Kind(
            run_id=call.id.run_id,
            instance=instance,
            bundle=bundle or "",
            joins_loop=is_async and takes_cpus_only,
            is_shared=call.is_brief and not is_async and instance is None and not call.gpus,
            request=msgspec.json.encode(request_of_call(call)),
        )

    def _assign(self) -> None:
        """Send brief calls: so many Ray tasks as there are CPUs, each with its share of them."""
        most = max(1, math.ceil(self.capacity.cpus))
        for kind in [kind for kind, queue in self._queues.items() if queue]:
            queue = self._queues[kind]
            free = most - sum(lot.kind == kind for lot in self._lots.values())
            while queue and free > 0:
                share = min(_MOST_IN_LOT, math.ceil(len(queue) / free))
                self._send(kind, [queue.popleft() for _ in range(min(share, len(queue)))])
                free -= 1

    def _send(self, kind: Kind, calls: list[StepCall]) -> None:
        if self._unfit:
            self._outcomes += [lost(call, Cause.SETUP_ERROR, self._unfit) for call in calls]
            return
        number = next(self._numbers)
        context = self._contexts[kind.run_id]
        home = f"{self._home_of[kind.run_id]}/{kind.bundle}"
        part = part_for(calls, context)
        data = encode(Lot(number, home, part, tuple(calls), is_brief=kind.is_shared))
        host = self._host(kind, calls[0])
        if host is None:
            options = {**request_of_call(calls[0]), **sources_env(self._terms, kind.bundle)}
            options |= {"max_retries": 0, "name": calls[0].id.step_id}
            ref = self._run_lot.options(**options).remote(data, self._mailbox)
        else:
            ref = host.run.remote(data, self._mailbox)
        lot = self._lots[number] = SentLot(number, kind, ref, host, self._mailbox)
        for call in calls:
            self._flights[call.id] = lot.flights[call.id] = Flight(call, lot)
        self._when_done(ref, lambda done: self._hear_end(lot, done))

    def _host(self, kind: Kind, call: StepCall) -> Any:
        """Return the Ray actor in which a call is made; None for a Ray task of its own."""
        if kind.joins_loop:
            found = self._async_hosts.get(kind.bundle)
            if found is None:
                options: dict[str, Any] = {"num_cpus": 0}
                options["max_concurrency"] = self.capacity.async_slots
                found = self._async_hosts[kind.bundle] = self._make(AsyncHost, kind, options)
            return found
        if kind.instance is None:
            return None
        found = self._actors.get(kind.instance)
        if found is None:
            found = self._make(ActorHost, kind, request_of_actor(call))
            self._actors[kind.instance] = found
        return found

    def _make(self, host: type, kind: Kind, options: dict[str, Any]) -> Any:
        never_again = {"max_restarts": 0, "max_task_retries": 0}
        made = self._ray.remote(host)
        return made.options(
            **options, **never_again, **sources_env(self._terms, kind.bundle)
        ).remote()

    # --- news on their way up -------------------------------------------------------------------
    def _ask_for_mail(self) -> None:
        self._when_done(self._mailbox.take.remote(), self._take_mail)

    def _take_mail(self, done: Any) -> None:
        if done.exception() is not None:
            self._replace_mailbox(done.exception())
            return
        self._mailboxes_lost = 0
        self._ask_for_mail()
        news, questions = done.result()
        for data in news:
            self._take(decode_news(data))
        for number, question in questions:
            self._answer(number, _decode_saving(question))

    def _replace_mailbox(self, error: BaseException) -> None:
        """The mailbox is gone with its node: calls that begin from now on have another one.

        Where none can be had, no worker of perdure's can run, and calls are told so.
        """
        self._mailboxes_lost += 1
        if self._mailboxes_lost >= _MOST_MAILBOXES:
            self._give_up(error)
            return
        _log.warning("the mailbox for workers on Ray is lost; another one is made")
        self._timers.after(_ANOTHER_S, self._make_another_mailbox)

    def _make_another_mailbox(self) -> None:
        self._mailbox = make_mailbox(self._ray)
        self._ask_for_mail()
        for lot in list(self._lots.values()):
            if lot.error is not None:
                self._bury(lot)  # its mark was in the one that is gone

    def _give_up(self, error: BaseException) -> None:
        self._unfit = f"workers of perdure's cannot run on this Ray cluster: {last_words(error)}"
        for flight in list(self._flights.values()):
            self._outcomes.append(lost(flight.call, Cause.SETUP_ERROR, self._unfit))
        self._flights.clear()
        self._lots.clear()

    def _take(self, news: News) -> None:
        if isinstance(news, Done):
            for outcome in news.outcomes:
                self._land(outcome)
        elif isinstance(news, Tell):
            if news.told.call in self._flights:
                self._desk.tell(news.told)
        elif isinstance(news, Begun):
            self._note_begun(news)
        elif isinstance(news, Back):
            self._take_back(news)
        elif news.lot in self._lots:
            lot = self._lots[news.lot]
            lot.is_heard = True
            if lot.is_reaped:
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
        if lot is None:
            return
        lot.begun = begun
        if begun.host == os.uname().nodename:
            self._neighbours.add(begun.process)
        flight = lot.flights.get(begun.call)
        if flight is not None:
            flight.begin()
            if flight.call.timeout_s is not None:
                self._time(flight, flight.call.timeout_s)

    def _take_back(self, back: Back) -> None:
        """Calls wait behind one that takes long: they go into Ray tasks of their own."""
        lot = self._lots.get(back.lot)
        if lot is None:
            return
        for at in back.calls:
            flight = lot.flights.pop(at, None)
            if flight is None:
                continue
            if flight.is_wished and flight.ending is None:
                self._give_back(flight)
            else:
                self._send_again(flight)
        self._end_last(lot)

    def _give_back(self, flight: Flight) -> None:
        del self._flights[flight.call.id]
        self._forget(flight)
        self._outcomes.append(unbegun(flight.call, Cause.ABANDONED))

    def _send_again(self, flight: Flight) -> None:
        """Send a call that has not begun once more, or tell of its end."""
        del self._flights[flight.call.id]
        if flight.ending is not None:
            self._outcomes.append(unbegun(flight.call, flight.ending))
        else:
            self._send(msgspec.structs.replace(flight.lot.kind, is_shared=False), [flight.call])

    def _hear_end(self, lot: SentLot, done: Any) -> None:
        """A Ray task is over: take its outcomes, or find out which of its calls are lost."""
        if lot.number not in self._lots:
            return
        lot.error = done.exception()
        if lot.error is not None:
            # What the lot has said before is on its way, and comes before this mark does.
            self._mailbox.post.remote(encode(Mark(lot.number)))
            return
        end = decode_ended(done.result())
        if end.begun is not None and lot.begun is None:
            self._note_begun(end.begun)
        for told in end.told:
            if told.call in self._flights:
                self._desk.tell(told)
        for outcome in end.outcomes:
            self._land(outcome)
        # What is left has been given back, and the news of it is on its way.
        if lot.flights:
            self._mailbox.post.remote(encode(Mark(lot.number)))
        else:
            self._bury(lot)

    def _land(self, outcome: Outcome) -> None:
        flight = self._flights.get(outcome.id)
        if flight is None:
            return  # told already, or ended meanwhile
        lot = flight.lot
        if outcome.cause in (Cause.CANCELLED, Cause.ABANDONED) and flight.ending is not None:
            outcome = flight.ended(flight.ending)
        del self._flights[outcome.id], lot.flights[outcome.id]
        self._forget(flight)
        if self._may_run_recorded(outcome, lot.kind):
            self._enqueue(flight.call)
            return
        if outcome.value is not None and outcome.value.place is Place.SPOOL:
            self._spooled.add(outcome.id.run_id)
        self._outcomes.append(outcome)
        self._end_last(lot)

    def _may_run_recorded(self, outcome: Outcome, kind: Kind) -> bool:
        """Say whether today's code would not do, and there are recorded sources to try."""
        if outcome.cause is not Cause.SETUP_ERROR or kind.bundle:
            return False
        may = self._sources.use_for(self._contexts[kind.run_id])
        if may and kind.instance is not None:
            self.retire([kind.instance])  # it has imported today's
        return may

    def _bury(self, lot: SentLot) -> None:
        """A Ray task is over and all it said is heard: say what became of its other calls.

        If nobody knows which was at fault each is sent again by itself, and bears that then.
        """
        del self._lots[lot.number]
        if self._had_no_mailbox(lot):
            lot.error = None
        self._forget_host(lot)
        sends_again = lot.error is None or lot.is_unclear()
        for flight in list(lot.flights.values()):
            if sends_again:
                self._send_again(flight)
            else:
                del self._flights[flight.call.id]
                self._forget(flight)
                self._outcomes.append(flight.lost(self._ray.exceptions))

    def _forget(self, flight: Flight) -> None:
        """Have the mailbox forget a call that is over, if it knows of it."""
        if not flight.call.is_brief or flight.is_wished or flight.is_asked:
            self._over.append(encode(flight.call.id))

    def _had_no_mailbox(self, lot: SentLot) -> bool:
        """Say whether a lot was not heard, since its mailbox was gone; there is another one now.

        It did not begin: a worker waits until its beginning is heard before it calls anything. Of
        brief steps it does not; none of what is left of them has committed, so they may run again.
        """
        if not isinstance(lot.error, self._ray.exceptions.RayTaskError):
            return False
        assert lot.error is not None
        return is_of_ray(lot.error) and lot.mailbox is not self._mailbox

    def _forget_host(self, lot: SentLot) -> None:
        if lot.error is None:
            return
        if lot.begun is not None:
            self._neighbours.discard(lot.begun.process)
        self._actors = {at: host for at, host in self._actors.items() if host is not lot.host}
        self._async_hosts = {k: h for k, h in self._async_hosts.items() if h is not lot.host}

    # --- ends -----------------------------------------------------------------------------------
    def _time(self, flight: Flight, seconds: float) -> None:
        def end_if_running() -> None:
            if self._flights.get(flight.call.id) is flight and flight.ending is None:
                self._end(flight, Cause.TIMEOUT, self._timeout_grace_s)

        self._timers.after(seconds, end_if_running)

    def _end_queued(self, calls: set[CallId], cause: Cause) -> None:
        for kind, queue in self._queues.items():
            self._outcomes += [unbegun(call, cause) for call in queue if call.id in calls]
            self._queues[kind] = deque(call for call in queue if call.id not in calls)

    def _end(self, flight: Flight, cause: Cause, grace_s: float) -> None:
        """Ask a call to end, and see to it that it does.

        One of several in a lot is waited for: they are brief, or given back soon.
        """
        was_ending, flight.ending = flight.ending is not None, cause
        flight.grace_s = grace_s
        lot = flight.lot
        if len(lot.flights) > 1 and lot.begun is not None:
            return
        if not was_ending or grace_s <= 0:
            self._ask(flight)

    def _end_last(self, lot: SentLot) -> None:
        """If but one call is left in a lot, and is to end, then ask it."""
        if len(lot.flights) == 1:
            (flight,) = lot.flights.values()
            if flight.ending is not None and not flight.is_asked:
                self._ask(flight)

    def _ask(self, flight: Flight) -> None:
        flight.is_asked = True
        lot, at = flight.lot, encode(flight.call.id)
        if flight.grace_s > 0:
            self._timers.after(flight.grace_s, lambda: self._force(flight))
        else:
            self._force(flight)
            return
        if lot.begun is None:
            self._ray.cancel(lot.ref, force=False)  # it may wait for its place yet
        if lot.kind.joins_loop:
            lot.host.stop.remote([at])
        else:
            self._mailbox.interrupt.remote(at)

    def _force(self, flight: Flight) -> None:
        """End the process of a call that has not ended, and all that is below it."""
        lot = flight.lot
        if self._flights.get(flight.call.id) is not flight or lot.is_killed:
            return
        lot.is_killed = True
        if lot.host is not None:
            for other in self._lots.values():
                other.is_killed = other.is_killed or other.host is lot.host
        if lot.begun is None:
            self._end_by_ray(lot)
            return
        reaper = self._end_worker.options(
            num_cpus=0, max_retries=0, scheduling_strategy=on_node(self._ray, lot.begun.node)
        )
        lot.is_reaped = False
        self._when_done(reaper.remote(lot.begun.process), lambda _: self._note_reaped(lot))
        self._timers.after(_FORCE_S, lambda: self._end_by_ray(lot))
        self._timers.after(_REAP_S, lambda: self._note_reaped(lot))

    def _note_reaped(self, lot: SentLot) -> None:
        """All that a worker has started is gone: now its calls are over."""
        lot.is_reaped = True
        if lot.number in self._lots and lot.is_heard:
            self._bury(lot)
        else:
            self._end_by_ray(lot)

    def _end_by_ray(self, lot: SentLot) -> None:
        if lot.number not in self._lots or lot.error is not None:
            return
        if lot.host is None:
            self._ray.cancel(lot.ref, force=True)
        else:
            self._ray.kill(lot.host)
