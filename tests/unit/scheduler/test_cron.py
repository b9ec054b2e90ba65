from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.brute_force import SIX_ZONES, Drawn, changes, expressions, ticks

from perdure_scheduler import times
from perdure_scheduler.cron import Cron
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.zones import Dst, Fold, Gap

NIGHTS = [(key, at) for key in SIX_ZONES for at in changes(key, 2026, 1)]
NIGHTS += [("America/St_Johns", at) for at in changes("America/St_Johns", 2010, 1)]  # at 00:01
# cronsim errs where a clock changes by half an hour, and says 01:00 where midnight does not exist.
NIGHTS_OF_CRONSIM = [
    (key, at)
    for key, at in NIGHTS
    if key in ("Europe/Berlin", "America/New_York", "America/St_Johns") and at.year == 2026
]


def cron_times(
    expression: str, key: str, after: datetime, n: int, dst: Dst | None = None
) -> list[datetime]:
    when = Cron(expression=expression)
    dst = dst or times.default_dst(when)
    return list(islice(times.after(when, ZoneInfo(key), dst, after), n))


def between(
    drawn: Drawn, key: str, low: datetime, high: datetime, dst: Dst | None = None
) -> list[datetime]:
    when = Cron(expression=drawn.text)
    dst = dst or times.default_dst(when)
    found = times.after(when, ZoneInfo(key), dst, low)
    return list(takewhile(lambda each: each <= high, found))


@given(expressions(), st.sampled_from(NIGHTS), st.sampled_from(Gap), st.sampled_from(Fold))
@settings(max_examples=40)
def test_times_on_nights_of_change_are_those_found_by_walking_through_the_minutes(
    drawn: Drawn, night: tuple[str, datetime], gap: Gap, fold: Fold
) -> None:
    assume(drawn.comes)
    key, around = night

    expected, low, high = ticks(drawn, key, around, gap, fold)

    assert between(drawn, key, low, high, Dst(gap=gap, fold=fold)) == expected


@given(
    expressions(),
    st.sampled_from(SIX_ZONES),
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
)
@settings(max_examples=40)
def test_times_anywhere_are_those_found_by_walking_through_the_minutes(
    drawn: Drawn, key: str, around: datetime
) -> None:
    assume(drawn.comes)
    at = around.replace(second=0, microsecond=0, tzinfo=UTC)
    gap, fold = ("skip", "both") if drawn.recurring else ("shift", "first")

    expected, low, high = ticks(drawn, key, at, gap, fold)

    assert between(drawn, key, low, high) == expected


@given(expressions(), st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)))
@settings(max_examples=60)
@example(
    Drawn("0 0 29 2 *", *map(frozenset, ([0], [0], [29], [2], range(7)))), datetime(2097, 1, 1)
)
def test_times_are_those_of_cronsim_where_no_clock_changes(drawn: Drawn, start: datetime) -> None:
    assume(drawn.comes)
    start = start.replace(tzinfo=UTC)

    assert cron_times(drawn.text, "UTC", start, 20) == list(islice(CronSim(drawn.text, start), 20))


@given(expressions(), st.sampled_from(NIGHTS_OF_CRONSIM))
@settings(max_examples=60)
def test_by_default_the_nights_of_change_are_as_in_debians_cron(
    drawn: Drawn, night: tuple[str, datetime]
) -> None:
    assume(drawn.comes)
    key, around = night
    start = (around - timedelta(days=1)).astimezone(ZoneInfo(key))
    upto = around + timedelta(days=1)

    simulated = takewhile(
        lambda each: each <= upto, (each.astimezone(UTC) for each in CronSim(drawn.text, start))
    )

    # cronsim says a time twice that two wall times are moved to.
    assert between(drawn, key, start.astimezone(UTC), upto) == sorted(set(simulated))


@given(
    expressions(),
    st.sampled_from(SIX_ZONES),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
)
@settings(max_examples=60)
def test_the_time_before_the_next_but_one_is_the_next(
    drawn: Drawn, key: str, start: datetime
) -> None:
    assume(drawn.comes)
    when, tz = Cron(expression=drawn.text), ZoneInfo(key)
    dst = times.default_dst(when)

    first, second = cron_times(drawn.text, key, start.replace(tzinfo=UTC), 2)

    assert times.before(when, tz, dst, second) == first


