"""Cron once more, told by walking through the minutes: slow, plain, and not a line shared with it.

An expression is drawn together with what it means, so that nothing here reads one.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

SIX_ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight, in the south
    "America/St_Johns",  # not by whole hours from UTC
    "Asia/Beirut",  # at midnight, in the north
)


@dataclass(frozen=True)
class Drawn:
    """A cron expression and what it means."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def recurring(self) -> bool:
        minute, hour, *_ = self.text.split()
        return minute[0] == "*" or hour[0] == "*"

    def fits(self, wall: datetime) -> bool:
        _, _, day, _, weekday = self.text.split()
        fits_day = wall.day in self.days
        fits_weekday = wall.isoweekday() % 7 in self.weekdays
        if day[0] == "*" or weekday[0] == "*":
            fits_date = fits_day and fits_weekday
        else:
            fits_date = fits_day or fits_weekday
        return (
            fits_date
            and wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.month in self.months
        )

    @property
    def comes(self) -> bool:
        """False for a 30th of February and its like."""
        _, _, day, _, weekday = self.text.split()
        longest = max(calendar.monthrange(2024, month)[1] for month in self.months)
        return min(self.days) <= longest or not (day[0] == "*" or weekday[0] == "*")


@st.composite
def _items(draw: st.DrawFn, low: int, high: int, names: dict[int, str]) -> tuple[str, set[int]]:
    def spelt(number: int) -> str:
        return names[number] if number in names and draw(st.booleans()) else str(number)

    kind = draw(st.sampled_from(["number", "number", "range", "step", "from", "star step"]))
    first = draw(st.integers(low, high))
    if kind == "number":
        return spelt(first), {first}
    step = draw(st.integers(1, 12))
    if kind == "from":
        return f"{spelt(first)}/{step}", set(range(first, high + 1, step))
    if kind == "star step":
        return f"*/{step}", set(range(low, high + 1, step))
    last = draw(st.integers(first, high))
    text = f"{spelt(first)}-{spelt(last) if last not in (0, 7) else last}"
    if kind == "range" or first == last:  # cronsim reads 5-5/10 as 5/10
        return text, set(range(first, last + 1))
    return f"{text}/{step}", set(range(first, last + 1, step))


@st.composite
def _fields(
    draw: st.DrawFn, low: int, high: int, names: dict[int, str]
) -> tuple[str, frozenset[int]]:
    if draw(st.booleans()):
        return "*", frozenset(range(low, high + 1))
    items = draw(st.lists(_items(low, high, names), min_size=1, max_size=3))
    return ",".join(text for text, _ in items), frozenset().union(*(found for _, found in items))


@st.composite
def expressions(draw: st.DrawFn) -> Drawn:
    """Draw an expression that comes at least once in some years."""
    (minute, minutes), (hour, hours) = draw(_fields(0, 59, {})), draw(_fields(0, 23, {}))
    (day, days), (month, months) = (
        draw(_fields(1, 31, {})),
        draw(_fields(1, 12, dict(enumerate(MONTHS, 1)))),
    )
    weekday, weekdays = draw(_fields(0, 7, dict(enumerate(WEEKDAYS))))
    return Drawn(
        text=f"{minute} {hour} {day} {month} {weekday}",
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(number % 7 for number in weekdays),
    )


def changes(key: str, first_year: int, years: int) -> list[datetime]:
    """Return the instants, in UTC, at which the clocks of a zone change, to the minute."""
    tz, found = ZoneInfo(key), []
    hour = datetime(first_year, 1, 1, tzinfo=UTC)
    while hour.year < first_year + years:
        following = hour + DAY
        if hour.astimezone(tz).utcoffset() != following.astimezone(tz).utcoffset():
            minute = hour
            while (minute + MINUTE).astimezone(tz).utcoffset() == hour.astimezone(tz).utcoffset():
                minute += MINUTE
            found.append(minute + MINUTE)
        hour = following
    return found


@lru_cache(maxsize=256)
def walk(key: str, around: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """Return each minute from two days before to two days after, with what the clock shows."""
    tz = ZoneInfo(key)
    minutes = (around + n * MINUTE for n in range(-2 * 1440, 2 * 1440))
    return tuple((each, each.astimezone(tz).replace(tzinfo=None, fold=0)) for each in minutes)


def ticks(
    drawn: Drawn, key: str, around: datetime, gap: str, fold: str
) -> tuple[list[datetime], datetime, datetime]:
    """Return the instants meant within a day of ``around``, and the bounds of that time."""
    shown: dict[datetime, list[datetime]] = {}
    for instant, wall in walk(key, around):
        shown.setdefault(wall, []).append(instant)
    found = set()
    wall, last = min(shown), max(shown)
    while wall <= last:
        if drawn.fits(wall):
            at = shown.get(wall, [])
            if at:
                found |= set({"first": at[:1], "last": at[-1:], "both": at}[fold])
            elif gap == "shift":
                found.add(min(i for i, w in walk(key, around) if w > wall))
        wall += MINUTE
    low, high = around - DAY, around + DAY
    return sorted(each for each in found if low < each <= high), low, high
