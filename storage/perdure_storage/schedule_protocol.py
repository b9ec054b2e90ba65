"""The contract of stores of schedules: docstrings that are law. ``contract_schedules.py`` and
``contract_ticks.py`` test it.

A schedule lives in the database of the runs that it makes, so that a tick, its run and the next
due time are one transaction. Any number of dispatchers may work at once: each reads a schedule,
decides, and writes under the guard of the version that it read. Who is second changes nothing.

Schedules with one concurrency key count each other's runs, so the key has a version too, which each
firing under it guards and raises.

Locks are taken in the order run rows by id, then concurrency keys, then schedules by name, then
others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from perdure_storage.records import PlanRecord
from perdure_storage.schedule_records import (
    FireReport,
    ScheduleChange,
    ScheduleQuery,
    ScheduleRecord,
    ScheduleRuns,
    TickQuery,
    TickRecord,
)


class ScheduleStore(Protocol):
    """Schedules, their ticks, and the making of their runs."""

    # --- changes -----------------------------------------------------------------------------
    def register(
        self, change: ScheduleChange, plan: PlanRecord | None = None
    ) -> ScheduleRecord | None:
        """Insert a schedule, or replace the definition of one, together with what was decided.

        Guard: the version of ``change.schedule`` is the stored one; 0: no schedule has the name.
        Returns the row as it is now, or None if the guard failed: nothing was written, read it
        again. The state is the one that the caller gives, who read the old one: what was decided
        stays decided. Writes the schedule, its references to ``blobs`` and to ``plan``, and
        ticks, runs and cancel requests as ``fire`` does. A plan that was its own before goes if
        nothing else has it. The version of its concurrency key grows: who decided without it
        decides again. Raises BlobsCondemned (put them again), StoreError if a row cannot be
        stored, InternalError if ``plan`` is not the one that the row names.
        """
        ...

    def fire(self, batch: Sequence[ScheduleChange]) -> FireReport:
        """Write what was decided about schedules: one transaction, guarded per schedule.

        Guard, per schedule: its version is the one that was read. No named blob is condemned. If
        it makes runs that count (none by hand) under a concurrency key: the version of ``key`` is
        the one that was read, which grows by one then. So of two that fire at once under one key,
        be it in one batch, only one lands.
        A change whose guard fails is left out and reported, the rest lands; so is one with a row
        that the database refuses, as ``rejected``. A batch holds a schedule at most once.
        Writes: state, ``next_at``, ``wakes_below``, ``paused``, ``ended``, version + 1 (nothing of
        the definition); tick rows; runs, as ``create_run`` makes them; cancel requests for those
        of ``cancels`` that are live. Pausing and resuming are this transaction too.

        A run whose id is taken, or has a tombstone, is there or was: it is not made again, and is
        no error. A tick that has made a run keeps its row until it makes another one. If the
        process dies after it, the next reader finds the new state and decides nothing of it again.
        """
        ...

    def remove(self, name: str) -> bool:
        """Remove a schedule, its ticks and its references; return whether it was there.

        Its runs stay, and so do their ids: a schedule of the same name makes none of them again.
        """
        ...

    def forget_ticks(self, before: datetime, *, limit: int = 10_000) -> int:
        """Remove ticks whose nominal times are all before a time; return how many.

        At most ``limit`` of them, so that nobody waits long for the lock: ask again while as many
        were removed.
        """
        ...

    def trim_ticks(self, name: str, keep_last: int, *, limit: int = 10_000) -> int:
        """Remove ticks of a schedule but for the newest so many; return how many.

        The oldest are removed first, at most ``limit`` of them: ask again while as many were.
        """
        ...

    # --- questions ---------------------------------------------------------------------------
    def find_schedule(self, name: str) -> ScheduleRecord | None:
        """Return the schedule, or None. Signed rows are verified before they are returned."""
        ...

    def get_schedule(self, name: str) -> ScheduleRecord:
        """Return the schedule. Raises ScheduleNotFound, naming the store that was asked."""
        ...

    def list_schedules(self, query: ScheduleQuery) -> list[ScheduleRecord]:
        """Return a page of schedules, by name."""
        ...

    def due(self, now: datetime, limit: int = 100) -> list[ScheduleRecord]:
        """Return schedules about which something is to be decided.

        Their ``next_at`` has come, or fewer runs that count for them than ``wakes_below`` are
        live. Of those that wait under one concurrency key only the first in its line (the smallest
        ``waits_since``, then name) is due by that. The longest due first, those without ``next_at``
        last, then by name. Read by indexes. One whose signature does not fit is left out, which is
        logged once: it stops none but those that wait behind it. Whoever gets it by name is told.
        """
        ...

    def next_due(self) -> datetime | None:
        """Return the earliest ``next_at``, or None. One look into an index.

        Ends of runs, for which ``wakes_below`` waits, are not in it: look when ``changes`` says so.
        """
        ...

    def runs_of(
        self, name: str, *, concurrency: str | None = None, since: datetime | None = None
    ) -> ScheduleRuns:
        """Return what policies ask about the runs of a schedule. Runs by hand are none of them.

        Args:
            name: of the schedule.
            concurrency: its key: live runs of all schedules that have it now count.
            since: failures that ended by then do not count.

        Only ``fire`` and ``register`` make such runs, so while the versions of a schedule and of
        its key stand no more of them appear than were read after them; they may end meanwhile, and
        a person may open one again.
        """
        ...

    def newest_ticks(self, names: Collection[str]) -> dict[str, TickRecord]:
        """Return the newest tick of each of these schedules that has one, by name, verified."""
        ...

    def list_ticks(self, query: TickQuery) -> list[TickRecord]:
        """Return a page of ticks, newest first. Signed rows are verified."""
        ...