@given(
    expressions(),
    st.sampled_from(NIGHTS),
    st.timedeltas(timedelta(days=-4), timedelta(days=4)),
    st.timedeltas(timedelta(0), timedelta(days=6)),
)
@settings(max_examples=60)
def test_times_are_counted_as_they_are_found(
    drawn: Drawn, night: tuple[str, datetime], begin: timedelta, length: timedelta
) -> None:
    assume(drawn.comes)
    key, around = night
    low, high = around + begin, around + begin + length
    when = Cron(expression=drawn.text)

    counted = times.count(when, ZoneInfo(key), times.default_dst(when), low, high)

    assert counted == len(between(drawn, key, low, high))


def weekdays_of(expression: str) -> set[str]:
    days = (at.date() for at in cron_times(expression, "UTC", datetime(2026, 1, 1, tzinfo=UTC), 40))
    return {calendar.day_abbr[day.weekday()] for day in days}


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("1", {"Mon"}),  # APScheduler: Tuesday
        ("0", {"Sun"}),
        ("7", {"Sun"}),
        ("sun", {"Sun"}),
        ("SUN", {"Sun"}),
        ("5-7", {"Fri", "Sat", "Sun"}),
        ("0-0", {"Sun"}),
        ("fri-sun", {"Fri", "Sat", "Sun"}),
        ("1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("mon,wed", {"Mon", "Wed"}),
        ("*/2", {"Sun", "Tue", "Thu", "Sat"}),
        ("6/1", {"Sat", "Sun"}),
    ],
)
def test_weekdays_count_from_sunday(weekday: str, days: set[str]) -> None:
    assert weekdays_of(f"0 9 * * {weekday}") == days


def days_from(expression: str, year: int, month: int) -> list[int]:
    return [day.day for day in Cron(expression=expression).days_of(year, month)]


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 13 * fri", [6, 13, 20, 27]),  # either, in February 2026
        ("0 0 1 * 1", [1, 2, 9, 16, 23]),
        ("0 0 */10 * mon", []),  # a star in front: both
        ("0 0 */8 * mon", [9]),
        ("0 0 10 * */2", [10]),
        ("0 0 10-10/5 * *", [10]),  # cronsim: the 10th, 15th, 20th, 25th
        ("0 0 10/5 * *", [10, 15, 20, 25]),
        ("0 0 L * *", [28]),
        ("0 0 LW * *", [27]),
        ("0 0 1,L * *", [1, 28]),
        ("0 0 L * 1", [2, 9, 16, 23, 28]),
        ("0 0 * * fri#1", [6]),
        ("0 0 * * 7#4", [22]),
        ("0 0 * * 5L", [27]),
        ("0 0 * * friL", [27]),
        ("0 0 * * 0L", [22]),
        ("0 0 * * 6L", [28]),
        ("0 0 * * 1#1,3L", [2, 25]),
        ("0 0 * * mon#5", []),
        ("0 0 29 * *", []),
        ("@monthly", [1]),
        ("@weekly", [1, 8, 15, 22]),
        ("@yearly", []),
        ("  @DAILY ", list(range(1, 29))),
    ],
)
def test_days_of_february_2026(expression: str, days: list[int]) -> None:
    assert days_from(expression, 2026, 2) == days


