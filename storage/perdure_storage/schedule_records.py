"""Frozen rows of schedules: what is due, and what became of it.

A store does not know what a schedule means. Its definition and its state are JSON texts that come
from the caller and go back to it; only what a store has to ask about is kept apart.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure_storage.records import Digest, Refusal, RunId, RunRecord


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule: a definition, and how far it has come.

    Attributes:
        name: names it; its ticks and its runs refer to it by that.
        definition: JSON text; opaque.
        digest: of the definition, so that another one is seen without being read.
        module: which declares it; None if a person registered it.
        plan_digest: of the plan that its runs have; None: who claims a run builds its plan.
        blobs: which the definition names, kept from gc while the schedule is there.
        concurrency: the key under which schedules count each other's runs; None: it is alone.
        state: JSON text; opaque.
        next_at: when time alone brings the next decision; None: it brings none.
        wakes_below: a decision is also due while fewer runs than this are live that count for it;
            None: the end of a run brings none.
        waits_since: its place in the line of its concurrency key, while ``wakes_below`` is set.
        paused, ended: for lists; whether it is due is said by ``next_at`` and ``wakes_below``.
        version: grows by one with each change; 0 for one that was never stored.
        created_at, updated_at: given by the store.
    """

    name: str
    definition: str
    digest: str
    module: str | None = None
    plan_digest: Digest | None = None
    blobs: tuple[Digest, ...] = ()
    concurrency: str | None = None
    state: str
    next_at: datetime | None = None
    wakes_below: int | None = None
    waits_since: datetime | None = None
    paused: bool = False
    ended: bool = False
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


class TickRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a nominal time of a schedule, or of a row of them. Key: (schedule, at).

    Attributes:
        at: the nominal time, in UTC; the first of a row.
        last: the last of a row; None if it is one alone.
        count: how many there are.
        decision: what became of it, in the words of the caller.
        why: the reason for programs, in the words of the caller.
        reason: the reason for people.
        decided_at: when that was decided; when it fired, if it did.
        run_id: the run that it made.
        code: the code of that run, as far as it is known: an entry point, or a digest.
    """

    schedule: str
    at: datetime
    last: datetime | None = None
    count: int = 1
    decision: str
    why: str = ""
    reason: str = ""
    decided_at: datetime
    run_id: RunId | None = None
    code: str = ""


class KeyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A concurrency key as it was read; its version grows with each firing under it."""

    key: str
    version: int


class ScheduleChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changes with a schedule, together.

    Attributes:
        schedule: the row as it was read, its ``version`` included, with what is new in it.
        ticks: in the order in which they were decided; of two for one time the later one stands,
            but one that has made a run gives way only to one that has made another.
        runs: to be made, QUEUED: without a plan, or with one that is there.
        cancels: runs that are asked to end, if they are live.
        key: the concurrency key under which the runs were decided, if there is one.
    """

    schedule: ScheduleRecord
    ticks: tuple[TickRecord, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    cancels: tuple[RunId, ...] = ()
    key: KeyVersion | None = None


class FireReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch of changes.

    Attributes:
        fired: the rows after the change, by name.
        refused: why a change did not land, by name: ``"stale"``, ``"gone"``, ``"condemned"`` or
            ``"rejected"``.
        made: the runs that did not exist before, in the order of the changes.
    """

    fired: dict[str, ScheduleRecord] = {}
    refused: dict[str, Refusal] = {}
    made: tuple[RunId, ...] = ()


class InLine(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the line of a concurrency key: who has waited longest is first."""

    since: datetime
    schedule: str


class ScheduleRuns(msgspec.Struct, frozen=True, kw_only=True):
    """What overlap and failure policies ask about the runs of a schedule; none is by hand.

    Attributes:
        live: ids of those that are not over, the oldest first; with a concurrency key those of all
            schedules that have it.
        of_others: of ``live``, those of other schedules, each with the name of its own.
        failed_in_a_row: how many of its own FAILED since the last that SUCCEEDED, by when they
            ended.
        key: the concurrency key, as it was before ``live`` was read.
        first: who of the others stands first in the line of the key, if anybody waits.
    """

    live: tuple[RunId, ...] = ()
    of_others: dict[RunId, str] = {}
    failed_in_a_row: int = 0
    key: KeyVersion | None = None
    first: InLine | None = None


class ScheduleQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of schedules by name. ``after`` is the name of the last one of the page before."""

    module: str | None = None
    concurrency: str | None = None
    paused: bool | None = None
    ended: bool | None = None
    name_prefix: str = ""
    limit: int = 100
    after: str | None = None


class TickQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of ticks of a schedule, newest nominal time first.

    Attributes:
        since: not those of earlier nominal times.
        before: only those of earlier nominal times: the last one of the page before.
    """

    schedule: str
    since: datetime | None = None
    before: datetime | None = None
    limit: int = 100
