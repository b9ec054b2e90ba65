"""From what people write to a ``Schedule``: texts, naive times, dates, one way to say when.

The door of this floor: what it lets in is a whole value, or is refused with what to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from perdure_scheduler.adoption import adopted
from perdure_scheduler.calendars import Calendar, calendar_of
from perdure_scheduler.cron import Cron
from perdure_scheduler.durations import Duration, duration
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.policies import (
    Catchup,
    OnFailure,
    Overlap,
    catchup_of,
    dst_of,
    on_failure_of,
    overlap_of,
)
from perdure_scheduler.schedule import Schedule
from perdure_scheduler.times import EPOCH, At, Interval, Times
from perdure_scheduler.zones import NAMED, Dst, instants, zone

Instant = datetime | date | str
"""An instant as people write it: aware, or as the clock on the wall of the schedule's zone shows
it; a date is its midnight; text is ISO 8601."""

_DAY = timedelta(days=1)
_FIRST_YEAR, _LAST_YEAR = 2, 9997
"""Beyond them there is no date, or none a year later."""
_INSTANT = timedelta(microseconds=1)


def declared(
    name: str,
    *,
    cron: str | None = None,
    interval: Duration | None = None,
    calendar: Calendar | str | None = None,
    at: Instant | Iterable[Instant] | None = None,
    trigger: Any = None,
    tz: str = "UTC",
    start: Instant | None = None,
    end: Instant | None = None,
    max_runs: int | None = None,
    overlap: Overlap | str = "queue",
    catchup: Catchup | str = "latest",
    grace: Duration | None = None,
    dst: Dst | str | None = None,
    jitter: Duration = 0,
    on_failure: OnFailure | str = "continue",
    concurrency: str | None = None,
) -> Schedule:
    """Return the schedule that a declaration means.

    Args:
        name: names the schedule and its runs.
        cron: five fields, ``"0 2 * * mon-fri"``, or ``"@daily"``.
        interval: elapsed time between two ticks, counted from ``start``, else from 1970 in UTC.
        calendar: days that a rule names, ``"last business day at 18:00"``; a ``Calendar`` where
            holidays matter.
        at: one instant or several.
        trigger: one of APScheduler 3, in place of all of the above, ``start`` and ``end``.
        tz: the time zone in which all of them are read, an IANA name.
        start: no tick before it.
        end: no tick after it; a date is the whole of that day.
        max_runs: it ends after so many runs.
        overlap: ``"skip"``, ``"queue(max=1)"``, ``"queue_all(max=N)"``, ``"cancel_running"``,
            ``"allow(max=N)"``.
        catchup: ``"none"``, ``"latest"``, ``"all(max=N, window=7d)"``.
        grace: how late a tick is still on time.
        dst: ``"gap=shift"`` or ``skip``, ``"fold=first"``, ``last`` or ``both``.
        jitter: the most by which ticks are delayed, each by a share of its own.
        on_failure: ``"continue"``, ``"pause_after(N)"``.
        concurrency: schedules with this key count each other's runs in their ``overlap``.

    Raises:
        ScheduleError: something is no such thing, or contradicts another; says what to write.
    """
    if trigger is not None:
        if any(each is not None for each in (cron, interval, calendar, at, start, end)):
            raise ScheduleError(f"schedule {name!r}: trigger= says when: give nothing beside it")
        more = {"tz": tz, "jitter": jitter, **adopted(trigger)}
        return declared(
            name,
            **more,
            max_runs=max_runs,
            overlap=overlap,
            catchup=catchup,
            grace=grace,
            dst=dst,
            on_failure=on_failure,
            concurrency=concurrency,
        )
    try:
        where = zone(tz)
        meaning = None if dst is None else dst_of(dst)
        named = meaning or NAMED
        begin = None if start is None else _instant(start, where, named, "start")
        return Schedule(
            name=name,
            when=_times(cron, interval, calendar, _all_of(at), begin, where, named),
            tz=tz,
            overlap=overlap_of(overlap),
            catchup=catchup_of(catchup),
            grace=None if grace is None else duration(grace, what="grace"),
            # at= has made use of it: its instants are fixed from here on.
            dst=None if at is not None else meaning,
            jitter=duration(jitter, what="jitter"),
            start=begin,
            end=None if end is None else _end(end, where, named, "end"),
            max_runs=max_runs,
            on_failure=on_failure_of(on_failure),
            concurrency=_key(concurrency),
        )
    except ScheduleError as error:
        told = str(error).removeprefix(f"schedule {name!r}: ")
        raise ScheduleError(f"schedule {name!r}: {told}") from None


def _key(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ScheduleError(f"concurrency={value!r:.80}: write a word, such as 'warehouse'")


def expressed(text: str, *, tz: str = "UTC") -> Schedule:
    """Return a schedule of an expression alone: of cron, ``"90m"``, or a calendar's rule.

    Raises:
        ScheduleError: it is none of them; says what to write in place of what it looks like.
    """
    words = text.split()
    looks_like = "interval" if len(words) == 1 else "calendar"
    is_five = len(words) == 5 and "at" not in words
    if text[:1] == "@" or is_five or (len(words) > 1 and not any(map(str.isalpha, words[0]))):
        looks_like = "cron"
    refused: dict[str, ScheduleError] = {}
    for kind in ("cron", "interval", "calendar"):
        try:
            return declared("test", tz=tz, **{kind: text})  # type: ignore[arg-type]
        except ScheduleError as error:
            refused[kind] = error
    told = str(refused[looks_like]).removeprefix("schedule 'test': ")
    raise ScheduleError(told)


def instant_of(value: Instant, tz: ZoneInfo, *, what: str) -> datetime:
    """Return an instant as somebody wrote it; a date is its midnight.

    Raises:
        ScheduleError: it is none.
    """
    return _instant(value, tz, NAMED, what)


def end_of(value: Instant, tz: ZoneInfo, *, what: str) -> datetime:
    """Return the last instant that is meant; of a date that is the end of its day.

    Raises:
        ScheduleError: it is none.
    """
    return _end(value, tz, NAMED, what)


def _all_of(at: Instant | Iterable[Instant] | None) -> tuple[Instant, ...] | None:
    if at is None:
        return None
    return tuple(at) if isinstance(at, Iterable) and not isinstance(at, str) else (at,)


def _times(
    cron: str | None,
    interval: Duration | None,
    calendar: Calendar | str | None,
    at: tuple[Instant, ...] | None,
    start: datetime | None,
    tz: ZoneInfo,
    dst: Dst,
) -> Times:
    given = {"cron": cron, "interval": interval, "calendar": calendar, "at": at}
    names = [f"{name}=" for name, value in given.items() if value is not None]
    if len(names) != 1:
        said = f"{' and '.join(names)} say twice when" if names else "nothing says when"
        raise ScheduleError(f"{said}: write one of cron=, interval=, calendar= and at=")
    if cron is not None:
        return Cron(expression=cron)
    if interval is not None:
        return Interval(every=duration(interval, what="interval"), anchor=start or EPOCH)
    if calendar is not None:
        return calendar if isinstance(calendar, Calendar) else calendar_of(calendar)
    return At(instants=tuple(each for one in at or () for each in _instants(one, tz, dst, "at")))


def _end(value: Instant, tz: ZoneInfo, dst: Dst, what: str) -> datetime:
    read = _read(value, what)
    if isinstance(read, datetime):
        return _instant(read, tz, dst, what)
    return _instant(read + _DAY, tz, dst, what) - _INSTANT


def _instant(value: Instant, tz: ZoneInfo, dst: Dst, what: str) -> datetime:
    return _instants(value, tz, dst, what)[0]


def _instants(value: Instant, tz: ZoneInfo, dst: Dst, what: str) -> tuple[datetime, ...]:
    read = _read(value, what)
    if not isinstance(read, datetime):
        return instants(datetime.combine(read, time()), tz, NAMED)
    if read.tzinfo is not None:
        return (read.astimezone(UTC),)
    found = instants(read, tz, dst)
    if not found:
        raise ScheduleError(
            f"{what}={value!r} does not exist in {tz.key}: the clocks go forward over it; write "
            "another time, or dst='gap=shift'"
        )
    return found


def _read(value: Instant, what: str) -> datetime | date:
    read = _parsed(value) if isinstance(value, str) else value
    if isinstance(read, date):
        if not _FIRST_YEAR <= read.year <= _LAST_YEAR:
            raise ScheduleError(
                f"{what}={str(value)!r} is too far away: write a year from {_FIRST_YEAR} to "
                f"{_LAST_YEAR}"
            )
        return read
    raise ScheduleError(
        f"{what}={value!r} is no time: write a datetime, a date, or text such as "
        "'2026-03-01T09:30' or '2026-03-01'"
    )


def _parsed(text: str) -> datetime | date | None:
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text.strip())
        except ValueError:
            continue
    return None
