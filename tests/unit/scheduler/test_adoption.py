"""Triggers of APScheduler are taken over for what they say: its own times are the measure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler.declaration import declared
from perdure_scheduler.errors import ScheduleError

START = datetime(2026, 1, 1, 12, 7, 30, tzinfo=UTC)


def its_own(trigger: Any, count: int) -> list[datetime]:
    """Return the times that APScheduler gives, one after the other."""
    found: list[datetime] = []
    while len(found) < count:
        now = found[-1] + timedelta(microseconds=1) if found else START
        following = trigger.get_next_fire_time(found[-1] if found else None, now)
        if following is None:
            return found
        found.append(following)
    return found


def ours(trigger: Any, count: int) -> list[datetime]:
    return list(islice(declared("x", trigger=trigger).after(START), count))


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "minute": st.sampled_from(["*", "0", "*/7", "5-50/9", "3,33", "59", "40/6"]),
        "hour": st.sampled_from(["*", "0-5", "*/5", "23", "9,17"]),
        "month": st.sampled_from(["*", "1", "feb-apr", "*/5", "12"]),
    },
)
DAYS = st.sampled_from(
    [
        {},
        {"day": "1"},
        {"day": "last"},
        {"day": "*/9"},
        {"day": "2nd wed"},
        {"day": "last fri"},
        {"day_of_week": "mon-fri"},
        {"day_of_week": "0"},
        {"day_of_week": "5,6"},
        {"day_of_week": "sat"},
        {"day_of_week": "1-5/2"},
    ]
)


@given(fields=FIELDS, days=DAYS)
def test_cron_trigger_keeps_its_times(fields: dict[str, str], days: dict[str, str]) -> None:
    trigger = CronTrigger(**{"minute": "0", **fields, **days}, timezone="UTC")

    assert ours(trigger, 12) == its_own(trigger, 12)


@given(
    minutes=st.integers(1, 3_000), start=st.datetimes(datetime(2020, 1, 1), datetime(2025, 1, 1))
)
def test_interval_trigger_keeps_its_times(minutes: int, start: datetime) -> None:
    trigger = IntervalTrigger(minutes=minutes, start_date=start, timezone="UTC")

    assert ours(trigger, 12) == its_own(trigger, 12)


def test_monday_stays_monday() -> None:
    schedule = declared("x", trigger=CronTrigger.from_crontab("0 9 * * 0", timezone="UTC"))

    assert {each.strftime("%A") for each in islice(schedule.after(START), 5)} == {"Monday"}


def test_date_and_zone_and_end_and_jitter_are_taken_over() -> None:
    once = declared("x", trigger=DateTrigger(datetime(2026, 5, 1, 9), timezone="Europe/Berlin"))
    until = datetime(2026, 1, 3)
    daily = CronTrigger(hour=2, end_date=until, jitter=60, timezone="Europe/Berlin")
    nightly = declared("y", trigger=daily)

    assert list(once.after(START)) == [datetime(2026, 5, 1, 7, tzinfo=UTC)]
    assert list(nightly.after(START)) == [datetime(2026, 1, 2, 1, tzinfo=UTC)]
    assert (nightly.tz, nightly.jitter) == ("Europe/Berlin", timedelta(minutes=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trigger": CronTrigger(second="*/5")}, "cron has no second field"),
        ({"trigger": CronTrigger(day=1, day_of_week="mon")}, "cron those that fit either"),
        ({"trigger": CronTrigger(day="1,2nd wed")}, "write two"),
        ({"trigger": CalendarIntervalTrigger(months=1)}, "write an IntervalTrigger"),
        ({"trigger": OrTrigger([])}, "write an IntervalTrigger"),
        ({"trigger": "0 2 * * *"}, "write an IntervalTrigger"),
        ({"trigger": CronTrigger(hour=1), "cron": "@daily"}, "give nothing beside it"),
    ],
)
def test_what_cannot_be_declared_is_refused_with_what_to_write(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        declared("x", **options)
