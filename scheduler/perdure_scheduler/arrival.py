"""What somebody brings: something that happened, before anything is decided about it."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure_storage.records import StoredValue


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, as it is brought to a trigger.

    Attributes:
        key: names it among the arrivals of its trigger, for ever: what has the same key is the
            same, and counts once. A path, a delivery's id, a row's primary key.
        facts: what is known of it, JSON values alone: filters and input maps read these.
        payload: a value that only travels whole.
        existed: it was there before anybody listened: it is known from now on, and makes no run.
    """

    key: str
    facts: dict[str, Any] = {}
    payload: StoredValue | None = None
    existed: bool = False
