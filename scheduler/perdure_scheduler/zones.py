"""Time zones: which instants a reading of the clock on the wall stands for.

On the night when clocks go forward a wall time may not exist (*gap*); on the night when they go
back it comes twice (*fold*). ``Dst`` says what a schedule means then.
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec

from perdure_scheduler.errors import ScheduleError

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class Gap(StrEnum):
    """What a wall time means that does not exist."""

    SHIFT = "shift"  # the first instant after the gap: 02:30 becomes 03:00
    SKIP = "skip"  # no instant


class Fold(StrEnum):
    """What a wall time means that comes twice."""

    FIRST = "first"
    LAST = "last"
    BOTH = "both"


class Dst(msgspec.Struct, frozen=True, kw_only=True):
    """What wall times mean on the two nights when the clocks change."""

    gap: Gap = Gap.SHIFT
    fold: Fold = Fold.FIRST

    def __str__(self) -> str:
        return f"gap={self.gap}, fold={self.fold}"


NAMED = Dst()
"""For times of day that are named: each day has each of them exactly once."""

RECURRING = Dst(gap=Gap.SKIP, fold=Fold.BOTH)
"""For times that recur within the hours, as the clock shows them: no hour without, none twice."""


def zone(key: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    Raises:
        ScheduleError: there is none of that name; it says which are like it.
    """
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        if str(key).isupper() and len(str(key)) <= 5:
            raise ScheduleError(
                f"tz={key!r} is no time zone that is known here: letters such as these mean one "
                "offset, and not everywhere the same; name a place, such as 'Europe/Berlin'"
            ) from None
        near = difflib.get_close_matches(str(key), sorted(available_timezones()), n=3)
        hint = " or ".join(repr(name) for name in near) or "an IANA name such as 'Europe/Berlin'"
        raise ScheduleError(
            f"tz={key!r} is no time zone that is known here: write {hint}"
        ) from None


def utc(instant: datetime, *, what: str) -> datetime:
    """Return an aware instant in UTC.

    Raises:
        ScheduleError: it is naive.
    """
    if instant.tzinfo is None:
        raise ScheduleError(
            f"{what}={instant.isoformat()} says no time zone: write "
            f"{instant.isoformat()}+00:00, or give a datetime with tzinfo"
        )
    return instant.astimezone(UTC)


def instants(wall: datetime, tz: ZoneInfo, dst: Dst) -> tuple[datetime, ...]:
    """Return the instants, in UTC and in order, that a naive wall time stands for."""
    before = _offset(wall, tz, fold=0)
    after = _offset(wall, tz, fold=1)
    if before == after:
        return (_minus(wall, before),)
    if before < after:  # PEP 495: in a gap, fold=0 keeps the offset from before it
        return (_gap_end(wall, tz, before, after),) if dst.gap is Gap.SHIFT else ()
    first, last = _minus(wall, before), _minus(wall, after)
    return {Fold.FIRST: (first,), Fold.LAST: (last,), Fold.BOTH: (first, last)}[dst.fold]


@lru_cache(maxsize=16384)
def plain_offset(day: date, tz: ZoneInfo) -> timedelta | None:
    """Return the offset from UTC that holds from the day before to the day after, if one does.

    On such a day wall times and instants are in the same order, and apart from those of its
    neighbours. No two changes that undo each other lie within one day of the zones that there are.
    """
    try:
        midnights = [
            datetime.combine(day + offset * _DAY, time(), tzinfo=tz).utcoffset()
            for offset in (-1, 0, 1, 2)
        ]
    except OverflowError:
        return None
    return midnights[0] if all(each == midnights[0] for each in midnights) else None


def wall_of(instant: datetime, tz: ZoneInfo) -> datetime:
    """Return what the clock on the wall shows at an instant, naive."""
    return instant.astimezone(tz).replace(tzinfo=None, fold=0)


def rendered(instant: datetime, tz: ZoneInfo) -> str:
    """Return ``"Sun 2026-10-25 02:30 CEST (00:30 UTC)"``; the abbreviation tells folds apart."""
    local = instant.astimezone(tz)
    at = instant.astimezone(UTC)
    shape = "%H:%M:%S" if at.second or local.second else "%H:%M"
    day = f"{_DAYS[local.weekday()]} {local.date()} {local.strftime(shape)}"
    if local.tzname() == "UTC":
        return f"{day} UTC"
    date_too = "" if at.date() == local.date() else f"{at.date()} "
    return f"{day} {local.tzname()} ({date_too}{at.strftime(shape)} UTC)"


def _offset(wall: datetime, tz: ZoneInfo, *, fold: int) -> timedelta:
    return wall.replace(tzinfo=tz, fold=fold).utcoffset() or timedelta(0)


def _minus(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


def _gap_end(wall: datetime, tz: ZoneInfo, before: timedelta, after: timedelta) -> datetime:
    """Return the instant at which the clocks go forward, by halving: at most 17 looks a day."""
    low, high = _minus(wall, after), _minus(wall, before)
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        if middle.astimezone(tz).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
