"""How long the ledger says what became of a tick: the rows of one each ten seconds are many."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import msgspec

from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.schedule_records import ScheduleQuery

log = logging.getLogger(__name__)

FIRST_AFTER_S = 60.0
"""Who serves has other things to do first; and whoever is restarted often sweeps too."""
SWEEP_EVERY_S = 3600.0
_PAGE = 500


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which ticks the ledger keeps: a tick has to be both.

    Attributes:
        keep: those whose nominal time is not older.
        keep_last: the newest so many of each schedule.
    """

    keep: timedelta
    keep_last: int


class Ledger:
    """The ticks of a store, and the forgetting of old ones.

    Args:
        schedules: the store.
        clock: wall time.
        retention: which are kept.
    """

    def __init__(self, schedules: ScheduleStore, clock: Clock, retention: Retention) -> None:
        self._schedules = schedules
        self._clock = clock
        self._retention = retention

    def sweep(self, stop: threading.Event | None = None) -> int:
        """Forget the ticks that are not kept; return how many.

        A portion at a time, so that no tick that is due waits long for the lock. To be interrupted
        is safe: the next sweep goes on.

        Args:
            stop: ends it between two portions.
        """
        stop = stop or threading.Event()
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

    def serve(self, stop: threading.Event) -> None:
        """Sweep now and then until ``stop`` is set."""
        wait_s = FIRST_AFTER_S
        while not stop.wait(wait_s):
            try:
                gone = self.sweep(stop)
            except StoreError as error:
                log.error("old ticks are not forgotten now, later again: %s", error)
            else:
                log.log(logging.INFO if gone else logging.DEBUG, "%d old ticks forgotten", gone)
            wait_s = SWEEP_EVERY_S
