"""Times of a tick as inputs of its run."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

import msgspec

from perdure_scheduler.schedule import NominalTime


class Moment(StrEnum):
    """A time that is known only when a tick fires."""

    FIRE_TIME = "fire_time"
    INTERVAL_START = "interval_start"
    INTERVAL_END = "interval_end"


class Form(StrEnum):
    """How a moment is given to a parameter."""

    DATETIME = "datetime"
    DATE = "date"
    TEXT = "text"


class Placeholder(msgspec.Struct, frozen=True, kw_only=True):
    """An input in whose place a moment comes, as the clock of the schedule's zone shows it."""

    moment: Moment
    form: Form

    def value(self, nominal: NominalTime) -> datetime | date | str | None:
        """Return the input of the tick of a nominal time."""
        zone = nominal.local.tzinfo
        if self.moment is Moment.INTERVAL_START:
            start = nominal.interval_start
            local = None if start is None else start.astimezone(zone)
        else:
            local = nominal.local
        if local is None or self.form is Form.DATETIME:
            return local
        return local.date() if self.form is Form.DATE else local.isoformat()
