"""What schedules and triggers share: what registering comes to, and being paused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

TRIES = 20
"""How often a verb begins again because others were first; they are dispatchers, and few."""
NOT_DECLARED = "its module does not declare it any more"


class Registered(StrEnum):
    """What registering a schedule or a trigger came to."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    RESUMED = "resumed"  # it had been paused because its module had stopped declaring it


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Since when, and why, something is paused."""

    since: datetime
    reason: str
