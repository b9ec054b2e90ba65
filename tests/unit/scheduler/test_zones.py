from __future__ import annotations

from datetime import date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from tests.unit.scheduler.brute_force import SIX_ZONES, changes

from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.zones import Dst, Fold, Gap, instants, plain_offset, rendered, utc, zone


def shown(wall: datetime, key: str, dst: Dst) -> list[str]:
    tz = ZoneInfo(key)
    return [each.astimezone(tz).isoformat() for each in instants(wall, tz, dst)]


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("key", "wall", "dst", "expected"),
    [
        ("UTC", "2026-03-29T02:30:00", Dst(), ["02:30:00+00:00"]),
        (BERLIN, "2026-03-29T02:00:00", Dst(), ["03:00:00+02:00"]),
        (BERLIN, "2026-03-29T02:59:59", Dst(), ["03:00:00+02:00"]),
        (BERLIN, "2026-03-29T02:30:00", Dst(gap=Gap.SKIP), []),
        (BERLIN, "2026-03-29T03:00:00", Dst(gap=Gap.SKIP), ["03:00:00+02:00"]),
        (BERLIN, "2026-10-25T02:00:00", Dst(), ["02:00:00+02:00"]),
        (BERLIN, "2026-10-25T02:00:00", Dst(fold=Fold.LAST), ["02:00:00+01:00"]),
        (BERLIN, "2026-10-25T02:00:00", Dst(fold=Fold.BOTH), ["02:00:00+02:00", "02:00:00+01:00"]),
        (BERLIN, "2026-10-25T03:00:00", Dst(fold=Fold.BOTH), ["03:00:00+01:00"]),
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", Dst(), ["02:30:00+11:00"]),
        ("Asia/Beirut", "2026-03-29T00:00:00", Dst(), ["01:00:00+03:00"]),
    ],
)
def test_wall_times_on_nights_of_change(key: str, wall: str, dst: Dst, expected: list[str]) -> None:
    assert shown(datetime.fromisoformat(wall), key, dst) == [
        f"{wall[:10]}T{each}" for each in expected
    ]


def test_a_day_is_plain_unless_a_clock_changes_near_it() -> None:
    tz = ZoneInfo("Europe/Berlin")

    near = [
        date(2026, 3, day) for day in range(26, 32) if plain_offset(date(2026, 3, day), tz) is None
    ]

    assert near == [date(2026, 3, day) for day in (28, 29, 30)]


def test_changes_of_a_zone_are_days_apart_so_that_a_plain_day_is_plain() -> None:
    for key in (*SIX_ZONES, "Africa/Casablanca", "Asia/Gaza", "Pacific/Apia"):
        assert all((b - a).days > 3 for a, b in pairwise(changes(key, 2008, 20))), key


def test_an_unknown_zone_is_refused_with_what_it_may_have_meant() -> None:
    with pytest.raises(ScheduleError, match="'Europe/Berlin'"):
        zone("Europe/Berlim")


@pytest.mark.parametrize("key", ["", "../etc/passwd", "/etc/localtime", "Europe", "\0"])
def test_what_is_no_name_of_a_zone_is_refused(key: str) -> None:
    with pytest.raises(ScheduleError, match="no time zone"):
        zone(key)


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"start=2026-01-01T00:00:00 says no time zone"):
        utc(datetime(2026, 1, 1), what="start")


@pytest.mark.parametrize(
    ("at", "key", "text"),
    [
        ("2026-10-25T00:30", BERLIN, "Sun 2026-10-25 02:30 CEST (00:30 UTC)"),
        ("2026-10-25T01:30", BERLIN, "Sun 2026-10-25 02:30 CET (01:30 UTC)"),
        ("2026-10-25T01:30:05", BERLIN, "Sun 2026-10-25 02:30:05 CET (01:30:05 UTC)"),
        ("2026-01-02T04:30", "America/New_York", "Thu 2026-01-01 23:30 EST (2026-01-02 04:30 UTC)"),
        ("2026-01-02T00:00", "UTC", "Fri 2026-01-02 00:00 UTC"),
    ],
)
def test_a_time_is_shown_in_its_zone_and_in_utc(at: str, key: str, text: str) -> None:
    assert rendered(datetime.fromisoformat(f"{at}+00:00"), ZoneInfo(key)) == text
