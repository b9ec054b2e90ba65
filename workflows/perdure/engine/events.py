"""Facts that go up to ``decide``. They are about what happened, never about what to do."""

from __future__ import annotations

import msgspec

from perdure.calls import Outcome
from perdure_storage.records import Digest, MessageRecord, SaveRecord


class Ended(msgspec.Struct, frozen=True, gc=False):
    """An attempt ended."""

    outcome: Outcome


class Saved(msgspec.Struct, frozen=True):
    """An attempt has saved something, and it is durable; the newest so many of its saves stand."""

    save: SaveRecord
    keep_last: int


class CancelRequested(msgspec.Struct, frozen=True):
    """Somebody asked that the run end as CANCELLED."""

    run_id: str


class PauseRequested(msgspec.Struct, frozen=True):
    """Somebody asked that no new step of the run start, or took that back."""

    run_id: str
    paused: bool


class Heard(msgspec.Struct, frozen=True):
    """Messages that a run may have, as its coordinator found them: all of them, oldest first.

    Attributes:
        names: those of the messages that were looked for.
    """

    run_id: str
    messages: tuple[MessageRecord, ...]
    names: frozenset[str]


class Verified(msgspec.Struct, frozen=True):
    """Somebody has looked at the blob of a step's value.

    Attributes:
        damage: what is wrong with it, in words; empty: nothing, as far as can be told.
    """

    run_id: str
    step_id: str
    digest: Digest
    damage: str = ""


class OwnershipLost(msgspec.Struct, frozen=True):
    """A newer owner has the run, or it has ended without us: nothing of it counts any more."""

    run_id: str
    why: str


class RenewedLate(msgspec.Struct, frozen=True):
    """The lease under which runs are driven here was over before it was renewed."""

    silent_s: float


class Leaving(msgspec.Struct, frozen=True):
    """This coordinator is to end: its runs go to others once what runs of them has ended."""


Event = (
    Ended
    | Saved
    | CancelRequested
    | PauseRequested
    | Heard
    | Verified
    | OwnershipLost
    | RenewedLate
    | Leaving
)
