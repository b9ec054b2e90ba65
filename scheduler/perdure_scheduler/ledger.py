"""How long it is said what became of a tick, or of an arrival: of some there are many."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import msgspec

from perdure_scheduler.conditions import Files
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.hearing import every_trigger
from perdure_scheduler.trigger import Trigger
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.schedule_records import ScheduleQuery
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import TriggerQuery, TriggerRecord

log = logging.getLogger(__name__)

FIRST_AFTER_S = 60.0
"""Who serves has other things to do first; and whoever is restarted often sweeps too."""
SWEEP_EVERY_S = 3600.0
_PAGE = 500


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which ticks and arrivals are kept: a tick has to be both.

    Attributes:
        keep: ticks whose nominal time is not older.
        keep_last: the newest so many ticks of each schedule.
        keep_arrivals: arrivals that were decided since, and of files those that are there. One
            that comes again after it was forgotten counts once more.
    """

    keep: timedelta
    keep_last: int
    keep_arrivals: timedelta


class Ledger:
    """The ticks and arrivals of a store, and the forgetting of old ones.

    Args:
        schedules: have ticks.
        triggers: have arrivals.
        clock: wall time.
        retention: which are kept.
    """

    def __init__(
        self, schedules: ScheduleStore, triggers: TriggerStore, clock: Clock, retention: Retention
    ) -> None:
        self._schedules = schedules
        self._triggers = triggers
        self._clock = clock
        self._retention = retention

    def sweep(self, stop: threading.Event | None = None) -> int:
        """Forget the ticks and arrivals that are not kept; return how many.

        A portion at a time, so that no tick that is due waits long for the lock. To be interrupted
        is safe: the next sweep goes on.

        Args:
            stop: ends it between two portions.
        """
        stop = stop or threading.Event()
        return self._sweep_ticks(stop) + self._sweep_arrivals(stop)

    def _sweep_ticks(self, stop: threading.Event) -> int:
        gone = 0
        before = self._clock.now() - self._retention.keep
        while not stop.is_set() and (portion := self._schedules.forget_ticks(before)):
            gone += portion
        query = ScheduleQuery(limit=_PAGE)
        while page := self._schedules.list_schedules(query):
            for each in page:
                keep_last = self._retention.keep_last
                while not stop.is_set() and (
                    portion := self._schedules.trim_ticks(each.name, keep_last)
                ):
                    gone += portion
            query = msgspec.structs.replace(query, after=page[-1].name)
        return gone

    def _sweep_arrivals(self, stop: threading.Event) -> int:
        gone = 0
        for record in every_trigger(self._triggers, TriggerQuery()):
            while not (stop.is_set() or _comes_again(record)) and (
                portion := self.forget_arrivals(record.name)
            ):
                gone += portion
        return gone

    def forget_arrivals(self, name: str, keep: Callable[[str], bool] | None = None) -> int:
        """Forget a portion of the old arrivals of a trigger; return how many: none is left at 0.

        Args:
            name: of the trigger.
            keep: says of a key whether it may arrive again: that one stays.
        """
        before = self._clock.now() - self._retention.keep_arrivals
        return self._triggers.forget_arrivals(name, before, keep=keep)

    def serve(self, stop: threading.Event) -> None:
        """Sweep now and then until ``stop`` is set."""
        wait_s = FIRST_AFTER_S
        while not stop.wait(wait_s):
            try:
                gone = self.sweep(stop)
            except StoreError as error:
                log.error("old ticks and arrivals are not forgotten now, later again: %s", error)
            else:
                level = logging.INFO if gone else logging.DEBUG
                log.log(level, "%d old ticks and arrivals forgotten", gone)
            wait_s = SWEEP_EVERY_S


def _comes_again(record: TriggerRecord) -> bool:
    """Say whether what arrived may arrive again however old it is.

    A file that is still there is listed for ever, and its row is all that says that it has had its
    run. Which files are not there any more only those know who list them: ``listener``.
    """
    try:
        trigger = Trigger.from_json(record.definition)
    except TriggerError:  # of a newer perdure, which knows
        return True
    return any(isinstance(part, Files) for part in trigger.parts.values())
