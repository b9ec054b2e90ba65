"""Days that people name: the second Tuesday, the last business day, the 15th or the day after.

A ``Calendar`` joins a rule for days with times of day and, if need be, with ``Holidays``: a value
that holds the dates itself, so that what it says is what is stored. Its text form has no holidays:

    second tuesday at 09:30 | last business day of mar, jun at 18:00 | each business day at 9:00
    15th day | last day | 2nd to last friday
"""

from __future__ import annotations

import calendar
import re
from datetime import date, time, timedelta
from enum import StrEnum
from functools import lru_cache

import msgspec

from perdure_scheduler.errors import ScheduleError

_DAY = timedelta(days=1)
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TEXT = re.compile(
    r"(?P<which>each|every|[a-z]+|\d+(?:st|nd|rd|th))(?P<to_last> to last)? "
    r"(?P<what>business day|[a-z]+)"
    r"(?: of (?P<months>[a-z]+(?:, ?[a-z]+)*))?(?: at (?P<at>[0-9:, ]+))?",
    re.ASCII,
)
_WHOLE_YEAR = tuple(range(1, 13))
_CYCLE = range(2001, 2029)
"""Years after which weekdays and dates meet again as before."""


class Weekday(StrEnum):
    """A day of the week, by the first three letters of its English name."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"

    @property
    def number(self) -> int:
        """As ``date.weekday()`` counts: Monday is 0."""
        return list(Weekday).index(self)


class OnHoliday(StrEnum):
    """What becomes of a day that is no business day."""

    KEEP = "keep"
    SKIP = "skip"
    BEFORE = "before"  # the business day before it
    AFTER = "after"  # the business day after it


class Holidays(msgspec.Struct, frozen=True, kw_only=True):
    """Days without business: given dates, and the weekend.

    Attributes:
        dates: in any order; kept sorted, each once.
        weekend: days of the week without business.
        name: what people call it, ``"TARGET2"``.
    """

    dates: tuple[date, ...] = ()
    weekend: tuple[Weekday, ...] = (Weekday.SAT, Weekday.SUN)
    name: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "dates", tuple(sorted(set(self.dates))))
        if len(set(self.weekend)) > 6:
            raise ScheduleError("Holidays(weekend=...): seven days leave no business day")

    def is_business_day(self, day: date) -> bool:
        """Say whether there is business on a day."""
        return day.weekday() not in _numbers(self.weekend) and day not in _set_of(self.dates)

    def business_days_of(self, year: int, month: int) -> tuple[date, ...]:
        """Return the business days of a month, in order."""
        return tuple(day for day in _month(year, month) if self.is_business_day(day))

    def moved(self, day: date, step: timedelta) -> date:
        """Return ``day``, or the next business day from it in steps of one day."""
        for _ in range(400):
            if self.is_business_day(day):
                return day
            day += step
        raise ScheduleError(
            f"Holidays({self.name or '...'}): no business day within 400 days of {day}"
        )


class NthWeekday(msgspec.Struct, frozen=True, kw_only=True, tag="nth weekday"):
    """The n-th such day of the week in the month; -1 is the last. A fifth is not in every month."""

    n: int
    weekday: Weekday

    def __post_init__(self) -> None:
        _check_n(self.n, 5, f"NthWeekday(n={self.n})")

    def __str__(self) -> str:
        return f"{_ordinal(self.n)} {_WEEKDAYS[self.weekday.number]}"

    def days_of(self, year: int, month: int, holidays: Holidays) -> tuple[date, ...]:
        """Return its days of a month."""
        weekday = self.weekday.number
        return _pick([day for day in _month(year, month) if day.weekday() == weekday], self.n)


class DayOfMonth(msgspec.Struct, frozen=True, kw_only=True, tag="day of month"):
    """The n-th day of the month; -1 is the last. A 31st is not in every month."""

    n: int

    def __post_init__(self) -> None:
        _check_n(self.n, 31, f"DayOfMonth(n={self.n})")

    def __str__(self) -> str:
        return f"{_ordinal(self.n)} day"

    def days_of(self, year: int, month: int, holidays: Holidays) -> tuple[date, ...]:
        """Return its days of a month."""
        return _pick(_month(year, month), self.n)


class BusinessDay(msgspec.Struct, frozen=True, kw_only=True, tag="business day"):
    """The n-th business day of the month; -1 is the last; ``None`` is each of them."""

    n: int | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            _check_n(self.n, 23, f"BusinessDay(n={self.n})")

    def __str__(self) -> str:
        return "each business day" if self.n is None else f"{_ordinal(self.n)} business day"

    def days_of(self, year: int, month: int, holidays: Holidays) -> tuple[date, ...]:
        """Return its days of a month."""
        days = holidays.business_days_of(year, month)
        return days if self.n is None else _pick(days, self.n)


class Calendar(msgspec.Struct, frozen=True, kw_only=True, tag="calendar"):
    """Times of day on days that a rule names.

    Attributes:
        day: which days of a month.
        at: times of day, naive.
        months: the months that count, from 1.
        holidays: what is no business day.
        on_holiday: what becomes of a day that is none; the rule is applied first.
    """

    day: NthWeekday | DayOfMonth | BusinessDay
    at: tuple[time, ...] = (time(0),)
    months: tuple[int, ...] = _WHOLE_YEAR
    holidays: Holidays = Holidays()
    on_holiday: OnHoliday = OnHoliday.KEEP

    def __post_init__(self) -> None:
        if not self.at or any(each.tzinfo is not None for each in self.at):
            raise ScheduleError(
                "Calendar(at=...): write times of day without a time zone, such as time(9, 30); "
                "the zone is the schedule's tz="
            )
        msgspec.structs.force_setattr(self, "at", tuple(sorted(set(self.at))))
        msgspec.structs.force_setattr(self, "months", tuple(sorted(set(self.months))))
        if not self.months or not set(self.months) <= set(_WHOLE_YEAR):
            raise ScheduleError(f"Calendar(months={self.months}): write numbers from 1 to 12")
        if isinstance(self.day, BusinessDay) and self.on_holiday is not OnHoliday.KEEP:
            raise ScheduleError(
                f"Calendar(on_holiday={self.on_holiday.value!r}): the rule gives business days "
                "only; leave on_holiday out"
            )
        if not any(self._named(year, month) for year in _CYCLE for month in self.months):
            raise ScheduleError(
                f"no such day: there is no {self.day} in {_short(self.months)}; count from the "
                "end instead: -1 is the last"
            )

    def __str__(self) -> str:
        months = "" if self.months == _WHOLE_YEAR else f" of {_short(self.months)}"
        return f"{self.day}{months} at {', '.join(_shown(each) for each in self.at)}"

    @property
    def times(self) -> tuple[time, ...]:
        """The times of day, in order."""
        return self.at

    def days_of(self, year: int, month: int) -> tuple[date, ...]:
        """Return the days of a month, in order, after days without business made way."""
        if self.on_holiday in (OnHoliday.BEFORE, OnHoliday.AFTER):
            return self._moved_into(year, month)
        days = self._named(year, month)
        if self.on_holiday is OnHoliday.SKIP:
            return tuple(day for day in days if self.holidays.is_business_day(day))
        return days

    def _named(self, year: int, month: int) -> tuple[date, ...]:
        return self.day.days_of(year, month, self.holidays) if month in self.months else ()

    def _moved_into(self, year: int, month: int) -> tuple[date, ...]:
        """Return what lies in this month of what the months around it name, once moved."""
        step = -_DAY if self.on_holiday is OnHoliday.BEFORE else _DAY
        moved = {
            self.holidays.moved(day, step)
            for near in (-1, 0, 1)
            for day in self._named(*_month_beside(year, month, near))
        }
        return tuple(sorted(day for day in moved if (day.year, day.month) == (year, month)))


def calendar_of(text: object) -> Calendar:
    """Return the calendar of a text such as ``"last business day at 18:00"``.

    Raises:
        ScheduleError: it is none; says what one looks like.
    """
    match = _TEXT.fullmatch(" ".join(text.lower().split())) if isinstance(text, str) else None
    day = _rule(match) if match else None
    if match is None or day is None:
        raise ScheduleError(
            f"calendar={text!r}: write which day and when, such as 'second tuesday at 09:30', "
            "'last business day of mar, jun at 18:00', 'each business day at 9:00', '15th day'"
        )
    try:
        at = tuple(_time(each) for each in _listed(match["at"])) or (time(0),)
        months = tuple(_named(each, _MONTHS) + 1 for each in _listed(match["months"]))
    except ValueError:
        raise ScheduleError(
            f"calendar={text!r}: write months such as 'of mar, jun' and times such as 'at 18:00'"
        ) from None
    return Calendar(day=day, at=at, months=months or _WHOLE_YEAR)


def _rule(match: re.Match[str]) -> NthWeekday | DayOfMonth | BusinessDay | None:
    which, what = match["which"], match["what"]
    if which in ("each", "every"):
        return BusinessDay() if what == "business day" and not match["to_last"] else None
    numbers = {word: number for number, word in _ORDINALS.items()}
    n = int(which[:-2]) if which[0].isdigit() else numbers.get(which)
    if n is None or (n < 0 and match["to_last"]):
        return None
    n = -n if match["to_last"] else n
    if what == "business day":
        return BusinessDay(n=n)
    if what == "day":
        return DayOfMonth(n=n)
    try:
        return NthWeekday(n=n, weekday=list(Weekday)[_named(what, _WEEKDAYS)])
    except ValueError:
        return None


def _named(text: str, names: tuple[str, ...]) -> int:
    """Return the position of a name that is written in full or by its first three letters."""
    return [text in (name, name[:3]) for name in names].index(True)


def _listed(text: str | None) -> list[str]:
    return [] if text is None else [each.strip() for each in text.split(",")]


def _time(text: str) -> time:
    return time.fromisoformat(text.zfill(5))


def _shown(at: time) -> str:
    return at.isoformat("seconds" if at.second else "minutes")


@lru_cache(maxsize=256)
def _set_of(dates: tuple[date, ...]) -> frozenset[date]:
    return frozenset(dates)


def _numbers(weekdays: tuple[Weekday, ...]) -> set[int]:
    return {each.number for each in weekdays}


def _month(year: int, month: int) -> list[date]:
    return [date(year, month, day) for day in range(1, calendar.monthrange(year, month)[1] + 1)]


def _month_beside(year: int, month: int, distance: int) -> tuple[int, int]:
    years, zero_based = divmod(month - 1 + distance, 12)
    return year + years, zero_based + 1


def _pick(days: list[date] | tuple[date, ...], n: int) -> tuple[date, ...]:
    index = n - 1 if n > 0 else n
    return (days[index],) if -len(days) <= index < len(days) else ()


def _ordinal(n: int) -> str:
    if n in _ORDINALS:
        return _ORDINALS[n]
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(abs(n) % 10 if abs(n) % 100 not in (11, 12, 13) else 0)
    return f"{abs(n)}{suffix or 'th'}" + ("" if n > 0 else " to last")


def _check_n(n: int, most: int, what: str) -> None:
    if n == 0 or abs(n) > most:
        raise ScheduleError(f"{what}: write 1 to {most}, or -1 for the last")


def _short(months: tuple[int, ...]) -> str:
    return ", ".join(_MONTHS[month - 1][:3] for month in months)
