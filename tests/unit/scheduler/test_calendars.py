from __future__ import annotations

from datetime import date, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler.calendars import (
    BusinessDay,
    Calendar,
    DayOfMonth,
    Holidays,
    NthWeekday,
    OnHoliday,
    Weekday,
    calendar_of,
)
from perdure_scheduler.errors import ScheduleError

EASTER = Holidays(dates=(date(2026, 4, 6), date(2026, 4, 3)), name="Easter")
DAY = timedelta(days=1)


def days(calendar: Calendar, year: int, month: int) -> list[int]:
    return [day.day for day in calendar.days_of(year, month)]


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        (Calendar(day=NthWeekday(n=2, weekday=Weekday.TUE)), [14]),
        (Calendar(day=NthWeekday(n=-1, weekday=Weekday.FRI)), [24]),
        (Calendar(day=NthWeekday(n=5, weekday=Weekday.THU)), [30]),
        (Calendar(day=NthWeekday(n=5, weekday=Weekday.FRI)), []),
        (Calendar(day=DayOfMonth(n=15)), [15]),
        (Calendar(day=DayOfMonth(n=-1)), [30]),
        (Calendar(day=DayOfMonth(n=31)), []),
        (Calendar(day=BusinessDay(n=-1)), [30]),
        (Calendar(day=BusinessDay(n=3)), [3]),
        (Calendar(day=BusinessDay(n=3), holidays=EASTER), [7]),
        (Calendar(day=BusinessDay(n=1), months=(1, 7)), []),
        (Calendar(day=DayOfMonth(n=4), on_holiday=OnHoliday.KEEP, holidays=EASTER), [4]),
        (Calendar(day=DayOfMonth(n=4), on_holiday=OnHoliday.SKIP, holidays=EASTER), []),
        (Calendar(day=DayOfMonth(n=4), on_holiday=OnHoliday.BEFORE, holidays=EASTER), [2]),
        (Calendar(day=DayOfMonth(n=4), on_holiday=OnHoliday.AFTER, holidays=EASTER), [7]),
    ],
)
def test_days_of_april_2026(calendar: Calendar, expected: list[int]) -> None:
    assert days(calendar, 2026, 4) == expected


def test_a_day_may_make_way_into_the_next_month_and_the_one_before() -> None:
    after = Calendar(day=DayOfMonth(n=-1), on_holiday=OnHoliday.AFTER)
    before = Calendar(day=DayOfMonth(n=1), on_holiday=OnHoliday.BEFORE)

    assert days(after, 2026, 2) == [2]  # 31 January was a Saturday, 28 February is another
    assert days(after, 2026, 3) == [2, 31]
    assert days(before, 2026, 1) == [1, 30]
    assert days(before, 2025, 12) == [1]


def test_a_month_that_does_not_count_gives_nothing_to_its_neighbours() -> None:
    calendar = Calendar(day=DayOfMonth(n=-1), on_holiday=OnHoliday.AFTER, months=(2,))

    assert days(calendar, 2026, 2) == []
    assert days(calendar, 2026, 3) == [2]


def test_each_business_day_is_each_but_weekends_and_holidays() -> None:
    calendar = Calendar(day=BusinessDay(), holidays=EASTER)

    assert days(calendar, 2026, 4)[:8] == [1, 2, 7, 8, 9, 10, 13, 14]


def test_a_weekend_may_be_on_other_days() -> None:
    holidays = Holidays(weekend=(Weekday.FRI, Weekday.SAT))

    assert days(Calendar(day=BusinessDay(n=-1), holidays=holidays), 2026, 7) == [30]


@given(
    st.integers(2000, 2050),
    st.integers(1, 12),
    st.integers(1, 31),
    st.sampled_from([OnHoliday.BEFORE, OnHoliday.AFTER]),
    st.lists(st.dates(date(2000, 1, 1), date(2050, 12, 31)), max_size=50),
)
def test_each_named_day_is_found_once_where_it_moved_to(
    year: int, month: int, n: int, on_holiday: OnHoliday, dates: list[date]
) -> None:
    holidays = Holidays(dates=tuple(dates))
    calendar = Calendar(day=DayOfMonth(n=n), on_holiday=on_holiday, holidays=holidays)

    expected = set()
    day = date(year, month, 1) - 40 * DAY
    while day < date(year, month, 1) + 75 * DAY:
        if day.day == n:
            moved = day
            while moved.weekday() >= 5 or moved in dates:
                moved += DAY if on_holiday is OnHoliday.AFTER else -DAY
            expected.add(moved)
        day += DAY

    assert list(calendar.days_of(year, month)) == sorted(
        each for each in expected if (each.year, each.month) == (year, month)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NthWeekday(n=0, weekday=Weekday.MON), "write 1 to 5"),
        (lambda: NthWeekday(n=6, weekday=Weekday.MON), "write 1 to 5"),
        (lambda: DayOfMonth(n=32), "write 1 to 31"),
        (lambda: BusinessDay(n=24), "write 1 to 23"),
        (lambda: Calendar(day=DayOfMonth(n=30), months=(2,)), "no such day.*-1 is the last"),
        (lambda: Calendar(day=BusinessDay(n=22), months=(2,)), "no such day"),
        (lambda: Calendar(day=BusinessDay(n=1), months=(13,)), "1 to 12"),
        (lambda: Calendar(day=BusinessDay(n=1), months=()), "1 to 12"),
        (lambda: Calendar(day=BusinessDay(n=1), at=()), "times of day"),
        (lambda: Calendar(day=BusinessDay(n=1), on_holiday=OnHoliday.SKIP), "leave on_holiday out"),
        (lambda: Holidays(weekend=tuple(Weekday)), "no business day"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, message: str) -> None:
    assert callable(make)

    with pytest.raises(ScheduleError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "calendar"),
    [
        ("second tuesday at 00:00", Calendar(day=NthWeekday(n=2, weekday=Weekday.TUE))),
        ("last business day at 18:00", Calendar(day=BusinessDay(n=-1), at=(time(18),))),
        ("last day of mar, jun at 09:30, 18:00:05", Calendar(
            day=DayOfMonth(n=-1), at=(time(18, 0, 5), time(9, 30)), months=(6, 3)
        )),
        ("each business day at 00:00", Calendar(day=BusinessDay())),
        ("22nd day at 00:00", Calendar(day=DayOfMonth(n=22))),
        ("3rd to last day at 00:00", Calendar(day=DayOfMonth(n=-3))),
        ("2nd to last sunday at 00:00", Calendar(day=NthWeekday(n=-2, weekday=Weekday.SUN))),
    ],
)  # fmt: skip
def test_a_calendar_is_read_from_the_text_that_it_writes(text: str, calendar: Calendar) -> None:
    assert calendar_of(text) == calendar
    assert str(calendar) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Last  Friday", "last friday at 00:00"),
        ("5th fri at 9:00", "fifth friday at 09:00"),
        ("every business day of january at 7:05", "each business day of jan at 07:05"),
        ("1st day", "first day at 00:00"),
    ],
)
def test_a_calendar_is_read_as_people_write_it(text: str, same: str) -> None:
    assert str(calendar_of(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "friday",
        "each friday",
        "zeroth day",
        "0th day",
        "first noday",
        "last to last day",
        "last day of smarch",
        "last day at 25:00",
        "last day at noon",
        "last day at 9",
        "each to last business day",
    ],
)
def test_what_is_no_calendar_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ScheduleError, match="write"):
        calendar_of(text)
