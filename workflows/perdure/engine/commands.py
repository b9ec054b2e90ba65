"""What ``decide`` wants done, as data. The shell does it in the order of the fields of ``Turn``."""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure.calls import CallId, Instance, StepCall
from perdure.plan import Function
from perdure_storage.records import Cause, Digest, RunCommit, RunRecord, StoredValue


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """Start an attempt on the run's executor."""

    executor: str
    call: StepCall


class Retire(msgspec.Struct, frozen=True):
    """End processes of actors that are idle: what they hold goes to others."""

    executor: str
    instances: tuple[Instance, ...]


class Extend(msgspec.Struct, frozen=True):
    """Make functions and constants of a graph that a step gave known to the run's executor."""

    executor: str
    run_id: str
    functions: dict[str, Function]
    constants: dict[int, StoredValue]


class Kill(msgspec.Struct, frozen=True):
    """End attempts of a run; their outcomes come as events."""

    executor: str
    calls: tuple[CallId, ...]
    cause: Cause


class HandOver(msgspec.Struct, frozen=True):
    """Tell attempts of a run that they may end early: it is paused, or given to somebody else."""

    executor: str
    calls: tuple[CallId, ...]


class Asleep(msgspec.Struct, frozen=True):
    """A run in which everything waits.

    Attributes:
        record: as it was claimed.
        wake_at: when it has something to do by itself; None: never.
        heard: number of the newest message that was looked at.
    """

    record: RunRecord
    wake_at: datetime | None
    heard: int


class Verify(msgspec.Struct, frozen=True):
    """Look at the blob of a step's value: the run is to end with it, and nobody has read it."""

    run_id: str
    step_id: str
    value: StoredValue


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's decisions.

    Attributes:
        quarantine: damaged blobs to move aside before anything is rebuilt.
        commits: must be durable before anything below happens (``durability="group"`` lets the
            dispatches go first).
        extend: what executors have to know before the attempts start.
        retire: processes to end before the attempts start that are to have what they hold.
        dispatch: attempts to start.
        kill: attempts to end.
        hand_over: attempts that may end early.
        forget: unsynced values, by run and digest, that nobody will read again.
        verify: blobs to look at; what is found comes as events.
        ended: runs that are over with these commits.
        parked: runs to give back: paused ones, in which nothing runs any more.
        handed_back: runs to give back as they need what is not here, and another host may have
            it; or as this coordinator is to end.
        asleep: runs to give back until a time or a message: everything in them waits.
        dropped: runs that are no longer ours; their attempts are killed and discarded.
    """

    quarantine: tuple[Digest, ...] = ()
    commits: tuple[RunCommit, ...] = ()
    extend: tuple[Extend, ...] = ()
    retire: tuple[Retire, ...] = ()
    dispatch: tuple[Dispatch, ...] = ()
    kill: tuple[Kill, ...] = ()
    hand_over: tuple[HandOver, ...] = ()
    forget: tuple[tuple[str, Digest], ...] = ()
    verify: tuple[Verify, ...] = ()
    ended: tuple[str, ...] = ()
    parked: tuple[str, ...] = ()
    handed_back: tuple[str, ...] = ()
    asleep: tuple[Asleep, ...] = ()
    dropped: tuple[str, ...] = ()
