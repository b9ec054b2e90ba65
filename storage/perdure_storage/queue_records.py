"""Rows about queues, and how a queue stands. Nothing here knows a database."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from perdure_storage.records import RunId


class QueueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: how many of its runs go on at a time, and how many begin in a window.

    Attributes:
        limit: how many runs have a slot at most; None: any number.
        limit_per_key: the same of those with one ``limit_key``; runs without a key are not
            counted by it.
        rate: how many runs begin within any ``window`` at most; None: any number.
        window: how long such a window is, ``LONGEST`` at most.
        declared: the limits that a module declared last, as text; "" if none ever did.
        version: grows by one with each change; 0 of one that is not stored.
    """

    name: str
    limit: int | None = None
    limit_per_key: int | None = None
    rate: int | None = None
    window: timedelta | None = None
    declared: str = ""
    version: int = 0
    created_at: datetime
    updated_at: datetime


class KeyStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs of one key of a queue have a slot, and how many wait for one."""

    key: str
    running: int = 0
    waiting: int = 0


class QueueStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue stands at one moment.

    Attributes:
        running: runs that have a slot: somebody drives them, or did and has died.
        waiting: QUEUED runs that are due, woken ones not among them.
        delayed: QUEUED runs whose time has not come.
        oldest: when the run was made that has waited longest.
        starts: how many runs have begun in the window that ends now; 0 without a rate.
        opens_at: when the next run may begin, if the rate alone keeps it from that.
        keys: those that have runs with a slot, or waiting ones, in order.
        holders: some of those with a slot, who has had it longest first.
    """

    name: str
    running: int = 0
    waiting: int = 0
    delayed: int = 0
    oldest: datetime | None = None
    starts: int = 0
    opens_at: datetime | None = None
    keys: tuple[KeyStanding, ...] = ()
    holders: tuple[RunId, ...] = ()
