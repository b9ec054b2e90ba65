"""Listens to the sources of triggers, and hands in what they give: all of it, each alone.

A source that raises is told of and listened to again, later and later. One that hangs, blocks or
gives without end holds up nobody but itself: files are looked at in threads, sources of the user's
have a loop of their own, and whoever has something to hand in takes his turn at the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import Files, Listen
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.file_source import FileSource, source_of
from perdure_scheduler.intake import Intake, TriggerChanged
from perdure_scheduler.ledger import SWEEP_EVERY_S, Ledger
from perdure_scheduler.own_thread import in_own_loop
from perdure_scheduler.sources import LONGEST_CURSOR, Acknowledging, Batch, Source, batch_of
from perdure_scheduler.trigger_changes import state_of
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError, StoreUnavailable, TriggerNotFound
from perdure_storage.protocols import RunStore
from perdure_storage.trigger_records import TriggerRecord

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_S = 1.0
"""How soon a trigger that was registered, resumed or paused is seen."""
TAKE_EVERY_S = 10.0
"""How soon the triggers of a listener that died on another host are taken over, at most."""
REST_S = 1.0
"""How long a source rests that has ended or raised; doubled each time it raises again."""
LONGEST_REST_S = 60.0
AGAIN_S = 1.0
"""When what a store did not take is handed in again."""
LONGEST_MESSAGE = 1_000
GRACE_S = 3.0
"""How long sources may take to end."""


class Ear(msgspec.Struct, frozen=True, kw_only=True):
    """What is listened to: a condition of a trigger, as it was registered.

    Attributes:
        created_at: of the trigger: one of the same name that was made anew begins anew.
    """

    trigger: str
    condition: str
    part: Files | Listen
    digest: str
    created_at: datetime | None

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.trigger}/{self.condition}" if self.condition else self.trigger

    @property
    def key(self) -> str:
        """Return what tells it from all others, and from itself as it was declared before."""
        return f"{self.name} {self.digest}"


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """That a source is not listened to for a while, and why."""

    message: str
    rest_s: float


class Listener:
    """Listens for one coordinator.

    Args:
        store: runs and triggers.
        intake: takes in what arrives.
        token: of the coordinator; whoever made it renews its lease.
        load: gives a source by its entry point; it imports the user's code, and may raise anything.
        clock: how long it is since something.
        seen_dead: gives tokens of listeners that are seen to be dead; others die by their lease.
        begins: is told, in the thread of a source of the user's, that its code is about to run.
        rests: for sources that are not listened to at first, by the key of their ear.
        ledger: forgets old arrivals of files that are gone; None: they are kept.
    """

    def __init__(
        self,
        store: RunStore,
        intake: Intake,
        token: str,
        load: Callable[[str], Source],
        clock: Clock,
        seen_dead: Callable[[], Collection[str]] = tuple,
        begins: Callable[[Ear], None] = lambda ear: None,
        rests: Mapping[str, Rest] = {},
        ledger: Ledger | None = None,
    ) -> None:
        self._store = store
        self._triggers = store.triggers
        self._intake = intake
        self._token = token
        self._load = load
        self._clock = clock
        self._seen_dead = seen_dead
        self._begins = begins
        self._rests = dict(rests)
        self._ledger = ledger
        self._ears: dict[Ear, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._seen: object = None
        self._taken_at = 0.0
        # One thread: its queue is the order of turns, whichever loop asks.
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="perdure-intake")

    async def serve(self, stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set."""
        try:
            while not stop.is_set():
                try:
                    await self.look()
                except StoreUnavailable as error:
                    log.error("the store is away, trying again: %s", error)
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await stop.wait()
                except TimeoutError:
                    pass
        finally:
            await self._let_go()

    async def look(self) -> None:
        """Listen to what there is to listen to now, and no longer to what is not ours any more."""
        changes = await self._in_turn(self._store.changes)
        is_time = self._clock.monotonic() - self._taken_at > TAKE_EVERY_S
        if changes == self._seen and not is_time and not self._has_ended():
            return
        self._seen, self._taken_at = changes, self._clock.monotonic()
        taken = await self._in_turn(self._take)
        wanted = {ear for record in taken for ear in self._ears_of(record)}
        for ear in [ear for ear, task in self._ears.items() if ear not in wanted or task.done()]:
            self._end(self._ears.pop(ear))
        for ear in wanted - self._ears.keys():
            self._ears[ear] = asyncio.create_task(self._listen(ear), name=ear.name)

    def _take(self) -> list[TriggerRecord]:
        return self._triggers.take_sources(self._token, seen_dead=self._seen_dead())

    def _has_ended(self) -> bool:
        return any(task.done() for task in self._ears.values())

    def _ears_of(self, record: TriggerRecord) -> Iterator[Ear]:
        try:
            parts = self._intake.definition(record).parts
        except TriggerError as error:
            log.error("trigger %s is not listened for: %s", record.name, error)
            return
        for condition, part in parts.items():
            if isinstance(part, Files | Listen):
                yield Ear(
                    trigger=record.name,
                    condition=condition,
                    part=part,
                    digest=record.digest,
                    created_at=record.created_at,
                )

    # --- one source -----------------------------------------------------------------------------
    async def _listen(self, ear: Ear) -> None:
        """Listen for as long as the trigger is what it is."""
        try:
            if isinstance(ear.part, Listen):
                own = partial(self._listen_on, ear)
                await in_own_loop(own, name=f"perdure-source-{ear.name}")
            else:
                await self._listen_on(ear)
        except (TriggerChanged, TriggerNotFound) as error:
            log.debug("%s is not listened to any more: %s", ear.name, error)
        except Exception:  # a task of the user's has taken its loop down: it is begun again
            log.exception("%s stopped", ear.name)

    async def _listen_on(self, ear: Ear) -> None:
        source: Source | None = None
        failures = 0
        if (rest := self._rests.pop(ear.key, None)) is not None:
            await self._tell(ear, rest.message, rest.rest_s)
            await asyncio.sleep(rest.rest_s)
        if isinstance(ear.part, Listen):
            self._begins(ear)
        while True:
            began, rest_s = self._clock.monotonic(), REST_S
            try:
                source = source or self._source_of(ear.part)
                await self._follow(ear, source)
            except (TriggerChanged, TriggerNotFound):
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code: anything
                if self._clock.monotonic() - began > LONGEST_REST_S:
                    failures = 0
                rest_s = min(REST_S * 2**failures, LONGEST_REST_S)
                failures = min(failures + 1, 10)
                await self._tell(ear, f"{type(error).__name__}: {error}", rest_s)
            await asyncio.sleep(rest_s)

    def _source_of(self, part: Files | Listen) -> Source:
        if isinstance(part, Listen):
            return self._load(part.source)
        return source_of(part, self._clock)

    async def _follow(self, ear: Ear, source: Source) -> None:
        """Hand in what a source gives, until it ends or raises."""
        record = await self._patiently(ear, partial(self._triggers.get_trigger, ear.trigger))
        state = state_of(record)
        is_troubled = ear.condition in state.troubles
        given = source.listen(state.cursors.get(ear.condition))
        swept_at = self._clock.monotonic()
        try:
            async for each in given:
                batch = _checked(each)
                if is_troubled:
                    await self._note(ear, "")
                    is_troubled = False
                if batch.arrivals or batch.cursor is not None:
                    await self._patiently(ear, partial(self._receive, ear, batch))
                if batch.arrivals and isinstance(source, Acknowledging):
                    await source.committed(batch.arrivals)
                if not batch.arrivals and self._clock.monotonic() >= swept_at + SWEEP_EVERY_S:
                    await self._forget_gone(ear, source)
                    swept_at = self._clock.monotonic()
        finally:
            close = getattr(given, "aclose", None)
            if close is not None:
                await close()

    async def _forget_gone(self, ear: Ear, source: Source) -> None:
        """Forget old arrivals of files that are gone, as long as the source waits to be asked.

        It says so between two batches, and nothing of it is taken in meanwhile: what is forgotten
        here and comes back is new. Where files are one of several conditions, they are kept: the
        keys of all of them lie together.
        """
        if self._ledger is None or not isinstance(source, FileSource) or ear.condition:
            return
        may_come_again, gone = source.may_come_again(), 0
        forget = partial(self._ledger.forget_arrivals, ear.trigger, may_come_again)
        while portion := await self._patiently(ear, forget):
            gone += portion
        if gone:
            log.info("%d old arrivals of files that are gone forgotten for %s", gone, ear.name)

    def _receive(self, ear: Ear, batch: Batch) -> None:
        self._intake.receive(
            ear.trigger,
            batch.arrivals,
            condition=ear.condition,
            cursor=batch.cursor,
            digest=ear.digest,
        )

    async def _patiently(self, ear: Ear, work: Callable[[], T]) -> T:
        """Return what the store answers; while it does not, what is to be handed in is kept."""
        while True:
            try:
                return await self._in_turn(work)
            except TriggerNotFound:
                raise
            except StoreError as error:
                log.warning("%s waits for the store: %s", ear.name, error)
            await asyncio.sleep(AGAIN_S)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._turns.submit(work))

    async def _tell(self, ear: Ear, message: str, rest_s: float) -> None:
        """Tell of a source that rests, where people look: in the log, and with the trigger."""
        message = message[:LONGEST_MESSAGE]
        log.warning("%s: %s; listening again in %.3g s", ear.name, message, rest_s)
        await self._note(ear, message)

    async def _note(self, ear: Ear, message: str) -> None:
        note = partial(
            self._intake.note_trouble, ear.trigger, ear.condition, message, digest=ear.digest
        )
        await self._patiently(ear, note)

    # --- the end --------------------------------------------------------------------------------
    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _let_go(self) -> None:
        while self._ears:
            self._end(self._ears.popitem()[1])
        if self._ending:
            await asyncio.wait(self._ending, timeout=GRACE_S)
        try:
            await self._in_turn(partial(self._triggers.leave_sources, self._token))
        except StoreError as error:
            log.warning("could not say that nobody listens here any more: %s", error)
        self._turns.shutdown(wait=False, cancel_futures=True)


def _checked(given: object) -> Batch:
    """Return a batch, of what may be anything.

    Raises:
        TypeError, ValueError: it breaks the contract of sources.
    """
    if not isinstance(given, Batch | Arrival):
        raise TypeError(f"a source gives Arrival or Batch, and this gave {type(given).__name__}")
    batch = batch_of(given)
    for each in batch.arrivals:
        key: object = getattr(each, "key", None)
        if not isinstance(key, str) or not key:
            raise TypeError(f"an Arrival has a key that is text, and this is {each!r:.200}")
    if batch.cursor is not None and len(batch.cursor) > LONGEST_CURSOR:
        raise ValueError(f"a cursor has at most {LONGEST_CURSOR:,} characters")
    return batch
