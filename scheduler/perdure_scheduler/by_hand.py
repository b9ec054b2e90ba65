"""Runs that somebody asks a schedule for: now, of a day, of all times that had none.

Policies have no say in them: they wait for no run, no tick waits for them, and their failures pause
nothing (``RunRecord.by_hand``). A run of a nominal time has the id that its tick gives it, so that
neither doubles the other, and to ask again makes nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import takewhile

import msgspec

from perdure_scheduler.decide import (
    Outcome,
    Runs,
    ScheduleState,
    TickDecision,
    Verdict,
    Why,
    outcome_of,
)
from perdure_scheduler.definition import Definition
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.registry import Registry
from perdure_scheduler.schedule import Schedule, stamp
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunId, RunRecord
from perdure_storage.schedule_records import TickQuery, TickRecord

MOST = 100_000
"""Times of one backfill: more of them are a mistake in its bounds."""
_PAGE = 500
_replace = msgspec.structs.replace


class Reprocess(StrEnum):
    """Which times of a backfill get another run though they had one."""

    NONE = "none"
    FAILED = "failed"
    ALL = "all"


def reprocess_of(value: Reprocess | str) -> Reprocess:
    """Return which times get another run, from its text.

    Raises:
        ScheduleError: it is none.
    """
    try:
        return Reprocess(value)
    except ValueError:
        raise ScheduleError(f"reprocess={value!r}: write {' | '.join(Reprocess)}") from None


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A nominal time of a backfill, and what becomes of it.

    Attributes:
        at: the nominal time, in UTC.
        run_id: the run that is made for it, or the one that it has.
        is_made: whether that run is to be made.
        reason: why it is, or is not.
        goes_on: whether the run that it has is not over.
    """

    at: datetime
    run_id: str
    is_made: bool
    reason: str
    goes_on: bool = False


# --- pure -----------------------------------------------------------------------------------------
def triggered(schedule: Schedule, now: datetime) -> TickDecision:
    """Return the decision of a run whose time is now, whenever the schedule is due.

    Its row in the ledger takes no tick's place, also if one is due at this very instant.
    """
    is_taken = schedule.next(now - datetime.resolution) == now
    at = now + datetime.resolution if is_taken else now
    return fired(at, f"{schedule.name}-manual-{stamp(at)}", Why.TRIGGERED, "by hand")


def fired(at: datetime, run_id: str, why: Why, reason: str) -> TickDecision:
    """Return the decision that makes a run."""
    return TickDecision(verdict=Verdict.FIRE, why=why, reason=reason, at=at, last=at, run_id=run_id)


def beside(schedule: Schedule, state: ScheduleState, decision: TickDecision) -> Outcome:
    """Return what is to be written: the schedule stays where it is."""
    return _replace(outcome_of(schedule, state), decisions=(decision,))


def wish_for(
    schedule: Schedule,
    at: datetime,
    runs: Sequence[RunRecord],
    *,
    noted: str | None,
    reprocess: Reprocess,
    backfill: str,
) -> Wish:
    """Return what becomes of a nominal time in a backfill.

    Args:
        schedule: the schedule.
        at: the nominal time.
        runs: those of this time that are there, the newest last.
        noted: the run that the ledger names; it may be deleted.
        reprocess: whether a run that is over is followed by another one.
        backfill: names the backfill; what it has made it does not make again.
    """
    run_id = schedule.run_id(at)
    if not runs:
        if noted is None:
            return Wish(at=at, run_id=run_id, is_made=True, reason="it had no run")
        if reprocess is not Reprocess.ALL:
            return Wish(at=at, run_id=noted, is_made=False, reason=f"{noted} was deleted")
        again = again_id(run_id, backfill)
        return Wish(at=at, run_id=again, is_made=True, reason=f"again: {noted} was deleted")
    newest = runs[-1]
    again, status = again_id(run_id, backfill), newest.status
    told = f"{newest.id} is {status}"
    is_wanted = reprocess is Reprocess.ALL or (
        reprocess is Reprocess.FAILED and status is RunStatus.FAILED
    )
    if status in RUN_LIVE or not is_wanted or newest.id == again:
        goes_on = status in RUN_LIVE
        return Wish(at=at, run_id=newest.id, is_made=False, reason=told, goes_on=goes_on)
    return Wish(at=at, run_id=again, is_made=True, reason=f"again: {told}")


def made_by_others(wish: Wish) -> Wish:
    """Return what became of a wish whose run somebody else made since it was looked for."""
    reason = f"{wish.run_id} was made by somebody else meanwhile"
    return _replace(wish, is_made=False, reason=reason, goes_on=True)


def again_id(run_id: str, backfill: str) -> str:
    """Return the id of the run that a backfill makes for a time that has one."""
    return f"{run_id}-again-{backfill}"


