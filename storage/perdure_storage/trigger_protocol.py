"""The contract of stores of triggers: docstrings that are law. ``contract_triggers.py``,
``contract_arrivals.py`` and ``contract_news.py`` test it.

A trigger lives in the database of the runs that it makes, so that an arrival, its run and the
cursor of its source are one transaction. Anyone may bring arrivals at any time, twice and in any
order: the key of an arrival makes it count once. Who decides by the state of a trigger writes
under the guard of the version that he read.

Locks are taken in the order run rows by id, then triggers by name, then others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from perdure_storage.records import MessageRecord, PlanRecord
from perdure_storage.trigger_records import (
    AcceptReport,
    ArrivalQuery,
    ArrivalRecord,
    EndRecord,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)


class TriggerStore(Protocol):
    """Triggers, what arrived for them, and the making of their runs."""

    # --- changes -----------------------------------------------------------------------------
    def register(
        self, change: TriggerChange, plan: PlanRecord | None = None
    ) -> TriggerRecord | None:
        """Insert a trigger, or replace the definition of one, together with what was decided.

        Guard: the version of ``change.trigger`` is the stored one; 0: no trigger has the name. And
        nothing is left deferred, as ``accept`` says.
        Returns the row as it is now, or None if the guard failed: nothing was written, read it
        again. Writes the trigger with its references to ``blobs`` and ``plan``, and arrivals and
        runs as ``accept`` does: of arrivals that are there nothing is written. Nobody listens for
        it afterwards: who did takes it anew, as it is now. A plan that was its own before goes if
        nothing else has it. Raises BlobsCondemned, StoreError if a row cannot be stored,
        InternalError if ``plan`` is not the one that the row names.
        """
        ...

    def accept(self, batch: Sequence[TriggerChange], ends: Collection[int] = ()) -> AcceptReport:
        """Write what was decided about arrivals: one transaction, guarded per trigger.

        Guard, per change: its trigger is there, with the definition that was read, and paused if
        it was: who is told that a trigger is paused has seen its last run. No named blob is
        condemned. If it ``moves``: the version is the one that was read, and no key of ``arrivals``
        is there; and if it lets a paused trigger go on, no earlier arrival is ``"deferred"`` but
        those that it revises: nobody would decide about it any more. A change whose guard fails is
        left out and reported, the rest lands; so is one with a row that the database refuses, as
        ``rejected``. A batch holds a trigger at most once.

        Writes: arrivals, each with the next ``seq`` of its trigger; one whose key is there is left
        out with its run, and reported as ``known``. ``revised`` ones replace decision, why,
        reason, decided_at, run_id and code. Runs, as ``create_run`` makes them; one whose id is
        taken or has a tombstone was made before, and is no error. If it ``moves``, state,
        ``heard``, ``next_at``, ``paused``, version + 1; nothing of the definition.

        The ``ends`` are gone afterwards if every change landed, or its trigger is gone; else they
        stay, and are found again: arrivals of what landed are known then. If the process dies
        after it, whoever brings the same arrivals again is told that they are known.
        """
        ...

    def remove(self, name: str) -> bool:
        """Remove a trigger, its arrivals and its references; return whether it was there.

        Its runs stay, and so do their ids: a trigger of the same name makes none of them again.
        """
        ...

    def forget_arrivals(
        self,
        name: str,
        before: datetime,
        *,
        keep: Callable[[str], bool] | None = None,
        limit: int = 10_000,
    ) -> int:
        """Remove arrivals of a trigger that were decided before a time; return how many.

        Not those of whose key ``keep`` says so: it may arrive again. It is asked outside of the
        transaction. Nor those that still have to be decided: whose decision is ``"held"`` or
        ``"deferred"``. At most ``limit`` of them: ask again until none was removed.
        """
        ...

    def take_sources(
        self, token: str, limit: int = 100, *, seen_dead: Collection[str] = ()
    ) -> list[TriggerRecord]:
        """Make a coordinator the listener of triggers that listen, are not paused, and whose
        listener is none, is no live coordinator, or is one of ``seen_dead`` (tokens of those that
        the caller saw dead on this host).

        Takes at most ``limit`` more, by name; returns all that are its own now, by name. One that
        somebody else takes at this moment is left out, not waited for. The version stays: who
        listens decides nothing. Who pauses or registers a trigger takes it from its listener
        (``accept`` of a change with ``paused`` clears the listener), who finds so by asking again.
        """
        ...

    def leave_sources(self, token: str) -> None:
        """Let nobody listen for what this coordinator listened for."""
        ...

    # --- questions ---------------------------------------------------------------------------
    def find_trigger(self, name: str) -> TriggerRecord | None:
        """Return the trigger, or None. Signed rows are verified before they are returned."""
        ...

    def get_trigger(self, name: str) -> TriggerRecord:
        """Return the trigger. Raises TriggerNotFound, naming the store that was asked."""
        ...

    def list_triggers(self, query: TriggerQuery) -> list[TriggerRecord]:
        """Return a page of triggers, by name."""
        ...

    def hearing(self) -> list[TriggerRecord]:
        """Return all triggers that want to know of events, by name.

        One whose signature does not fit is left out, which is logged once: it stops no other.
        """
        ...

    def watching(self) -> list[TriggerRecord]:
        """Return all triggers that want to know when runs end, by name, as ``hearing`` does."""
        ...

    def due_triggers(self, now: datetime, limit: int = 100) -> list[TriggerRecord]:
        """Return triggers whose ``next_at`` has come, the longest due first. Read by an index.

        One whose signature does not fit is left out, which is logged once: it stops no other.
        """
        ...

    def next_due(self) -> datetime | None:
        """Return the earliest ``next_at``, or None. One look into an index."""
        ...

    def known(self, name: str, keys: Collection[str]) -> dict[str, ArrivalRecord]:
        """Return those arrivals of a trigger that are there, by key."""
        ...

    def newest_arrivals(self, names: Collection[str]) -> dict[str, ArrivalRecord]:
        """Return the newest arrival of each of these triggers that has one, by name, verified."""
        ...

    def list_arrivals(self, query: ArrivalQuery) -> list[ArrivalRecord]:
        """Return a page of arrivals. Signed rows are verified."""
        ...

    def events_after(
        self, number: int, names: Collection[str], limit: int = 100
    ) -> list[MessageRecord]:
        """Return events of these names whose number is larger, in order.

        Numbers are given in the order of the commits: none smaller appears later. What a trigger
        has not ``heard`` of its ``events`` stays for it: ``forget_events`` leaves that out.
        """
        ...

    def newest_event(self) -> int:
        """Return the number of the newest message, 0 if there is none: where a trigger begins.

        Whatever is sent after it was asked has a larger number.
        """
        ...

    def ends(self, limit: int = 100) -> list[EndRecord]:
        """Return ends of runs of which triggers have not been told.

        A run's terminal transaction writes one if a trigger that is there ``watches_runs``, paused
        or not. They stay when their runs are deleted.
        """
        ...
