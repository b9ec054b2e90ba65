"""What makes times: a cron expression, an interval, a calendar, or given instants.

Each is a value. ``after``, ``before`` and ``count`` are the only questions to it, and its answers
depend on nothing but the value, the time zone and ``Dst``: no time of registration, no last run.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import msgspec

from perdure_scheduler import wall
from perdure_scheduler.calendars import Calendar
from perdure_scheduler.cron import Cron
from perdure_scheduler.durations import text_of
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.zones import NAMED, RECURRING, Dst, utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_SHORTEST = timedelta(seconds=1)
_FIRST = datetime(1900, 1, 1, tzinfo=UTC)
"""Nothing is looked for before it."""


class Interval(msgspec.Struct, frozen=True, kw_only=True, tag="interval"):
    """Times at equal distances of elapsed time, whatever the clocks do.

    Attributes:
        every: the distance.
        anchor: one of the times. Since it is part of the value, registering it again shifts
            nothing. The epoch, unless a schedule has a ``start``.
    """

    every: timedelta
    anchor: datetime = EPOCH

    def __post_init__(self) -> None:
        if self.every < _SHORTEST:
            raise ScheduleError(
                f"interval={text_of(max(self.every, timedelta(0)))!r}: write at least '1s'"
            )
        msgspec.structs.force_setattr(self, "anchor", utc(self.anchor, what="anchor"))

    def __str__(self) -> str:
        return f"every {text_of(self.every)}"

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the times later than ``instant``, in order."""
        number = (instant - self.anchor) // self.every + 1
        while True:
            try:
                each = self.anchor + number * self.every
            except OverflowError:  # past the year 9999
                return
            yield each
            number += 1

    def before(self, instant: datetime) -> datetime:
        """Return the last time earlier than ``instant``."""
        return self.anchor - ((self.anchor - instant) // self.every + 1) * self.every

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many times are later than ``after`` and not later than ``upto``."""
        return max(
            (upto - self.anchor) // self.every - (after - self.anchor) // self.every,
            0,
        )


class At(msgspec.Struct, frozen=True, kw_only=True, tag="at"):
    """Given instants.

    Attributes:
        instants: aware, in any order; kept sorted in UTC, each once.
    """

    instants: tuple[datetime, ...]

    def __post_init__(self) -> None:
        if not self.instants:
            raise ScheduleError("at=(): write at least one instant")
        in_utc = sorted({utc(each, what="at") for each in self.instants})
        msgspec.structs.force_setattr(self, "instants", tuple(in_utc))

    def __str__(self) -> str:
        first = f"{self.instants[0]:%Y-%m-%d %H:%M:%S} UTC"
        more = len(self.instants) - 1
        return f"at {first}" + (f" and {more} more" if more else "")


Times = Cron | Interval | Calendar | At


def default_dst(when: Times) -> Dst:
    """Return what wall times mean on the nights of change, unless a schedule says so itself.

    A named time of day comes once a day. A cron expression that recurs within the hours follows
    the clock instead: ``*/15 * * * *`` has no hole of an hour in autumn.
    """
    return RECURRING if isinstance(when, Cron) and when.recurring else NAMED


def after(when: Times, tz: ZoneInfo, dst: Dst, instant: datetime) -> Iterator[datetime]:
    """Yield the times of it later than ``instant``, in UTC, in order, each once."""
    if isinstance(when, Interval):
        return when.after(instant)
    if isinstance(when, At):
        return iter(when.instants[bisect_right(when.instants, instant) :])
    return wall.after(when, tz, dst, instant)


def before(when: Times, tz: ZoneInfo, dst: Dst, instant: datetime) -> datetime | None:
    """Return the last time of it earlier than ``instant``, in UTC, if there is one."""
    if isinstance(when, Interval):
        return when.before(instant)
    if isinstance(when, At):
        index = bisect_left(when.instants, instant)
        return when.instants[index - 1] if index else None
    # Looking back twice as far and more each time costs little more than the last look, and spares
    # a second generator that goes backwards over the nights of change.
    length = _HOUR
    while instant - length > _FIRST:
        since = wall.after(when, tz, dst, instant - length)
        if last := deque(takewhile(lambda each: each < instant, since), maxlen=1):
            return last[0]
        length *= 8
    return None


def count(when: Times, tz: ZoneInfo, dst: Dst, after_: datetime, upto: datetime) -> int:
    """Return how many times of it are later than ``after_`` and not later than ``upto``."""
    if isinstance(when, Interval):
        return when.count(after_, upto)
    if isinstance(when, At):
        return sum(after_ < each <= upto for each in when.instants)
    return wall.count(when, tz, dst, after_, upto)


def shortest_period(when: Times) -> timedelta | None:
    """Return the least distance of two neighbouring times on a plain day; ``None`` for one time."""
    if isinstance(when, Interval):
        return when.every
    if isinstance(when, At):
        moments = when.instants
    else:
        moments = tuple(datetime.combine(EPOCH, each, tzinfo=UTC) for each in when.times)
        moments += (moments[0] + _DAY,)
    return min((b - a for a, b in pairwise(moments)), default=None)
