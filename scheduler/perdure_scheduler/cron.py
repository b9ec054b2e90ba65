"""Cron expressions as POSIX and Debian's cron mean them: which days, and which times of day.

    minute 0-59 | hour 0-23 | day of month 1-31, L | month 1-12 or jan-dec | weekday 0-7 or sun-sat

A field is ``*``, or a list of numbers, names, ranges ``a-b`` and steps ``*/n``, ``a-b/n``, ``a/n``
(from ``a`` to the end). Weekday 0 and 7 are Sunday. If both the day of month and the weekday are
given, a day that fits *either* is meant; if one of them begins with ``*``, a day that fits both.
``L`` is the last day of the month and ``LW`` its last weekday from Monday to Friday; ``fri#2`` is
the second Friday, ``5L`` or ``friL`` the last. ``@hourly @daily @midnight @weekly @monthly @yearly
@annually`` stand for what they say.

Source: POSIX.1-2017, ``crontab``; Debian's crontab(5) for names, steps and ``*`` in day fields.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, time
from functools import lru_cache

import msgspec

from perdure_scheduler.errors import ScheduleError

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = {name.lower(): i for i, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
)}  # fmt: skip
_WEEKDAYS = {name: i for i, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(\*|[0-9a-z]+(?:-[0-9a-z]+)?)(?:/([0-9]+))?", re.ASCII)
_NTH = re.compile(r"([0-9]|[a-z]{3})(?:#([0-9]+)|l)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five columns: what it is called, its numbers and its names."""

    name: str
    low: int
    high: int
    names: dict[str, int]

    def number(self, text: str) -> int:
        found = self.names.get(text)
        if found is None and text.isascii() and text.isdigit():
            found = int(text)
        if found is None or not self.low <= found <= self.high:
            named = f" or {'-'.join((*self.names,)[:: len(self.names) - 1])}" if self.names else ""
            raise ScheduleError(
                f"{self.name} {text!r}: write a number from {self.low} to {self.high}{named}"
            )
        return found

    def numbers(self, item: str) -> set[int]:
        """Return the numbers of one item of a list: ``*``, ``a``, ``a-b``, ``*/n``."""
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ScheduleError(
                f"{self.name} {item!r}: write *, numbers, ranges such as "
                f"{self.low}-{self.high}, or steps such as */2"
            )
        span, step = match[1], int(match[2]) if match[2] else 1
        if step == 0:
            raise ScheduleError(f"{self.name} {item!r}: a step is at least 1")
        if span == "*":
            low, high = self.low, self.high
        elif "-" in span:
            low, high = self._range(span)
        else:
            low = self.number(span)
            high = self.high if match[2] else low
        return set(range(low, high + 1, step))

    def _range(self, span: str) -> tuple[int, int]:
        first, last = span.split("-")
        low, high = self.number(first), self.number(last)
        if high == 0 < low and self is _WEEKDAY:  # fri-sun
            high = 7
        if high < low:
            raise ScheduleError(
                f"{self.name} {span!r} ends before it begins: write {first}-{self.high},"
                f"{self.low}-{last}"
            )
        return low, high