def parted(schedule: Schedule, row: TickRecord, at: datetime) -> tuple[TickRecord, ...]:
    """Return what is left of a row of ticks when one within it gets a row of its own."""
    if row.last is None or not row.at <= at <= row.last:
        return ()
    before, following = schedule.before(at), schedule.next(at)
    spans = []
    if before is not None and before >= row.at:
        spans.append((row.at, before))
    if following is not None and following <= row.last:
        spans.append((following, row.last))
    return tuple(
        _replace(
            row,
            at=first,
            last=last if last != first else None,
            count=1 + schedule.count(first, last),
        )
        for first, last in spans
    )


def times_within(schedule: Schedule, first: datetime, last: datetime) -> tuple[datetime, ...]:
    """Return the nominal times of a backfill, both bounds included.

    Raises:
        ScheduleError: there is none, or there are too many, or the bounds are the wrong way round.
    """
    if first > last:
        begin, end = (schedule.nominal(each).text for each in (first, last))
        raise ScheduleError(
            f"{schedule.name}: {begin} is later than {end}, where the times end: a backfill is of "
            "the past, up to now"
        )
    since = first - datetime.resolution
    number = schedule.count(since, last)
    if number > MOST:
        raise ScheduleError(
            f"{schedule.name} has {number:,} times in there, more than {MOST:,}: move a bound"
        )
    if number == 0:
        near = [schedule.before(first), schedule.next(last)]
        shown = " and ".join(schedule.nominal(each).text for each in near if each is not None)
        nearest = f": the nearest are {shown}" if shown else ""
        raise ScheduleError(f"{schedule.name} has no time in there{nearest}")
    return tuple(schedule.between(since, last))


# --- over a store ---------------------------------------------------------------------------------
class ByHand:
    """The verbs.

    Args:
        store: runs and schedules.
        registry: how a schedule is changed.
    """

    def __init__(self, store: RunStore, registry: Registry) -> None:
        self._store = store
        self._schedules = store.schedules
        self._registry = registry

    def trigger(self, name: str) -> RunId:
        """Make a run whose time is now, and return its id."""
        made: list[str] = []

        def step(
            definition: Definition, state: ScheduleState, now: datetime, runs: Runs
        ) -> Outcome:
            decision = triggered(definition.schedule, now)
            made[:] = [decision.run_id or ""]
            return beside(definition.schedule, state, decision)

        self._registry.change(name, step)
        return RunId(made[0])

    def wishes(
        self,
        schedule: Schedule,
        times: Sequence[datetime],
        reprocess: Reprocess,
        backfill: str,
    ) -> list[Wish]:
        """Return what becomes of each of the times, in their order; makes nothing."""
        noted = self._noted(schedule.name, times[0], times[-1])
        return [
            wish_for(
                schedule,
                at,
                self._runs_of(schedule.run_id(at), noted.get(at), backfill),
                noted=noted.get(at),
                reprocess=reprocess,
                backfill=backfill,
            )
            for at in times
        ]

    def grant(self, name: str, wish: Wish, why: Why) -> bool:
        """Make the run of a wish; return whether it was made here, and not there before."""
        decision = fired(wish.at, wish.run_id, why, wish.reason)
        is_ours = False

        def step(
            definition: Definition, state: ScheduleState, now: datetime, runs: Runs
        ) -> Outcome:
            # Asked again where others were first: they may have been here for the same run.
            nonlocal is_ours
            is_ours = self._store.find_run(RunId(wish.run_id)) is None
            outcome = beside(definition.schedule, state, decision)
            return outcome if is_ours else _replace(outcome, decisions=())

        self._registry.change(
            name, step, rewrite=lambda definition: self._parted(definition.schedule, wish.at)
        )
        return is_ours and self._store.find_run(RunId(wish.run_id)) is not None

    def _noted(self, name: str, first: datetime, last: datetime) -> dict[datetime, str]:
        rows = self._rows_before(name, last + datetime.resolution)
        named = takewhile(lambda row: row.at >= first, rows)
        return {row.at: row.run_id for row in named if row.run_id is not None}

    def _runs_of(self, run_id: str, noted: str | None, backfill: str) -> list[RunRecord]:
        ids = dict.fromkeys(filter(None, (run_id, noted, again_id(run_id, backfill))))
        found = (self._store.find_run(RunId(each)) for each in ids)
        return [each for each in found if each is not None]

    def _parted(self, schedule: Schedule, at: datetime) -> tuple[TickRecord, ...]:
        """Return what is left of the row of ticks that a time is in, if it is in one."""
        for row in self._rows_before(schedule.name, at + datetime.resolution):
            if row.why != Why.TRIGGERED:  # it stands between the times of the schedule
                return parted(schedule, row, at)
        return ()

    def _rows_before(self, name: str, before: datetime) -> Iterator[TickRecord]:
        while True:
            page = self._schedules.list_ticks(TickQuery(schedule=name, before=before, limit=_PAGE))
            yield from page
            if len(page) < _PAGE:
                return
            before = page[-1].at
