"""What becomes of the ticks of a schedule: a function of the schedule, its state, time and runs.

The dispatcher calls ``decide`` and writes what it returns in one transaction, guarded by the state
that it read: the ticks with decision and reason, the runs of those that fire, the new state. Ticks
are decided in the order of their nominal times and ``decided_through`` only grows, so a clock that
jumps, in whatever direction, doubles none: a tick that was decided early or late is not decided
again when its time comes once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from perdure_scheduler.durations import text_of
from perdure_scheduler.policies import (
    Allow,
    CancelRunning,
    CatchupAll,
    CatchupLatest,
    PauseAfter,
    Queue,
    QueueAll,
    Skip,
)
from perdure_scheduler.registered import Pause
from perdure_scheduler.schedule import LONGEST_DEFAULT_GRACE, Schedule
from perdure_scheduler.zones import rendered
from perdure_storage.durations import LONGEST

_INSTANT = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


class Verdict(StrEnum):
    """What becomes of a tick. All but ``DEFER`` are final."""

    FIRE = "fire"  # its run is created
    SKIP = "skip"  # by a policy or a person, though it was decided in time
    MISS = "miss"  # nobody decided it in time
    DEFER = "defer"  # not yet: it waits


class Why(StrEnum):
    """The reason for a verdict, for programs; ``TickDecision.reason`` is for people."""

    ON_TIME = "on time"
    CAUGHT_UP = "caught up"
    TURN_CAME = "turn came"  # it waited, and nothing goes on any more
    OVERLAP = "overlap"
    QUEUE_FULL = "queue full"
    REPLACED = "replaced"  # a newer tick took its place
    PAUSED = "paused"
    CHANGED = "changed"  # the schedule has no such time any more
    LATE = "late"
    SUPERSEDED = "superseded"  # late, and a newer tick fires
    WAITS = "waits"
    TRIGGERED = "triggered"  # by hand, at a time that is none of the schedule's
    BY_HAND = "by hand"
    BACKFILL = "backfill"


ASKED_FOR = frozenset({Why.TRIGGERED, Why.BY_HAND, Why.BACKFILL})
"""Why runs are made that policies leave out."""


class TickDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one tick, or of a row of ticks that share it.

    Attributes:
        verdict, why: what, and the reason for programs.
        reason: the reason for people.
        at: the nominal time in UTC, of the first if there are several.
        last: that of the last.
        count: how many ticks of the schedule lie within ``at`` and ``last``, both included.
        run_id: the run to create, if it fires.
        cancels: runs that are to be cancelled for it.
    """

    verdict: Verdict
    why: Why
    reason: str
    at: datetime
    last: datetime
    count: int = 1
    run_id: str | None = None
    cancels: tuple[str, ...] = ()


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a schedule has come.

    Attributes:
        decided_through: each nominal time up to here, included, has its decision, but for those in
            ``waiting``. Never goes back.
        waiting: nominal times of deferred ticks, the next first.
        fired: how many ticks have fired.
        held: the nominal time at which the schedule stands still, as its queue is full.
        paused: since when and why, if it is.
        resumed_at: when it was resumed last; failures before that do not count.
        ended: why no tick will come any more, if so.
    """

    decided_through: datetime
    waiting: tuple[datetime, ...] = ()
    fired: int = 0
    held: datetime | None = None
    paused: Pause | None = None
    resumed_at: datetime | None = None
    ended: str = ""


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """Another schedule of the same concurrency key, whose tick waits since this nominal time."""

    since: datetime
    schedule: str


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of the runs that a schedule counts. None is by hand.

    Attributes:
        live: ids of those that are not terminal, the oldest first; with a concurrency key those of
            all schedules that have it.
        of_others: of ``live``, those of other schedules, each with the name of its own.
        failed_in_a_row: how many of its own failed since the last that succeeded, or since
            ``ScheduleState.resumed_at``.
        ahead: who of the others has waited longest; ticks of later times wait behind it.
    """

    live: tuple[str, ...] = ()
    of_others: Mapping[str, str] = {}
    failed_in_a_row: int = 0
    ahead: Ahead | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written, together, and when to ask again.

    Attributes:
        decisions: in the order in which they were taken; of two for one tick the later one stands.
        state: the new state.
        wake_at: the time at which the next decision is due, if time alone brings one. While ticks
            wait or the schedule is held, the end of a run brings one too.
    """

    decisions: tuple[TickDecision, ...]
    state: ScheduleState
    wake_at: datetime | None


def registered(schedule: Schedule, now: datetime) -> ScheduleState:
    """Return the state of a schedule that is registered for the first time: its ticks begin now."""
    return _closed(schedule, ScheduleState(decided_through=now))


def outcome_of(schedule: Schedule, state: ScheduleState) -> Outcome:
    """Return a state of which nothing is to be decided now, as it is to be written."""
    return Outcome(decisions=(), state=state, wake_at=_wake_at(schedule, state))


def decide(schedule: Schedule, state: ScheduleState, now: datetime, runs: Runs) -> Outcome:
    """Decide all ticks that are due.

    Calling it twice at one time decides nothing the second time.

    Args:
        schedule: the schedule.
        state: as it was read.
        now: the time, in UTC; may be earlier than in an earlier call.
        runs: those of this schedule, read in the transaction that writes the outcome.
    """
    before = state
    state = _paused_by_failures(schedule, state, now, runs)
    deciding = _Deciding(schedule, state, now, runs)
    if state.paused is not None:
        if before.paused is None:
            deciding.put_off(state.paused)
        deciding.skip_all_due(state.paused)
    else:
        deciding.start_waiting()
        deciding.decide_due()
    return deciding.outcome()


def pause(state: ScheduleState, now: datetime, reason: str) -> ScheduleState:
    """Return the state of a schedule that is paused; one that is paused stays so for its reason."""
    if state.paused is not None:
        return state
    return msgspec.structs.replace(state, paused=Pause(since=now, reason=reason))


def put_off(
    schedule: Schedule, state: ScheduleState, now: datetime, runs: Runs
) -> tuple[TickDecision, ...]:
    """Return what is told of the ticks that wait in a schedule that has just been paused."""
    deciding = _Deciding(schedule, state, now, runs)
    if state.paused is not None:
        deciding.put_off(state.paused)
    return deciding.outcome().decisions


def resume(schedule: Schedule, state: ScheduleState, now: datetime, runs: Runs) -> Outcome:
    """Let a paused schedule go on from now: what was due meanwhile was skipped, and not missed."""
    if state.paused is None:
        return decide(schedule, state, now, runs)
    settled = decide(schedule, state, now, runs)
    resumed = msgspec.structs.replace(settled.state, paused=None, resumed_at=now)
    ahead = decide(schedule, resumed, now, msgspec.structs.replace(runs, failed_in_a_row=0))
    return msgspec.structs.replace(ahead, decisions=settled.decisions + ahead.decisions)


def register_again(
    old: Schedule, new: Schedule, state: ScheduleState, now: datetime, runs: Runs
) -> Outcome:
    """Take over a changed schedule of the same name.

    What was due by now is decided as the old one has it, what comes after as the new one has it.
    Nothing that was decided is decided again, and times that both have stay where they are.
    """
    settled = decide(old, state, now, runs)
    state, told = settled.state, settled.decisions
    if not _has_times_of(old, new):
        state, dropped = _moved_to_now(old, new, state, now)
        told += dropped
    state = _closed(new, state)
    return Outcome(decisions=told, state=state, wake_at=_wake_at(new, state))


def standing(schedule: Schedule, state: ScheduleState, now: datetime) -> str:
    """Return how a schedule stands, for people: what comes next, or why nothing does."""
    if state.paused is not None:
        since = rendered(state.paused.since, schedule.zone)
        return f"paused since {since}: {state.paused.reason}"
    waits = f"{len(state.waiting)} waiting for a run to end; " if state.waiting else ""
    if state.held is not None:
        return f"{waits}queue full: stands still at {rendered(state.held, schedule.zone)}"
    if state.ended:
        return f"{waits}ended: {state.ended}"
    at = schedule.next(state.decided_through)
    if at is None:
        return f"{waits}ended: no time is left"
    upcoming = schedule.next(now)
    behind = (
        f"; ticks up to {rendered(state.decided_through, schedule.zone)} are decided already: the "
        "clock went back, and none of them is decided twice"
        if upcoming is not None and upcoming <= state.decided_through
        else ""
    )
    return f"{waits}next {rendered(at, schedule.zone)}{behind}"


def _has_times_of(old: Schedule, new: Schedule) -> bool:
    return (old.when, old.tz, old.meaning, old.start, old.end) == (
        (new.when, new.tz, new.meaning, new.start, new.end)
    )


def _moved_to_now(
    old: Schedule, new: Schedule, state: ScheduleState, now: datetime
) -> tuple[ScheduleState, tuple[TickDecision, ...]]:
    """Return the state from which other times are followed, and what became of open ticks.

    Open are those that a full queue holds back, or one whose jitter has not run out.
    """
    first = old.next(state.decided_through)
    if first is None or first > now:
        through = max(state.decided_through, now)
        return msgspec.structs.replace(state, decided_through=through), ()
    if state.held is None and new.next(first - _INSTANT) == first:
        return msgspec.structs.replace(state, decided_through=first - _INSTANT), ()
    dropped = TickDecision(
        verdict=Verdict.SKIP,
        why=Why.CHANGED,
        reason="the schedule was changed before its turn came",
        at=first,
        last=old.before(now + _INSTANT) or first,
        count=old.count(state.decided_through, now),
    )
    return msgspec.structs.replace(state, decided_through=now, held=None), (dropped,)


class _Deciding:
    """One call of ``decide`` in the making."""

    def __init__(self, schedule: Schedule, state: ScheduleState, now: datetime, runs: Runs) -> None:
        self._schedule = schedule
        self._state = state
        self._now = now
        self._runs = runs
        self._live = list(runs.live)
        self._through = state.decided_through
        self._waiting = list(state.waiting)
        self._fired = state.fired
        self._held: datetime | None = None
        self._decisions: list[TickDecision] = []

    def outcome(self) -> Outcome:
        state = msgspec.structs.replace(
            self._state,
            decided_through=self._through,
            waiting=tuple(self._waiting),
            fired=self._fired,
            held=self._held,
        )
        state = _closed(self._schedule, state)
        return Outcome(
            decisions=tuple(self._decisions), state=state, wake_at=_wake_at(self._schedule, state)
        )

    def skip_all_due(self, paused: Pause) -> None:
        newest = self._newest_due()
        if newest is not None:
            reason = f"paused since {self._shown(paused.since)}: {paused.reason}"
            self._tell_row(Verdict.SKIP, Why.PAUSED, reason, newest)

    def put_off(self, paused: Pause) -> None:
        """Tell of what waits that it is no longer a run for which it does."""
        for at in self._waiting:
            reason = (
                f"the schedule was paused while this waited for its turn ({paused.reason}): it "
                "fires when the schedule goes on and no run does"
            )
            self._tell(Verdict.DEFER, Why.PAUSED, reason, at)

    def start_waiting(self) -> None:
        while self._waiting and self._has_room(self._waiting[0]):
            at = self._waiting.pop(0)
            self._fire(at, Why.TURN_CAME, f"waited {_span(self._now - at)} for its turn")

    def decide_due(self) -> None:
        if self._is_spent():
            return
        for at, why, reason in self._due():
            if not self._admit(at, why, reason):
                return

    # What is due

    def _due(self) -> Iterator[tuple[datetime, Why, str]]:
        """Yield the ticks that may fire, in order, with why and the reason for people."""
        if self._state.held is not None:
            # It stood still for its own queue: nothing of what came due meanwhile is late.
            for at in self._schedule.between(self._through, self._now):
                if self._schedule.due(at) <= self._now:
                    yield at, Why.ON_TIME, "on time"
            return
        on_time = self._on_time()
        for at in self._settle_late(on_time):
            late = _span(self._now - self._schedule.due(at))
            yield at, Why.CAUGHT_UP, f"{late} late: catchup={self._schedule.catchup}"
        for at in on_time:
            yield at, Why.ON_TIME, "on time"

    def _newest_due(self) -> datetime | None:
        """Return the last nominal time that is due, or one that is decided if none is."""
        at = self._schedule.before(self._now + _INSTANT)
        while at is not None and at > self._through and self._schedule.due(at) > self._now:
            at = self._schedule.before(at)
        return at

    def _on_time(self) -> list[datetime]:
        """Return the ticks that are due and within their grace, in order."""
        longest = min(self._schedule.grace or LONGEST_DEFAULT_GRACE, LONGEST)
        since = max(self._through, self._now - longest - self._schedule.jitter - _INSTANT)
        on_time: list[datetime] = []
        for at in self._schedule.between(since, self._now):
            late = self._now - self._schedule.due(at)
            if late < timedelta(0):
                break
            on_time.append(at)
            if late >= self._schedule.grace_of(at):
                on_time.clear()  # what is older than a late one is late, however long its period
        return on_time

    def _settle_late(self, on_time: list[datetime]) -> list[datetime]:
        """Miss the ticks that are past their grace, but for those to catch up, which it returns."""
        newest = self._schedule.before(on_time[0]) if on_time else self._newest_due()
        if newest is None or newest <= self._through:
            return []
        caught = self._to_catch_up(newest, superseded=bool(on_time))
        missed = self._schedule.before(caught[0]) if caught else newest
        if missed is not None and missed > self._through:
            fires = bool(caught or on_time)
            self._tell_row(
                Verdict.MISS,
                Why.SUPERSEDED if fires else Why.LATE,
                f"nobody decided it in time, catchup={self._schedule.catchup}"
                + (": a newer one is due" if fires else ""),
                missed,
            )
        return caught

    def _to_catch_up(self, newest: datetime, *, superseded: bool) -> list[datetime]:
        """Return which late ticks fire, the oldest first."""
        policy = self._schedule.catchup
        if isinstance(policy, CatchupLatest):
            return [] if superseded else [newest]
        if not isinstance(policy, CatchupAll):
            return []
        # Stores hold longer windows, and longer graces, from before those were refused.
        window = None if policy.window is None else min(policy.window, LONGEST)
        oldest = self._through if window is None else self._now - window
        caught: list[datetime] = []
        at: datetime | None = newest
        while at is not None and at > self._through and at >= oldest and len(caught) < policy.max:
            caught.append(at)
            at = self._schedule.before(at)
        return caught[::-1]

    # What becomes of it

    def _admit(self, at: datetime, why: Why, reason: str) -> bool:
        """Fire a tick or do with it what the overlap policy says; False stops at this tick."""
        if self._is_spent():
            return False
        overlap = self._schedule.overlap
        if self._has_room(at):
            self._fire(at, why, reason)
        elif isinstance(overlap, Skip | Allow):
            self._skip(at, Why.OVERLAP, f"{self._in_the_way()}: overlap={overlap}")
        elif isinstance(overlap, CancelRunning):
            self._replace_waiting(at)
        elif len(self._waiting) < overlap.max:
            self._defer(at, f"waits for its turn: {self._in_the_way()}")
        elif isinstance(overlap, Queue):
            self._skip(
                at,
                Why.QUEUE_FULL,
                f"{self._in_the_way()}, and {len(self._waiting)} wait: overlap={overlap}",
            )
        else:
            self._hold(at, overlap)
            return False
        self._through = at
        return True

    def _has_room(self, at: datetime) -> bool:
        ahead = self._runs.ahead
        is_behind = ahead is not None and (
            (ahead.since, ahead.schedule) < (at, self._schedule.name)
        )
        return not self._is_full() and not is_behind

    def _is_full(self) -> bool:
        overlap = self._schedule.overlap
        return len(self._live) >= (overlap.max if isinstance(overlap, Allow) else 1)

    def _is_spent(self) -> bool:
        return _is_spent(self._schedule, self._fired + len(self._waiting))

    def _fire(self, at: datetime, why: Why, reason: str) -> None:
        run_id = self._schedule.run_id(at)
        remark = self._schedule.remark(at)
        self._tell(
            Verdict.FIRE, why, f"{reason}; {remark}" if remark else reason, at, run_id=run_id
        )
        self._live.append(run_id)
        self._fired += 1

    def _skip(self, at: datetime, why: Why, reason: str) -> None:
        """Skip a tick; a row of them that are skipped for one reason is one decision."""
        before = self._decisions[-1] if self._decisions else None
        if before and (before.verdict, before.why, before.reason) == (Verdict.SKIP, why, reason):
            self._decisions[-1] = msgspec.structs.replace(before, last=at, count=before.count + 1)
        else:
            self._tell(Verdict.SKIP, why, reason, at)

    def _defer(self, at: datetime, reason: str, cancels: tuple[str, ...] = ()) -> None:
        self._waiting.append(at)
        self._tell(Verdict.DEFER, Why.WAITS, reason, at, cancels=cancels)

    def _replace_waiting(self, at: datetime) -> None:
        for older in self._waiting:
            self._tell(Verdict.SKIP, Why.REPLACED, f"{self._shown(at)} took its place", older)
        self._waiting.clear()
        if not self._live:
            self._defer(at, f"waits for its turn: {self._in_the_way()}")
            return
        gone = "it is" if len(self._live) == 1 else "they are"
        named = ", ".join(map(self._named, self._live))
        self._defer(at, f"cancels {named} and starts when {gone} gone", tuple(self._live))

    def _hold(self, at: datetime, overlap: QueueAll) -> None:
        self._held = at
        if self._state.held != at:
            reason = f"{len(self._waiting)} wait already: the schedule stands still ({overlap})"
            self._tell(Verdict.DEFER, Why.QUEUE_FULL, reason, at)

    # What is told

    def _tell(
        self,
        verdict: Verdict,
        why: Why,
        reason: str,
        at: datetime,
        *,
        run_id: str | None = None,
        cancels: tuple[str, ...] = (),
    ) -> None:
        self._decisions.append(
            TickDecision(
                verdict=verdict,
                why=why,
                reason=reason,
                at=at,
                last=at,
                run_id=run_id,
                cancels=cancels,
            )
        )

    def _tell_row(self, verdict: Verdict, why: Why, reason: str, last: datetime) -> None:
        """Decide all ticks from where it stands up to ``last`` at once."""
        first = self._schedule.next(self._through)
        if first is None or first > last:
            return
        count = self._schedule.count(self._through, last)
        self._decisions.append(
            TickDecision(verdict=verdict, why=why, reason=reason, at=first, last=last, count=count)
        )
        self._through = last

    def _in_the_way(self) -> str:
        """Say why a tick has no room: runs that go on, or who has waited longer."""
        ahead = self._runs.ahead
        if ahead is not None and not self._is_full():
            return f"schedule {ahead.schedule} has waited since {self._shown(ahead.since)}"
        more = len(self._live) - 1
        return f"{self._named(self._live[0])} goes on" + (f" with {more} more" if more else "")

    def _named(self, run_id: str) -> str:
        other = self._runs.of_others.get(run_id)
        return run_id if other is None else f"{run_id} of schedule {other}"

    def _shown(self, at: datetime) -> str:
        return rendered(at, self._schedule.zone)


def _paused_by_failures(
    schedule: Schedule, state: ScheduleState, now: datetime, runs: Runs
) -> ScheduleState:
    policy = schedule.on_failure
    if isinstance(policy, PauseAfter) and runs.failed_in_a_row >= policy.runs:
        return pause(state, now, f"{runs.failed_in_a_row} runs in a row failed")
    return state


def _is_spent(schedule: Schedule, taken: int) -> bool:
    return schedule.max_runs is not None and taken >= schedule.max_runs


def _closed(schedule: Schedule, state: ScheduleState) -> ScheduleState:
    """Return the state with the reason why it has ended, once it has."""
    ended = ""
    if _is_spent(schedule, state.fired + len(state.waiting)):
        ended = f"max_runs={schedule.max_runs} is reached"
    elif schedule.next(state.decided_through) is None:
        ended = "no time is left"
    return msgspec.structs.replace(state, ended=ended)


def _wake_at(schedule: Schedule, state: ScheduleState) -> datetime | None:
    if state.ended or state.paused is not None or state.held is not None:
        return None
    at = schedule.next(state.decided_through)
    return None if at is None else schedule.due(at)


def _span(length: timedelta) -> str:
    """Return a duration to the second, for people; the clock may have gone back meanwhile."""
    return text_of(max(length, timedelta(0)) // _SECOND * _SECOND)