_MINUTE = _Field("minute", 0, 59, {})
_HOUR = _Field("hour", 0, 23, {})
_DAY = _Field("day of month", 1, 31, {})
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("weekday", 0, 7, _WEEKDAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A cron expression, read.

    Attributes:
        times: the times of day, in order.
        days, months: days of the month, months.
        last_day, last_workday: ``L`` and ``LW`` of the day of month.
        weekdays: 0 (Sunday) to 6.
        nth: pairs of a weekday and which one of the month it is; 0 is the last.
        either: a day that fits the day of month or the weekday is meant, not only one that fits
            both.
        recurring: its minutes or hours begin with ``*``: it goes with the clock through the hours.
    """

    times: tuple[time, ...]
    days: frozenset[int]
    months: frozenset[int]
    last_day: bool
    last_workday: bool
    weekdays: frozenset[int]
    nth: frozenset[tuple[int, int]]
    either: bool
    recurring: bool

    def days_of(self, year: int, month: int) -> tuple[date, ...]:
        """Return the days of a month that are meant, in order."""
        if month not in self.months:
            return ()
        monday_based, length = calendar.monthrange(year, month)
        first = (monday_based + 1) % 7  # the weekday of the 1st, Sunday being 0
        return tuple(
            date(year, month, day) for day in range(1, length + 1) if self._fits(day, first, length)
        )

    def _fits(self, day: int, first: int, length: int) -> bool:
        by_date = self._fits_date(day, first, length)
        if by_date is self.either:  # one answer is enough
            return by_date
        return self._fits_weekday(day, first, length)

    def _fits_date(self, day: int, first: int, length: int) -> bool:
        return (
            day in self.days
            or (self.last_day and day == length)
            or (self.last_workday and day == _last_workday(first, length))
        )

    def _fits_weekday(self, day: int, first: int, length: int) -> bool:
        weekday = (first + day - 1) % 7
        return (
            weekday in self.weekdays
            or (weekday, (day + 6) // 7) in self.nth
            or (day + 7 > length and (weekday, 0) in self.nth)
        )


class Cron(msgspec.Struct, frozen=True, kw_only=True, tag="cron"):
    """Times by a cron expression: ``Cron(expression="0 2 * * mon-fri")``."""

    expression: str

    def __post_init__(self) -> None:
        parsed(self.expression)

    def __str__(self) -> str:
        return f"cron {self.expression!r}"

    @property
    def times(self) -> tuple[time, ...]:
        """The times of day, in order."""
        return parsed(self.expression).times

    @property
    def recurring(self) -> bool:
        """True if it goes with the clock through the hours: its minutes or hours begin with *."""
        return parsed(self.expression).recurring

    def days_of(self, year: int, month: int) -> tuple[date, ...]:
        """Return the days of a month that are meant, in order."""
        return _days_of(self.expression, year, month)


@lru_cache(maxsize=16384)
def _days_of(expression: str, year: int, month: int) -> tuple[date, ...]:
    """Remember the days of a month: looking back and ahead asks for the same few."""
    return parsed(expression).days_of(year, month)


@lru_cache(maxsize=4096)
def parsed(expression: str) -> Fields:
    """Read a cron expression.

    Raises:
        ScheduleError: it is none, or no day will ever fit it; names the field and what to write.
    """
    try:
        fields = _read(_columns(expression))
    except ScheduleError as error:
        raise ScheduleError(f"cron {expression!r}: {error}") from None
    return fields


def _columns(expression: str) -> list[str]:
    if not isinstance(expression, str):
        raise ScheduleError("write text such as '0 2 * * *'")
    text = expression.strip().lower()
    if text == "@reboot":
        raise ScheduleError("a machine's start is no time: write a time of day, such as @daily")
    if text.startswith("@") and text not in _MACROS:
        raise ScheduleError(f"write one of {', '.join(_MACROS)}, or five fields")
    columns = _MACROS.get(text, text).split()
    if len(columns) in (6, 7):
        raise ScheduleError(
            f"it has {len(columns)} fields: write five (minute, hour, day of month, month, "
            "weekday), without seconds and years; for less than a minute write interval='10s'"
        )
    if len(columns) != 5:
        raise ScheduleError(
            f"it has {len(columns)} fields: write five (minute, hour, day of month, month, "
            "weekday), as in '0 2 * * *'"
        )
    if "?" in columns:
        raise ScheduleError("write * where it says ?")
    return columns


def _read(columns: list[str]) -> Fields:
    minute, hour, day, month, weekday = columns
    days, letters = _days(day)
    weekdays, nth = _weekdays(weekday)
    fields = Fields(
        times=tuple(
            time(h, m)
            for h in sorted(_numbers(_HOUR, hour))
            for m in sorted(_numbers(_MINUTE, minute))
        ),
        days=frozenset(days),
        months=frozenset(_numbers(_MONTH, month)),
        last_day="l" in letters,
        last_workday="lw" in letters,
        weekdays=frozenset(weekdays),
        nth=frozenset(nth),
        either=not (day.startswith("*") or weekday.startswith("*")),
        recurring=minute.startswith("*") or hour.startswith("*"),
    )
    _check_that_it_comes(fields)
    return fields


def _numbers(field: _Field, column: str) -> set[int]:
    return set().union(*(field.numbers(item) for item in column.split(",")))


def _days(column: str) -> tuple[set[int], set[str]]:
    items = column.split(",")
    letters = {item for item in items if item in ("l", "lw")}
    for item in items:
        if ("w" in item and item != "lw") or item.startswith("l-"):
            raise ScheduleError(
                f"day of month {item!r} is not of cron: write calendar= for what depends on "
                "business days, or L or LW for the end of the month"
            )
    days = set().union(*(_DAY.numbers(item) for item in items if item not in letters))
    return days, letters


def _weekdays(column: str) -> tuple[set[int], set[tuple[int, int]]]:
    weekdays: set[int] = set()
    nth: set[tuple[int, int]] = set()
    for item in column.split(","):
        if match := _NTH.fullmatch(item):
            nth.add((_WEEKDAY.number(match[1]) % 7, _which(item, match[2])))
        elif item == "l":
            raise ScheduleError("weekday 'L' says no day: write 5L for the last Friday, or 6")
        else:
            weekdays |= {number % 7 for number in _WEEKDAY.numbers(item)}
    return weekdays, nth


def _which(item: str, text: str | None) -> int:
    which = int(text) if text is not None else 0
    if text is not None and not 1 <= which <= 5:
        raise ScheduleError(f"weekday {item!r}: a month has a first to a fifth: write #1 to #5")
    return which


def _check_that_it_comes(fields: Fields) -> None:
    """Refuse what never comes; the rarest day that does is a fifth Monday in February."""
    if fields.either or fields.last_day or fields.last_workday:
        return
    if not any(
        _may_fit_weekday(fields, day, _LONGEST[month - 1])
        for month in fields.months
        for day in fields.days
        if day <= _LONGEST[month - 1]
    ):
        raise ScheduleError(
            "no such day: none of these months has a day that fits; write L for the last day of "
            "the month"
        )


def _may_fit_weekday(fields: Fields, day: int, length: int) -> bool:
    """Say whether a day of the month may be one of the weekdays: in some year it is any weekday."""
    return bool(fields.weekdays) or any(
        day + 7 > length - (length == 29) if which == 0 else (day + 6) // 7 == which
        for _, which in fields.nth
    )


def _last_workday(first: int, length: int) -> int:
    """Return the last day from Monday to Friday of a month, ``first`` being the 1st's weekday."""
    last = (first + length - 1) % 7
    return length - {0: 2, 6: 1}.get(last, 0)