def test_the_rarest_day_is_found_over_decades() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert [at.date() for at in cron_times("0 0 * 2 mon#5", "UTC", start, 2)] == [
        date(2044, 2, 29),
        date(2072, 2, 29),
    ]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "five"),
        ("0 2 * *", "it has 4 fields"),
        ("0 0 2 * * *", "without seconds"),
        ("0 2 ? * 1", r"write \* where it says \?"),
        ("60 * * * *", "minute '60': write a number from 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * * 13 *", "month '13': write a number from 1 to 12 or jan-dec"),
        ("* * * * 8", "weekday '8': write a number from 0 to 7 or sun-sat"),
        ("* * * * tues", "weekday 'tues'"),
        ("* * * jam *", "month 'jam'"),
        ("*/0 * * * *", "a step is at least 1"),
        ("1- * * * *", "minute '1-'"),
        ("1,,2 * * * *", "minute ''"),
        ("-5 * * * *", "minute '-5'"),
        ("٣ * * * *", "minute"),
        ("* 22-2 * * *", "ends before it begins: write 22-23,0-2"),
        ("* * 15W * *", "write calendar="),
        ("* * L-3 * *", "write calendar="),
        ("* * * * L", "write 5L"),
        ("* * * * 1#6", "write #1 to #5"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 4,6,9,11 *", "no such day"),
        ("0 0 */30 2 mon#5", "no such day"),
        ("@reboot", "no time"),
        ("@fortnightly", "@daily"),
    ],
)
def test_what_is_no_cron_is_refused_with_what_to_write(expression: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Cron(expression=expression)


@given(st.text(alphabet="0123456789*/-,@#lLwWjanfrisu ?", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    message = ""
    try:
        Cron(expression=text)
    except ScheduleError as error:
        message = str(error)

    assert not message or "write" in message or "at least" in message


def night(expression: str, key: str, day: date, dst: Dst | None = None) -> list[str]:
    tz = ZoneInfo(key)
    low = datetime(day.year, day.month, day.day, tzinfo=tz).astimezone(UTC)
    found = cron_times(expression, key, low - timedelta(microseconds=1), 2000, dst)
    local = (at.astimezone(tz) for at in found)
    return [f"{at:%H:%M %Z}" for at in local if at.date() == day]


SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)


@pytest.mark.parametrize(
    ("expression", "day", "dst", "times"),
    [
        ("30 1 * * *", AUTUMN, None, ["01:30 CEST"]),
        ("30 2 * * *", AUTUMN, None, ["02:30 CEST"]),
        ("30 2 * * *", AUTUMN, Dst(fold=Fold.LAST), ["02:30 CET"]),
        ("30 2 * * *", AUTUMN, Dst(fold=Fold.BOTH), ["02:30 CEST", "02:30 CET"]),
        ("30 2 * * *", SPRING, None, ["03:00 CEST"]),
        ("30 2 * * *", SPRING, Dst(gap=Gap.SKIP), []),
        ("0,15,30 2 * * *", SPRING, None, ["03:00 CEST"]),
        ("0 2,3 * * *", SPRING, None, ["03:00 CEST"]),
        ("30 1-3 * * *", SPRING, None, ["01:30 CET", "03:00 CEST", "03:30 CEST"]),
        ("30 */8 * * *", SPRING, None, ["00:30 CET", "08:30 CEST", "16:30 CEST"]),
        ("30 */8 * * *", SPRING, Dst(), ["00:30 CET", "08:30 CEST", "16:30 CEST"]),
        ("30 */2 29 3 *", SPRING, Dst(), [
            "00:30 CET", "03:00 CEST", *(f"{hour:02}:30 CEST" for hour in range(4, 24, 2))
        ]),
        ("*/30 2 * * *", AUTUMN, None, ["02:00 CEST", "02:30 CEST", "02:00 CET", "02:30 CET"]),
        ("*/30 2 * * *", SPRING, None, []),
    ],
)  # fmt: skip
def test_nights_of_change_in_berlin(
    expression: str, day: date, dst: Dst | None, times: list[str]
) -> None:
    assert night(expression, "Europe/Berlin", day, dst) == times


def test_a_quarter_hourly_schedule_has_no_hole_in_autumn_and_none_twice_in_spring() -> None:
    assert len(night("*/15 * * * *", "Europe/Berlin", AUTUMN)) == 25 * 4
    assert len(night("*/15 * * * *", "Europe/Berlin", SPRING)) == 23 * 4


def test_midnight_that_does_not_exist_is_the_first_instant_of_the_day() -> None:
    assert night("0 0 * * *", "America/Santiago", date(2026, 9, 6)) == ["01:00 -03"]


def test_a_day_that_a_zone_skipped_is_moved_to_the_next() -> None:
    start = datetime(2011, 12, 29, 12, tzinfo=UTC)

    found = cron_times("30 8 30 12 *", "Pacific/Apia", start, 1)

    assert found[0].astimezone(ZoneInfo("Pacific/Apia")).isoformat() == "2011-12-31T00:00:00+14:00"


def test_yesterdays_second_time_is_found_from_within_todays_first_minute() -> None:
    tz = ZoneInfo("America/St_Johns")
    asked = datetime(2010, 11, 7, 0, 0, 30, tzinfo=tz).astimezone(UTC)

    found = cron_times("30 23 * * *", "America/St_Johns", asked, 1, Dst(fold=Fold.LAST))

    assert found[0].astimezone(tz).isoformat() == "2010-11-06T23:30:00-03:30"


def test_a_time_that_only_ever_falls_into_the_gap_is_found_each_year() -> None:
    found = cron_times("30 2 * 3 7L", "Europe/Berlin", datetime(2026, 1, 1, tzinfo=UTC), 3)

    assert [at.date() for at in found] == [date(2026, 3, 29), date(2027, 3, 28), date(2028, 3, 26)]
