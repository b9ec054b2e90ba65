"""Facts that go up to ``decide``. They are about what happened, never about what to do."""

from __future__ import annotations

import msgspec

from perdure.calls import Outcome


class Ended(msgspec.Struct, frozen=True):
    """An attempt ended."""

    outcome: Outcome


class CancelRequested(msgspec.Struct, frozen=True):
    """Somebody asked that the run end as CANCELLED."""

    run_id: str


class PauseRequested(msgspec.Struct, frozen=True):
    """Somebody asked that no new step of the run start, or took that back."""

    run_id: str
    paused: bool


class OwnershipLost(msgspec.Struct, frozen=True):
    """A newer owner has the run, or it has ended without us: nothing of it counts any more."""

    run_id: str
    why: str


Event = Ended | CancelRequested | PauseRequested | OwnershipLost
