"""Where a run's steps stand, kept up to date by the facts that the engine makes durable.

The facts are those of ``RunCommit``: whoever drives the run has them at hand, and whoever looks
at it from elsewhere makes them of the store's rows. Facts may come twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from heapq import nsmallest

import msgspec

from perdure.engine.matching import match_name
from perdure.plan import Plan, decode_plan
from perdure.progress.causes import is_choice
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ExpansionRecord,
    Progress,
    RunCommit,
    RunId,
    StepId,
    StepKey,
    StepRecord,
    WaitRecord,
)

RATE_OVER_S = 10.0
"""The rate is that of the last seconds: what is fast now may have been slow an hour ago."""
_RATE_AFTER_S = 2.0
_RATE_AFTER_STEPS = 3
_ETA_AFTER_STEPS = 10
_SLOWEST = 5
_WAITS = 3
DONE = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


class Running(msgspec.Struct, frozen=True, gc=False):
    """An attempt in flight. There may be thousands, of plain data: nothing for the collector."""

    step_id: StepId
    generation: int
    attempt: int
    since: datetime


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What a board did not know yet.

    Attributes:
        committed: rows of steps that ended.
        ended: attempts that ended without being the last of their step.
        waits: what steps have begun to wait for.
    """

    committed: list[StepRecord]
    ended: list[AttemptRecord]
    waits: list[WaitRecord] = []


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment, as people want to know it.

    Attributes:
        done: steps that are committed, or skipped.
        before: those of them that were done when the board was made.
        reused: those that were taken over since, without running.
        skipped: those that were found since not to be wanted: branches that were not chosen.
        unneeded: steps that were ended since, or never begun, because others sufficed.
        ran: those that ran since.
        waiting: steps that are neither done, running nor failed.
        asleep: how many of them wait for a time, a message or other steps.
        waits: what the first of these wait for, those that end soonest first.
        retries: attempts that failed or were lost since, and were or will be followed by another.
        retry_in_s: time until the next such step may start, or None.
        told: how far these say that they are, by step.
        slowest: the attempts that have been running for longest, longest first.
        rate: steps a second over the last seconds; None while it would say nothing.
        left_s: time that the rest takes at that rate; None while that would be a guess.
        elapsed_s: time since the board was made.
    """

    total: int
    done: int
    before: int
    reused: int
    skipped: int = 0
    unneeded: int = 0
    ran: int
    running: int
    failed: int
    waiting: int
    asleep: int = 0
    waits: tuple[WaitRecord, ...] = ()
    retries: int
    retry_in_s: float | None
    slowest: tuple[Running, ...]
    told: dict[StepId, Progress] = {}
    rate: float | None
    left_s: float | None
    elapsed_s: float
    at: datetime


class Board:
    """The steps of one run and where they stand. Mutable; used by one thread at a time.

    Args:
        plan: the run's plan.
        now: when looking began: rate and elapsed time count from here.
        is_serial: what is in flight runs one after the other (``inline``), ``async def`` apart.
    """

    def __init__(self, plan: Plan, now: datetime, *, is_serial: bool = False) -> None:
        self._planned = {step.id for step in plan.steps}
        self._grown: set[tuple[StepId, int, int]] = set()
        self.ended_as: RunStatus | None = None
        self.running: dict[StepId, Running] = {}
        self._far: dict[StepId, Progress] = {}
        self._since = now
        self._before = 0
        self._reused = 0
        self._skipped = 0
        self._ran = 0
        self._retries = 0
        self._waits: dict[StepId, WaitRecord] = {}
        # The generation that ended, by step id.
        self._told: dict[StepId, int] = {}
        self._done: dict[StepId, int] = {}
        self._failed: dict[StepId, int] = {}
        self._unneeded: dict[StepId, int] = {}
        self._stopped: set[tuple[str, int, int]] = set()
        self._retry_at: dict[StepId, datetime] = {}
        self._finishes: deque[datetime] = deque()
        self._last_finish = now
        self._unfinished = Counter(match_name(step) for step in plan.steps)
        self._known_names: set[str] = set()
        self._together = _may_run_together(plan) if is_serial else None

    def begin(
        self,
        rows: Iterable[StepRecord],
        attempts: Iterable[AttemptRecord],
        expansions: Iterable[ExpansionRecord] = (),
        waits: Iterable[WaitRecord] = (),
    ) -> None:
        """Take in what was there before; it counts as nothing that happened since."""
        self.apply(commit_of(rows, attempts, expansions, waits))
        self._before = self.done
        self._reused = self._skipped = self._ran = self._retries = 0
        self._finishes.clear()
        self._unneeded.clear()

    @property
    def done(self) -> int:
        """Return how many steps are committed or skipped."""
        return len(self._done)

    @property
    def failed(self) -> int:
        """Return how many steps have failed for good."""
        return len(self._failed)

    # --- facts ----------------------------------------------------------------------------------
    def apply(self, commit: RunCommit) -> News:
        """Take in what has been decided; return what of it was not known yet."""
        for key in (*commit.lost, *commit.superseded):
            self._reopen(key)
        for expansion in commit.expansions:
            self._grow(expansion)
        ended = []
        final = _last_tries(commit) if any(a.cause is not None for a in commit.attempts) else ()
        for attempt in commit.attempts:
            if attempt.cause is None:
                self._start(attempt)
            elif self._stop(attempt, final):
                ended.append(attempt)
        committed = [row for row in commit.steps if self._end(row)]
        waits = [wait for wait in commit.waits if self._begin_wait(wait)]
        if commit.end is not None:
            self.ended_as = commit.end.status
        return News(committed=committed, ended=ended, waits=waits)

    def _grow(self, expansion: ExpansionRecord) -> None:
        """Count the steps of a graph; the link of a chain that gave it never ends by itself."""
        key = (expansion.step_id, expansion.generation, expansion.link)
        if key in self._grown:
            return
        self._grown.add(key)
        plan = decode_plan(expansion.plan.body)
        if expansion.link:
            self._planned.discard(f"{expansion.step_id}~{expansion.link}")
        self._planned.update(step.id for step in plan.steps)
        self._unfinished.update(match_name(step) for step in plan.steps)
        if self._together is not None:
            self._together |= _may_run_together(plan)

    @property
    def total(self) -> int:
        """Return how many steps are known of; a graph may grow while it runs."""
        return len(self._planned)

    def _start(self, attempt: AttemptRecord) -> None:
        self._retry_at.pop(attempt.step_id, None)
        self.running[attempt.step_id] = Running(
            attempt.step_id,
            attempt.generation,
            attempt.attempt,
            attempt.started_at or self._since,
        )
        if attempt.progress is not None:
            self._far[attempt.step_id] = attempt.progress
        else:
            self._far.pop(attempt.step_id, None)

    def _stop(self, attempt: AttemptRecord, final: Collection[_Try]) -> bool:
        key = (attempt.step_id, attempt.generation, attempt.attempt)
        self.running.pop(attempt.step_id, None)
        if key in self._stopped or attempt.cause is Cause.SUCCEEDED or key in final:
            return False
        self._stopped.add(key)
        self._retries += _is_tried_again(attempt)
        if attempt.not_before is not None:
            self._retry_at[attempt.step_id] = attempt.not_before
        return True

    def _begin_wait(self, wait: WaitRecord) -> bool:
        known = self._waits.get(wait.step_id)
        is_over = self._told.get(wait.step_id, 0) >= wait.generation
        if is_over or (known is not None and known.generation >= wait.generation):
            return False
        self.running.pop(wait.step_id, None)
        self._waits[wait.step_id] = wait
        return True

    def _end(self, row: StepRecord) -> bool:
        step_id = row.step_id
        self.running.pop(step_id, None)
        self._waits.pop(step_id, None)
        if self._told.get(step_id, 0) >= row.generation:
            return False
        self._told[step_id] = row.generation
        self._retry_at.pop(step_id, None)
        self._failed.pop(step_id, None)  # its run was opened again
        if row.status in DONE:
            self._done[step_id] = row.generation
            self._note_done(row)
        elif row.status is StepStatus.FAILED:
            self._failed[step_id] = row.generation
        elif row.status is StepStatus.CANCELLED:
            self._unneeded[step_id] = row.generation
        return True

    def _note_done(self, row: StepRecord) -> None:
        self._unfinished[row.name] -= 1
        if not row.attempt:
            self._skipped += row.status is StepStatus.SKIPPED
            self._reused += row.status is not StepStatus.SKIPPED and not is_choice(row)
            return
        self._ran += 1
        self._known_names.add(row.name)
        self._last_finish = row.finished_at or self._last_finish
        self._finishes.append(self._last_finish)

    def _reopen(self, key: StepKey) -> None:
        for ended in (self._done, self._failed, self._unneeded):
            if ended.get(key.step_id) == key.generation:
                del ended[key.step_id]

    # --- a look ---------------------------------------------------------------------------------
    def look(self, now: datetime) -> Glance:
        """Return the state of things at ``now``."""
        running = self._in_flight()
        slowest = tuple(nsmallest(_SLOWEST, running, key=_age))
        rate = self._rate(now)
        return Glance(
            total=self.total,
            done=self.done,
            before=self._before,
            reused=self._reused,
            skipped=self._skipped,
            unneeded=len(self._unneeded),
            ran=self._ran,
            running=len(running),
            failed=self.failed,
            waiting=max(
                0, self.total - self.done - self.failed - len(self._unneeded) - len(running)
            ),
            asleep=len(self._waits),
            waits=tuple(nsmallest(_WAITS, self._waits.values(), key=_ends_at)),
            retries=self._retries,
            retry_in_s=self._retry_in_s(now),
            slowest=slowest,
            told={each.step_id: self._far[each.step_id] for each in slowest if self._tells(each)},
            rate=rate,
            left_s=self._left_s(rate),
            elapsed_s=max(0.0, (now - self._since).total_seconds()),
            at=now,
        )

    def _tells(self, attempt: Running) -> bool:
        return attempt.step_id in self._far

    def _in_flight(self) -> list[Running]:
        """Return what runs: of attempts that run one after the other, the first."""
        if self._together is None:
            return list(self.running.values())
        found = [each for each in self.running.values() if each.step_id in self._together]
        alone = (each for each in self.running.values() if each.step_id not in self._together)
        first = next(alone, None)
        if first is not None:
            # It has waited for the one before it; only then did it begin.
            since = max(first.since, self._last_finish)
            found.append(msgspec.structs.replace(first, since=since))
        return found

    def _rate(self, now: datetime) -> float | None:
        edge = now - timedelta(seconds=RATE_OVER_S)
        while self._finishes and self._finishes[0] < edge:
            self._finishes.popleft()
        window_s = min(RATE_OVER_S, (now - self._since).total_seconds())
        if window_s < _RATE_AFTER_S or len(self._finishes) < _RATE_AFTER_STEPS:
            return None
        return len(self._finishes) / window_s

    def _left_s(self, rate: float | None) -> float | None:
        """Return how long the rest takes, if it is made of what has been seen already."""
        if rate is None or self._ran < _ETA_AFTER_STEPS or self.failed:
            return None
        strange = sum(
            count
            for name, count in self._unfinished.items()
            if count > 0 and name not in self._known_names
        )
        left = self.total - self.done
        # The one step that gathers everything is no reason to say nothing.
        return left / rate if strange <= max(1, left // 20) else None

    def _retry_in_s(self, now: datetime) -> float | None:
        if not self._retry_at:
            return None
        return max(0.0, (min(self._retry_at.values()) - now).total_seconds())


def commit_of(
    rows: Iterable[StepRecord],
    attempts: Iterable[AttemptRecord],
    expansions: Iterable[ExpansionRecord] = (),
    waits: Iterable[WaitRecord] = (),
) -> RunCommit:
    """Return rows of the store as the commit that could have made them."""
    steps = tuple(rows)
    tries = tuple(attempts)
    run_id = (steps or tries)[0].run_id if steps or tries else RunId("")
    return RunCommit(
        run_id=run_id,
        owner="",
        epoch=0,
        steps=steps,
        attempts=tries,
        expansions=tuple(expansions),
        waits=tuple(waits),
    )


_Try = tuple[StepId, int, int]


def _last_tries(commit: RunCommit) -> set[_Try]:
    """Return the attempts that ended their steps, which rows of the same commit tell."""
    return {(row.step_id, row.generation, row.attempt) for row in commit.steps}


def _is_tried_again(attempt: AttemptRecord) -> bool:
    """Say whether another try follows one that was not the last; none does where nobody cares."""
    if attempt.cause is Cause.USER_ERROR:
        return attempt.not_before is not None
    return attempt.cause not in (Cause.CANCELLED, Cause.ABANDONED)


def _age(attempt: Running) -> datetime:
    return attempt.since


def _ends_at(wait: WaitRecord) -> tuple[datetime, StepId]:
    return wait.deadline or datetime.max.replace(tzinfo=UTC), wait.step_id


def _may_run_together(plan: Plan) -> frozenset[str]:
    """Return the steps that a serial executor runs at one time."""
    return frozenset(step.id for step in plan.steps if plan.functions[step.function].is_async)
