"""A schedule as a value: when something is due, and what happens when things go wrong.

*Nominal time* is the instant that a tick stands for, whenever it is decided: it names the run, and
its intervals. All answers follow from the value alone, so that any process gives the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import msgspec

from perdure_scheduler import times
from perdure_scheduler.durations import text_of
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.names import NAME_RULE, is_name
from perdure_scheduler.policies import (
    Allow,
    CancelRunning,
    Catchup,
    CatchupAll,
    CatchupLatest,
    Continue,
    OnFailure,
    Overlap,
    Queue,
    Skip,
)
from perdure_scheduler.times import At, Interval, Times
from perdure_scheduler.zones import Dst, Fold, instants, rendered, utc, wall_of, zone
from perdure_storage.hashing import combine

LONGEST_DEFAULT_GRACE = timedelta(hours=1)
_INSTANT = timedelta(microseconds=1)
_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)
_STAMP = re.compile(r"(\d{8}T\d{6})(?:\.(\d{6}))?Z", re.ASCII)


class NominalTime(msgspec.Struct, frozen=True, kw_only=True):
    """One time of a schedule, for people and for the inputs of its run.

    Attributes:
        at: the instant, in UTC.
        local: the same, in the schedule's time zone.
        due: when it may be decided: ``at`` and its share of the jitter.
        interval_start: the time before it, in UTC; ``None`` for the first of ``at=``.
        text: both renderings, ``"Sun 2026-03-29 03:00 CEST (01:00 UTC)"``.
        remark: what the clocks did to it, if anything.
    """

    at: datetime
    local: datetime
    due: datetime
    interval_start: datetime | None
    text: str
    remark: str = ""

    @property
    def interval_end(self) -> datetime:
        """The end of the interval that begins at ``interval_start``: the nominal time itself."""
        return self.at


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When runs are due, and the policies for what does not go as planned.

    What runs, with which inputs, is not its business.

    Attributes:
        name: names the schedule and, with a nominal time, each run.
        when: what makes the times.
        tz: IANA name of the zone in which wall times are read and shown.
        overlap: what a tick does while a run goes on.
        catchup: what becomes of ticks that were not decided in time.
        grace: how late a tick may be decided and still count as on time; if ``None``, until the
            next one, and at most one hour.
        dst: what wall times mean when the clocks change; if ``None``, ``default_dst`` says.
        jitter: each tick is decided up to this much later, by a share that follows from the name
            and the nominal time.
        start, end: the first and the last instant at which a tick may be, in UTC.
        max_runs: the number of runs after which it ends.
        on_failure: what failed runs do to it.
        concurrency: schedules with this key count each other's runs in their ``overlap``.
    """

    name: str
    when: Times
    tz: str = "UTC"
    overlap: Overlap = Queue()
    catchup: Catchup = CatchupLatest()
    grace: timedelta | None = None
    dst: Dst | None = None
    jitter: timedelta = timedelta(0)
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int | None = None
    on_failure: OnFailure = Continue()
    concurrency: str | None = None

    def __post_init__(self) -> None:
        for bound in ("start", "end"):
            instant = getattr(self, bound)
            if instant is not None:
                msgspec.structs.force_setattr(self, bound, utc(instant, what=bound))
        try:
            _check(self)
        except ScheduleError as error:
            raise ScheduleError(f"schedule {self.name!r}: {error}") from None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which wall times are read and shown."""
        return zone(self.tz)

    @property
    def meaning(self) -> Dst:
        """What wall times mean when the clocks change."""
        return self.dst if self.dst is not None else times.default_dst(self.when)

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the nominal times later than ``instant``, in UTC, in order, each once."""
        if self.start is not None:
            instant = max(instant, self.start - _INSTANT)
        found = times.after(self.when, self.zone, self.meaning, instant)
        end = self.end
        return found if end is None else takewhile(lambda each: each <= end, found)

    def next(self, instant: datetime) -> datetime | None:
        """Return the first nominal time later than ``instant``, if one is left."""
        return next(self.after(instant), None)

    def between(self, after: datetime, upto: datetime) -> Iterator[datetime]:
        """Yield the nominal times later than ``after`` and not later than ``upto``, in order."""
        return takewhile(lambda each: each <= upto, self.after(after))

    def before(self, instant: datetime) -> datetime | None:
        """Return the last nominal time earlier than ``instant``, if there is one."""
        if self.end is not None:
            instant = min(instant, self.end + _INSTANT)
        found = times.before(self.when, self.zone, self.meaning, instant)
        return None if found and self.start and found < self.start else found

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many nominal times are later than ``after`` and not later than ``upto``."""
        if self.start is not None:
            after = max(after, self.start - _INSTANT)
        if self.end is not None:
            upto = min(upto, self.end)
        return times.count(self.when, self.zone, self.meaning, after, upto)

    def due(self, at: datetime) -> datetime:
        """Return when the tick of a nominal time may be decided: not before, for its jitter."""
        if not self.jitter:
            return at
        # Never as late as the next time, so that ticks are due in the order of their times: where
        # the clocks go forward two of them may be nearer to each other than on other days.
        jitter = min(self.jitter, self._period(at) or self.jitter)
        digest = combine("jitter", self.name.encode(), b"\0", at.isoformat().encode())
        return at + jitter * (int.from_bytes(digest[:4], "big") / 2**32)

    def grace_of(self, at: datetime) -> timedelta:
        """Return how much later than due the tick of a nominal time is still on time."""
        if self.grace is not None:
            return self.grace
        return min(self._period(at) or LONGEST_DEFAULT_GRACE, LONGEST_DEFAULT_GRACE)

    def nominal(self, at: datetime) -> NominalTime:
        """Return a nominal time as people and inputs need it."""
        return NominalTime(
            at=at,
            local=at.astimezone(self.zone),
            due=self.due(at),
            # Not before(): what lies before the schedule's start belongs to its first interval.
            interval_start=times.before(self.when, self.zone, self.meaning, at),
            text=rendered(at, self.zone),
            remark=self.remark(at),
        )

    def upcoming(self, instant: datetime, n: int) -> tuple[NominalTime, ...]:
        """Return the next ``n`` nominal times later than ``instant``."""
        return tuple(self.nominal(at) for at in islice(self.after(instant), n))

    def run_id(self, at: datetime) -> str:
        """Return the id of the run of a nominal time: the same whoever asks, and whenever."""
        return f"{self.name}-{stamp(at)}"

    def to_json(self) -> bytes:
        """Return the schedule as JSON, equal for equal schedules."""
        return msgspec.json.encode(self)

    @staticmethod
    def from_json(data: bytes | str) -> Schedule:
        """Return the schedule that ``to_json`` wrote.

        Raises:
            ScheduleError: it is not one.
        """
        try:
            return msgspec.json.decode(data, type=Schedule)
        except msgspec.DecodeError as error:
            raise ScheduleError(f"a stored schedule cannot be read: {error}") from error

    def remark(self, at: datetime) -> str:
        """Return what the clocks did to a nominal time, if anything."""
        if isinstance(self.when, Interval | At):
            return ""
        wall = wall_of(at, self.zone)
        if wall.time() not in self.when.times:
            return "moved to where the clocks went forward: its wall time did not exist"
        both = instants(wall, self.zone, Dst(fold=Fold.BOTH))
        if len(both) == 2:
            which = "first" if at == both[0] else "second"
            return f"the {which} of two {wall:%H:%M}, as the clocks went back"
        return ""

    def _period(self, at: datetime) -> timedelta | None:
        following = next(times.after(self.when, self.zone, self.meaning, at), None)
        return None if following is None else following - at


def stamp(at: datetime) -> str:
    """Return an instant in UTC as ids have it: ``20260105T010000Z``."""
    micro = f".{at.microsecond:06}" if at.microsecond else ""
    return f"{at:%Y%m%dT%H%M%S}{micro}Z"


def nominal_of(name: str, run_id: str) -> datetime | None:
    """Return the time that a run of a schedule is for, by its id; None if the id says none."""
    found = _STAMP.match(run_id.removeprefix(f"{name}-").removeprefix("manual-"))
    if found is None:
        return None
    whole, micro = found.groups()
    at = datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return at.replace(microsecond=int(micro or 0))


def _check(schedule: Schedule) -> None:
    if not is_name(schedule.name):
        raise ScheduleError(NAME_RULE)
    key = schedule.concurrency
    if key is not None and not (key.isprintable() and key.strip() == key and 0 < len(key) <= 100):
        raise ScheduleError(
            f"concurrency={key!r:.120}: write a word of up to 100 characters that names what its "
            "runs have in common, such as 'warehouse'"
        )
    zone(schedule.tz)
    _check_bounds(schedule)
    _check_delays(schedule)
    _check_catchup(schedule)
    if schedule.dst is not None and isinstance(schedule.when, Interval | At):
        raise ScheduleError(
            f"dst= says nothing about {schedule.when}, which is not read from a clock on the "
            "wall: leave it out, or write cron= or calendar="
        )


def _check_bounds(schedule: Schedule) -> None:
    start, end = schedule.start, schedule.end
    if start and end and end < start:
        raise ScheduleError(f"end={end.isoformat()} is before start={start.isoformat()}: swap them")
    if schedule.max_runs is not None and schedule.max_runs < 1:
        raise ScheduleError(
            f"max_runs={schedule.max_runs} never runs: write at least 1, or leave it out"
        )
    is_empty = end is not None and schedule.before(end + _INSTANT) is None
    if is_empty or (isinstance(schedule.when, At) and schedule.next(_LONG_AGO) is None):
        raise ScheduleError("no time of it lies within start= and end=: move one of them")


def _check_delays(schedule: Schedule) -> None:
    if schedule.grace is not None and schedule.grace <= timedelta(0):
        raise ScheduleError(
            "grace=0s misses every tick: write a duration such as '5m', or leave it out for one "
            "period and at most 1h"
        )
    if schedule.jitter < timedelta(0):
        raise ScheduleError("jitter is negative: write a duration such as '30s'")
    period = times.shortest_period(schedule.when) if schedule.jitter else None
    if period is not None and schedule.jitter >= period:
        raise ScheduleError(
            f"jitter={text_of(schedule.jitter)!r} is not shorter than the time between two ticks, "
            f"{text_of(period)}: write a shorter one"
        )


def _check_catchup(schedule: Schedule) -> None:
    if not isinstance(schedule.catchup, CatchupAll) or schedule.catchup.max == 1:
        return
    n = schedule.catchup.max
    overlap = schedule.overlap
    drops = isinstance(overlap, Skip | CancelRunning) or (
        isinstance(overlap, Queue | Allow) and overlap.max < n - isinstance(overlap, Queue)
    )
    if drops:
        raise ScheduleError(
            f"catchup='{schedule.catchup}' fires up to {n} ticks at once, of which "
            f"overlap='{overlap}' would drop some: write overlap='queue_all(max={n})', or "
            "catchup='latest'"
        )
