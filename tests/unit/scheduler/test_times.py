from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler import times
from perdure_scheduler.calendars import BusinessDay, Calendar
from perdure_scheduler.cron import Cron
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.times import At, Interval, Times, shortest_period
from perdure_scheduler.zones import NAMED

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 1, 1, tzinfo=UTC)

instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
periods = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


def first(when: Times, after: datetime, n: int) -> list[datetime]:
    return list(islice(times.after(when, BERLIN, NAMED, after), n))


@given(periods, instants, instants)
def test_an_interval_is_at_whole_periods_from_its_anchor_whenever_one_asks(
    every: timedelta, anchor: datetime, asked: datetime
) -> None:
    when = Interval(every=every, anchor=anchor)

    last, (following, second) = when.before(asked), first(when, asked, 2)

    assert last < asked < following or last + every == asked < following
    assert (following - anchor) % every == timedelta(0)
    assert (last - anchor) % every == timedelta(0)
    assert second - following == every


@given(periods, instants, instants, instants)
def test_times_of_an_interval_are_counted_without_walking(
    every: timedelta, anchor: datetime, low: datetime, high: datetime
) -> None:
    when = Interval(every=max(every, timedelta(days=3)), anchor=anchor)

    walked = sum(1 for _ in (at for at in first(when, low, 4000) if at <= high))

    assert times.count(when, BERLIN, NAMED, low, high) == walked


def test_an_interval_of_a_day_is_24_hours_though_the_clocks_change() -> None:
    when = Interval(every=timedelta(days=1), anchor=datetime(2026, 3, 27, 9, tzinfo=BERLIN))

    local = [f"{at.astimezone(BERLIN):%d %H:%M}" for at in first(when, when.anchor, 3)]

    assert local == ["28 09:00", "29 10:00", "30 10:00"]


def test_an_interval_ends_with_the_calendar() -> None:
    when = Interval(every=timedelta(days=3000 * 366))

    assert [at.year for at in first(when, START, 10)] == [4976, 7982]


def test_instants_are_sorted_and_each_there_once() -> None:
    same = datetime(2026, 5, 1, 12, tzinfo=BERLIN)
    when = At(instants=(same, START, same.astimezone(UTC)))

    assert first(when, START - timedelta(1), 9) == [START, same]
    assert first(when, START, 9) == [same]
    assert times.before(when, BERLIN, NAMED, same) == START
    assert times.before(when, BERLIN, NAMED, START) is None
    assert times.count(when, BERLIN, NAMED, START, same) == 1


def test_a_calendar_follows_the_clock_of_its_zone() -> None:
    when = Calendar(day=BusinessDay(n=-1), at=(time(18),))

    local = [f"{at:%m-%d %H:%M}" for at in first(when, START, 4)]

    assert local == ["01-30 17:00", "02-27 17:00", "03-31 16:00", "04-30 16:00"]


@pytest.mark.parametrize(
    ("when", "hours"),
    [
        (Cron(expression="0 2 * * *"), 24),
        (Cron(expression="0 2,8,20 * * *"), 6),
        (Cron(expression="0 23,0 * * *"), 1),
        (Cron(expression="*/15 * * * *"), 0.25),
        (Interval(every=timedelta(hours=3)), 3),
        (At(instants=(START, START + timedelta(hours=5), START + timedelta(hours=7))), 2),
    ],
)
def test_the_shortest_period(when: Times, hours: float) -> None:
    assert shortest_period(when) == timedelta(hours=hours)


def test_one_instant_has_no_period() -> None:
    assert shortest_period(At(instants=(START,))) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interval(every=timedelta(0)), "interval='0s': write at least '1s'"),
        (lambda: Interval(every=timedelta(milliseconds=500)), "interval='500ms'"),
        (lambda: Interval(every=timedelta(1), anchor=datetime(2026, 1, 1)), "no time zone"),
        (lambda: At(instants=()), "at least one instant"),
        (lambda: At(instants=(datetime(2026, 1, 1),)), "no time zone"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, message: str) -> None:
    assert callable(make)

    with pytest.raises(ScheduleError, match=message):
        make()
