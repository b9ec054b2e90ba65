from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler.calendars import BusinessDay, Calendar, Holidays, NthWeekday, Weekday
from perdure_scheduler.declaration import declared, expressed, instant_of
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.policies import CatchupAll, Queue, QueueAll
from perdure_scheduler.schedule import Schedule, nominal_of
from perdure_scheduler.times import At, Interval
from perdure_scheduler.zones import Dst, Fold

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


NIGHTLY = declared("nightly", cron="30 2 * * *", tz="Europe/Berlin")


def test_a_nominal_time_is_shown_in_local_time_and_utc_with_its_interval() -> None:
    (nominal,) = NIGHTLY.upcoming(utc(2026, 6, 1, 12), 1)

    assert nominal.at == nominal.interval_end == nominal.due == utc(2026, 6, 2, 0, 30)
    assert nominal.interval_start == utc(2026, 6, 1, 0, 30)
    assert nominal.local.isoformat() == "2026-06-02T02:30:00+02:00"
    assert nominal.text == "Tue 2026-06-02 02:30 CEST (00:30 UTC)"
    assert nominal.remark == ""


def test_a_nominal_time_tells_what_the_clocks_did_to_it() -> None:
    both = declared("x", cron="30 2 * * *", tz="Europe/Berlin", dst="fold=both")

    spring = [each.remark for each in NIGHTLY.upcoming(utc(2026, 3, 28, 12), 2)]
    autumn = [each.remark for each in both.upcoming(utc(2026, 10, 24, 12), 3)]

    assert spring == ["moved to where the clocks went forward: its wall time did not exist", ""]
    assert autumn == [
        "the first of two 02:30, as the clocks went back",
        "the second of two 02:30, as the clocks went back",
        "",
    ]


def test_intervals_follow_each_other_without_hole_or_overlap_over_nights_of_change() -> None:
    nominal = NIGHTLY.upcoming(utc(2026, 3, 20), 300)

    assert [each.interval_start for each in nominal[1:]] == [each.at for each in nominal[:-1]]


def test_the_first_of_given_instants_has_no_interval() -> None:
    schedule = declared("once", at=["2026-01-01", "2026-01-02"])

    assert [each.interval_start for each in schedule.upcoming(utc(2025, 1, 1), 3)] == [
        None,
        utc(2026, 1, 1),
    ]


def test_start_and_end_are_the_first_and_last_instants_at_which_a_tick_may_be() -> None:
    schedule = declared("x", cron="@hourly", start="2026-01-01T02:00", end="2026-01-01T04:00")

    assert list(schedule.after(utc(2020, 1, 1))) == [utc(2026, 1, 1, h) for h in (2, 3, 4)]
    assert schedule.before(utc(2030, 1, 1)) == utc(2026, 1, 1, 4)
    assert schedule.before(utc(2026, 1, 1, 2)) is None
    assert schedule.next(utc(2026, 1, 1, 4)) is None
    assert schedule.count(utc(2020, 1, 1), utc(2030, 1, 1)) == 3


def test_an_end_that_is_a_date_is_the_whole_of_that_day_where_the_schedule_is() -> None:
    schedule = declared("x", cron="0 23 * * *", tz="America/New_York", end=date(2026, 1, 2))

    assert schedule.before(utc(2030, 1, 1)) == utc(2026, 1, 3, 4)


def test_an_interval_is_counted_from_start_and_else_from_1970() -> None:
    anchored = declared("x", interval="1h", start="2026-01-01T00:05")
    free = declared("x", interval="1h")

    assert anchored.next(utc(2026, 3, 1)) == utc(2026, 3, 1, 0, 5)
    assert free.next(utc(2026, 3, 1, 0, 1)) == utc(2026, 3, 1, 1)


@given(st.integers(0, 2000), st.timedeltas(timedelta(seconds=1), HOUR - timedelta(seconds=1)))
def test_jitter_delays_each_tick_by_a_share_of_its_own_and_never_past_the_next(
    n: int, jitter: timedelta
) -> None:
    schedule = declared("x", cron="0 * * * *", tz="Europe/Berlin", jitter=jitter)
    at = utc(2026, 3, 1) + n * HOUR

    due = schedule.due(at)

    assert at <= due < at + jitter
    assert due == Schedule.from_json(schedule.to_json()).due(at)


def test_jitter_spreads_over_its_whole_length_and_differs_by_schedule() -> None:
    one, other = (declared(name, interval="1h", jitter="30m") for name in ("one", "other"))
    times = [utc(2026, 1, 1) + n * HOUR for n in range(200)]

    delays = [one.due(at) - at for at in times]

    assert min(delays) < 3 * MINUTE
    assert max(delays) > 27 * MINUTE
    assert delays != [other.due(at) - at for at in times]


