"""Brings to triggers what happens in the store itself: events, ends of runs, windows that are over.

It keeps nothing that could be lost: how far a trigger has heard is written with what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import Event, RunFinished
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.intake import Brought, Intake, Receipt, TriggerBusy, TriggerChanged
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import chain_of
from perdure_storage.clock import Clock
from perdure_storage.errors import (
    StoreError,
    StoreUnavailable,
    TriggerNotFound,
    ValueDamaged,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import MessageRecord, Place, RunId
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import EndRecord, TriggerQuery, TriggerRecord
from perdure_storage.values import Values

log = logging.getLogger(__name__)

BATCH = 100
"""Of events, of ends, and of triggers at a time: nobody waits long for a lock."""
_PAGE = 500
_PLAIN = "json/1"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What one look came to.

    Attributes:
        receipts: what became of arrivals.
        landed: how many triggers went on.
        left: how many did not, for now: somebody else was faster.
        stuck: how many cannot be told, which was logged: they stand still until they are changed.
    """

    receipts: tuple[Receipt, ...] = ()
    landed: int = 0
    left: int = 0
    stuck: int = 0

    def __add__(self, other: Heard) -> Heard:
        return Heard(
            receipts=self.receipts + other.receipts,
            landed=self.landed + other.landed,
            left=self.left + other.left,
            stuck=self.stuck + other.stuck,
        )


