"""From days and times on the wall to instants, over the nights when clocks change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Protocol
from zoneinfo import ZoneInfo

from perdure_scheduler.zones import Dst, instants, plain_offset, wall_of

_DAY = timedelta(days=1)
_REACH = 2 * _DAY
"""How far instants of one wall day may lie among those of another: a zone that changed sides of the
date line skipped a whole day."""


class Daily(Protocol):
    """What comes at given times of day on given days."""

    @property
    def times(self) -> tuple[time, ...]:
        """The times of day, in order."""
        ...

    def days_of(self, year: int, month: int) -> tuple[date, ...]:
        """Return the days of a month, in order."""
        ...


def after(daily: Daily, tz: ZoneInfo, dst: Dst, instant: datetime) -> Iterator[datetime]:
    """Yield the instants later than ``instant``, in UTC, in order, each once.

    On a plain day wall times need no more than a subtraction. Those around a change of the clocks
    are collected until there is a plain day, or some days without any: they may come in another
    order than on the wall.
    """
    around_change: set[datetime] = set()
    flush_after = date.min
    for day in _days(daily, _first_day(tz, instant)):
        offset = plain_offset(day, tz)
        if around_change and (offset is not None or day > flush_after):
            yield from sorted(each for each in around_change if each > instant)
            around_change.clear()
        if offset is not None:
            yield from _plain(daily.times, day, offset, instant)
        else:
            around_change.update(_instants_of(daily, day, tz, dst))
            flush_after = day + 2 * _REACH


def count(daily: Daily, tz: ZoneInfo, dst: Dst, low: datetime, high: datetime) -> int:
    """Return how many instants are later than ``low`` and not later than ``high``.

    An outage of years is counted by whole days, as it is one row of a ledger.
    """
    total, around_change = 0, set[datetime]()
    last = wall_of(high, tz).date() + _REACH
    for day in takewhile(lambda each: each <= last, _days(daily, _first_day(tz, low))):
        offset = plain_offset(day, tz)
        if offset is None:
            around_change.update(_instants_of(daily, day, tz, dst))
        else:
            times = daily.times
            total += max(_passed(times, day, offset, high) - _passed(times, day, offset, low), 0)
    return total + sum(low < each <= high for each in around_change)


def _first_day(tz: ZoneInfo, instant: datetime) -> date:
    day = wall_of(instant, tz).date()
    return day if plain_offset(day, tz) is not None else day - _REACH


def _days(daily: Daily, first: date) -> Iterator[date]:
    for year in range(first.year, MAXYEAR):
        for month in range(first.month if year == first.year else 1, 13):
            for day in daily.days_of(year, month):
                if day >= first:
                    yield day


def _plain(
    times: tuple[time, ...], day: date, offset: timedelta, instant: datetime
) -> Iterator[datetime]:
    """Yield the instants of a plain day that are later than ``instant``."""
    for each in times[_passed(times, day, offset, instant) :]:
        yield datetime.combine(day, each, tzinfo=UTC) - offset


def _passed(times: tuple[time, ...], day: date, offset: timedelta, instant: datetime) -> int:
    """Return how many times of a plain day are not later than ``instant``."""
    since = instant - (datetime.combine(day, time(), tzinfo=UTC) - offset)
    if since < timedelta(0):
        return 0
    if since >= _DAY:
        return len(times)
    return bisect_right(times, (datetime.min + since).time())


def _instants_of(daily: Daily, day: date, tz: ZoneInfo, dst: Dst) -> Iterator[datetime]:
    for each in daily.times:
        yield from instants(datetime.combine(day, each), tz, dst)