def test_jitter_keeps_the_order_where_the_clocks_push_ticks_together() -> None:
    times = "last sunday of mar at 02:30, 03:10"  # on that night 03:00 and 03:10
    schedule = declared("x", calendar=times, tz="Europe/Berlin", jitter="39m")
    nominal = list(schedule.between(utc(2026, 1, 1), utc(2046, 1, 1)))

    assert {b - a for a, b in zip(nominal[::2], nominal[1::2])} == {10 * MINUTE}
    assert all(schedule.due(a) < b for a, b in pairwise(nominal))


def test_grace_is_one_period_and_at_most_an_hour_unless_given() -> None:
    at = utc(2026, 1, 1)

    assert declared("x", interval="10s").grace_of(at) == timedelta(seconds=10)
    assert declared("x", cron="@daily").grace_of(at) == HOUR
    assert declared("x", at="2026-01-01").grace_of(at) == HOUR
    assert declared("x", cron="@daily", grace="6h").grace_of(at) == 6 * HOUR


def test_a_run_is_named_by_schedule_and_nominal_utc_time() -> None:
    assert NIGHTLY.run_id(utc(2026, 6, 2, 0, 30)) == "nightly-20260602T003000Z"
    assert NIGHTLY.run_id(utc(2026, 6, 2, 0, 30, 0, 500)).endswith("T003000.000500Z")


EVERY_FIELD = declared(
    "all-of-it",
    calendar=Calendar(
        day=NthWeekday(n=2, weekday=Weekday.TUE),
        at=(time(9, 30), time(18)),
        holidays=Holidays(dates=(date(2026, 5, 1),), name="labour"),
    ),
    tz="Asia/Beirut",
    start="2026-01-01",
    end="2027-01-01",
    max_runs=10,
    overlap="queue_all(10)",
    catchup="all(5, window=7d)",
    grace="30m",
    dst="fold=last",
    jitter="10s",
    on_failure="pause_after(3)",
)


@pytest.mark.parametrize(
    "schedule",
    [
        NIGHTLY,
        EVERY_FIELD,
        declared("i", interval=1.5, start=utc(2026, 1, 1, 3)),
        declared("a", at=["2026-01-02", utc(2026, 1, 1)]),
    ],
)
def test_json_gives_the_same_schedule_back(schedule: Schedule) -> None:
    again = Schedule.from_json(schedule.to_json())

    assert again == schedule
    assert again.to_json() == schedule.to_json()
    assert again.upcoming(utc(2025, 12, 1), 5) == schedule.upcoming(utc(2025, 12, 1), 5)


@pytest.mark.parametrize(
    "data", ["", "{", "{}", "[]", '{"name":"x","when":{"type":"moon"}}', b"\xff"]
)
def test_json_that_is_no_schedule_is_refused(data: str | bytes) -> None:
    with pytest.raises(ScheduleError, match="cannot be read"):
        Schedule.from_json(data)


def test_json_with_a_contradiction_is_refused_as_in_python() -> None:
    data = NIGHTLY.to_json().replace(b"30 2 * * *", b"30 25 * * *")

    with pytest.raises(ScheduleError, match="hour '25'"):
        Schedule.from_json(data)


def test_a_declaration_has_the_defaults_of_the_value() -> None:
    assert Schedule(name="nightly", when=NIGHTLY.when, tz="Europe/Berlin") == NIGHTLY
    assert NIGHTLY.overlap == Queue(max=1)


def test_texts_are_read_into_values() -> None:
    assert EVERY_FIELD.overlap == QueueAll(max=10)
    assert EVERY_FIELD.catchup == CatchupAll(max=5, window=7 * DAY)
    assert EVERY_FIELD.dst == Dst(fold=Fold.LAST)
    assert EVERY_FIELD.start == utc(2025, 12, 31, 22)  # midnight in Beirut


def test_naive_times_are_those_of_the_schedules_zone() -> None:
    berlin = {"tz": "Europe/Berlin"}

    assert declared("x", at="2026-06-01T09:00", **berlin).when == At(instants=(utc(2026, 6, 1, 7),))
    assert declared("x", at="2026-06-01T09:00+00:00", **berlin).when == At(
        instants=(utc(2026, 6, 1, 9),)
    )
    assert declared("x", at=date(2026, 6, 1), **berlin).next(utc(2026, 1, 1)) == utc(
        2026, 5, 31, 22
    )
    assert declared("x", at="2026-10-25T02:30", dst="fold=both", **berlin).when == At(
        instants=(utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 1, 30))
    )