class Hearing:
    """Brings what happens in a store to its triggers.

    Args:
        store: runs, events and triggers.
        values: where payloads and inputs are.
        clock: wall time.
    """

    def __init__(self, store: RunStore, values: Values, clock: Clock) -> None:
        self._store = store
        self._triggers = store.triggers
        self._values = values
        self._clock = clock
        self._intake = Intake(store.triggers, values, clock)
        self._all_heard_upto = -1
        self._stuck: dict[str, int] = {}  # triggers that cannot be told, each with its version
        self._kept: set[int] = set()  # ends of which one of those is to be told

    def look(self) -> Heard:
        """Bring what has happened, a batch of each kind; ``landed`` is 0 when nothing is left."""
        heard = self._bring_events() + self._bring_ends()
        for record in self._triggers.due_triggers(self._clock.now(), BATCH):
            heard += self._take(record, Brought(digest=record.digest))
        return heard

    # --- events -------------------------------------------------------------------------------
    def _bring_events(self) -> Heard:
        newest = self._triggers.newest_event()
        heard = Heard()
        if newest == self._all_heard_upto:
            return heard
        for record in self._triggers.hearing():
            heard += self.hear(record)
        if not heard.landed and not heard.left and not heard.stuck:
            self._all_heard_upto = newest
        return heard

    def hear(self, record: TriggerRecord) -> Heard:
        """Bring the next events to a trigger."""
        try:
            events = self._triggers.events_after(record.heard, record.events, BATCH)
            trigger = self._intake.definition(record)
        except StoreUnavailable:
            raise
        except (StoreError, TriggerError) as error:
            return self._stands_still(record, error)
        if not events:
            return Heard()
        arrivals = tuple(
            (condition, self._event_arrival(event))
            for event in events
            for condition, part in trigger.parts.items()
            if isinstance(part, Event) and part.name == event.name and part.is_met_by(event.match)
        )
        brought = Brought(arrivals=arrivals, heard=events[-1].id, digest=record.digest)
        return self._take(record, brought)

    def _event_arrival(self, event: MessageRecord) -> Arrival:
        facts = {
            "name": event.name,
            "match": event.match,
            "number": event.id,
            "at": event.at.isoformat(),
            "sender": event.sender,
            "chain": self._chain(event.sender),
            **self._payload(event),
        }
        return Arrival(key=f"event-{event.id}", facts=facts, payload=event.value)

    def _payload(self, event: MessageRecord) -> dict[str, Any]:
        """Return the payload among facts if it is small and JSON; anything travels whole.

        Nothing else is decoded here: that could run code of a user's.
        """
        if event.value.codec != _PLAIN or event.value.place is not Place.INLINE:
            return {}
        try:
            return {"payload": self._values.load(event.value)}
        except ValueDamaged as error:  # who runs with it is told so again
            log.error("event %s cannot be read: %s", event.id, error)
            return {}

    # --- ends of runs -------------------------------------------------------------------------
    def _bring_ends(self) -> Heard:
        # Ends before triggers: of whoever began to watch before one of them, it is told.
        ends = self._triggers.ends(BATCH + len(self._kept))
        watching = self._triggers.watching()
        if any(self._stuck.get(each.name, each.version) != each.version for each in watching):
            self._kept.clear()  # it was changed: perhaps it can be told now
        new = [end for end in ends if end.id not in self._kept][:BATCH]
        if not new:
            return Heard()
        heard = Heard()
        for record in watching:
            heard += self._bring_ends_to(record, new)
        if heard.left:
            return heard
        ids = [end.id for end in new]
        if heard.stuck:
            self._kept.update(ids)
        else:
            self._triggers.accept((), ends=ids)
        return heard + Heard(landed=1)

    def _bring_ends_to(self, record: TriggerRecord, ends: Sequence[EndRecord]) -> Heard:
        try:
            trigger = self._intake.definition(record)
        except TriggerError as error:
            return self._stands_still(record, error)
        arrivals = tuple(self._met_by(trigger, ends))
        if not arrivals:
            return Heard()
        return self._take(record, Brought(arrivals=arrivals, digest=record.digest))

    def _met_by(self, trigger: Trigger, ends: Sequence[EndRecord]) -> Iterator[tuple[str, Arrival]]:
        for end in ends:
            for condition, part in trigger.parts.items():
                if isinstance(part, RunFinished) and part.is_met_by(
                    end.workflow, end.status, end.tags
                ):
                    yield condition, self._end_arrival(end)

    def _end_arrival(self, end: EndRecord) -> Arrival:
        # A run that succeeded has done so once, also if it is opened again for a value that was
        # lost; one that failed may be resumed and fail again.
        is_final = end.status is RunStatus.SUCCEEDED
        facts = {
            "run_id": end.run_id,
            "workflow": end.workflow,
            "status": str(end.status),
            "tags": end.tags,
            "at": end.at.isoformat(),
            "trigger": end.trigger,
            "schedule": end.schedule,
            "chain": [] if end.trigger is None else self._chain(end.run_id, end.trigger),
        }
        which = end.run_id if is_final else f"{end.run_id}-{end.status}-{end.seq}"
        # A run that was deleted may have left its id to this one.
        made = "" if end.created_at is None else f"{end.created_at.isoformat()}/"
        return Arrival(key=f"{made}{which}", facts=facts)

    def _chain(self, run_id: RunId | None, *known: str) -> list[str]:
        """Return the triggers that led to a run; of one that is gone, those that are known."""
        run = None if run_id is None else self._store.find_run(run_id)
        return list(known) if run is None else chain_of(run)

    # --- triggers -----------------------------------------------------------------------------
    def _take(self, record: TriggerRecord, brought: Brought) -> Heard:
        """Take in what was brought to one trigger; what is wrong with it stops no other."""
        try:
            receipts = self._intake.take(record.name, brought)
        except (TriggerNotFound, TriggerChanged, TriggerBusy) as error:
            log.debug("%s", error)  # the next look finds it as it is then
            return Heard(left=1)
        except StoreUnavailable:
            raise
        except (StoreError, TriggerError) as error:
            return self._stands_still(record, error)
        return Heard(receipts=tuple(receipts), landed=1)

    def _stands_still(self, record: TriggerRecord, error: Exception) -> Heard:
        if self._stuck.get(record.name) != record.version:
            self._stuck[record.name] = record.version
            log.error("trigger %s stands still: %s", record.name, error)
        return Heard(stuck=1)


def every_trigger(triggers: TriggerStore, query: TriggerQuery) -> Iterator[TriggerRecord]:
    """Yield all triggers of a query, page by page."""
    after = query.after
    while True:
        page = triggers.list_triggers(msgspec.structs.replace(query, limit=_PAGE, after=after))
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].name