def test_an_aware_anchor_is_the_same_in_any_zone() -> None:
    start = datetime.fromisoformat("2026-01-01T01:00+01:00")

    assert declared("x", interval="1h", start=start).when == Interval(
        every=HOUR, anchor=utc(2026, 1, 1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing says when: write one of cron=, interval=, calendar= and at="),
        ({"cron": "@daily", "interval": "1h"}, "cron= and interval= say twice when"),
        ({"cron": "@daily", "tz": "Mars/Olympus"}, "tz='Mars/Olympus'"),
        ({"cron": "61 * * * *"}, "schedule 'x': cron '61 .*minute '61'"),
        ({"calendar": "last friday of june at noon"}, "calendar='last friday of june at noon'"),
        ({"calendar": BusinessDay(n=1)}, "write which day and when"),
        ({"interval": "0s"}, "at least '1s'"),
        ({"interval": "soon"}, "interval='soon' is not a duration"),
        ({"interval": "1h", "dst": "fold=both"}, "dst= says nothing about every 1h.*leave it out"),
        ({"at": []}, "at least one instant"),
        ({"at": "tomorrow"}, "at='tomorrow' is no time"),
        ({"at": 5}, "at=5 is no time"),
        (
            {"at": "2026-03-29T02:30", "tz": "Europe/Berlin", "dst": "gap=skip"},
            "does not exist in Europe/Berlin",
        ),
        ({"cron": "@daily", "start": "2026-02-01", "end": "2026-01-01"}, "is before start"),
        (
            {"cron": "@yearly", "start": "2026-02-01", "end": "2026-03-01"},
            "no time of it lies within start= and end=",
        ),
        ({"at": "2026-01-01", "start": "2026-02-01"}, "no time of it lies within"),
        ({"cron": "@daily", "max_runs": 0}, "never runs"),
        ({"cron": "@daily", "grace": 0}, "misses every tick"),
        ({"cron": "@daily", "jitter": -1}, "not a duration"),
        ({"cron": "@daily", "grace": "99999999d"}, "grace='99999999d': .*36500d at most"),
        ({"cron": "@daily", "grace": timedelta.max}, "36500d at most"),
        ({"cron": "@daily", "catchup": "all(1, window=99999999d)"}, "36500d at most"),
        ({"interval": 1e300}, "36500d at most"),
        ({"interval": "9" * 400 + "d"}, "36500d at most"),
        ({"interval": "1m", "jitter": "1m"}, "jitter='1m' is not shorter.*1m"),
        ({"cron": "*/5 * * * *", "jitter": "6m"}, "write a shorter one"),
        ({"cron": "@daily", "overlap": "sometimes"}, "overlap='sometimes'"),
        (
            {"cron": "@daily", "catchup": "all(5)"},
            r"overlap='queue\(max=1\)' would drop some: write overlap='queue_all\(max=5\)'",
        ),
        ({"cron": "@daily", "catchup": "all(5)", "overlap": "skip"}, "would drop some"),
        ({"cron": "@daily", "catchup": "all(5)", "overlap": "allow(4)"}, "would drop some"),
        ({"cron": "@daily", "catchup": "all(5)", "overlap": "cancel_running"}, "would drop some"),
    ],
)
def test_contradictions_are_refused_with_what_to_write(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        declared("x", **options)


@pytest.mark.parametrize("overlap", ["queue_all(1)", "queue(4)", "allow(5)"])
def test_a_catch_up_that_the_overlap_policy_can_hold_is_let_in(overlap: str) -> None:
    assert declared("x", cron="@daily", catchup="all(5)", overlap=overlap)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ü", "x" * 101, "a/b"])
def test_a_name_that_cannot_be_part_of_a_run_id_is_refused(name: str) -> None:
    with pytest.raises(ScheduleError, match="a name is made of"):
        declared(name, cron="@daily")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("0 2 * * mon-fri", "cron '0 2 * * mon-fri'"),
        ("@daily", "cron '@daily'"),
        ("90m", "every 1h30m"),
        ("last business day at 18:00", "last business day at 18:00"),
    ],
)
def test_expression_alone_says_which_kind_it_is(text: str, when: str) -> None:
    assert str(expressed(text).when) == when


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 2 * *", "write five"),
        ("@dayly", "@daily"),
        ("90x", "is not a duration"),
        ("lst business day", "last business day"),
        ("H * * * *", "cron"),
        ("30th day of feb at 9:00", "no 30th day in feb;"),
    ],
)
def test_expression_that_is_none_is_answered_as_the_kind_it_looks_like(
    text: str, told: str
) -> None:
    with pytest.raises(ScheduleError, match=told):
        expressed(text)


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-30"])
def test_date_beyond_which_there_is_none_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError, match="write a year from 2 to 9997"):
        instant_of(text, ZoneInfo("UTC"), what="at")


def test_letters_that_name_an_offset_are_answered_with_a_place() -> None:
    with pytest.raises(ScheduleError, match="name a place, such as 'Europe/Berlin'"):
        declared("s", cron="@daily", tz="CEST")


@pytest.mark.parametrize("at", [utc(2026, 1, 5, 1), utc(2026, 1, 5, 1, 2, 3, 40)])
def test_time_of_a_run_is_read_from_its_id(at: datetime) -> None:
    run_id = NIGHTLY.run_id(at)

    assert nominal_of("nightly", run_id) == at
    assert nominal_of("nightly", f"{run_id}-again-b") == at
    assert nominal_of("nightly", run_id.replace("nightly-", "nightly-manual-")) == at
    assert nominal_of("nightly", "another") is None
