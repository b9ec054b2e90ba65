"""The shell around ``decide``: it alone waits, writes and starts things. One thread at a time.

A turn: hear (outcomes, requests, time) -> decide -> make it durable -> act. Facts are drawn from
the executors by ``poll``; nobody calls in. Other threads may only ``submit`` and ``wake``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from itertools import islice
from typing import TypeVar

import msgspec

from perdure.calls import Outcome
from perdure.engine.commands import Asleep, Turn
from perdure.engine.commits import GROUP_AGE_S, Commits
from perdure.engine.decide import decide, take_on
from perdure.engine.desk import EngineDesk
from perdure.engine.doubts import Doubts
from perdure.engine.events import (
    CancelRequested,
    Ended,
    Event,
    Heard,
    Leaving,
    OwnershipLost,
    PauseRequested,
    RenewedLate,
)
from perdure.engine.fleet import Fleet
from perdure.engine.heartbeat import Heartbeat
from perdure.engine.loading import Born, Loader, PlanFor, Reading, failed_end
from perdure.engine.outages import Outage
from perdure.engine.ownership import is_seen_dead, retire
from perdure.engine.salvage import verified
from perdure.engine.sleepers import LOOK_FOR_WORK_EVERY_S, Sleepers
from perdure.engine.state import EngineState, RunState
from perdure.engine.waits import names_of_waits
from perdure.executors.endings import ended
from perdure.executors.protocol import Executor
from perdure.interactive import with_cells
from perdure.observing import Observer
from perdure_storage.blobs import BlobRoot
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreUnavailable
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    Cause,
    CommitReport,
    Digest,
    EventRecord,
    Owner,
    ProcessId,
    Refusal,
    Release,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
)
from perdure_storage.values import Values

T = TypeVar("T")

log = logging.getLogger(__name__)
_replace = msgspec.structs.replace

REQUESTS_EVERY_S = 0.1
"""How often the store is asked whether somebody else wrote (a look of microseconds)."""
LEFT_ALONE_S = 10.0
"""For so long a run that was left to another host is not taken on again."""

CROWD = 500
"""While this many runs are driven others are looked for at that pace only: runs are memory, and
what is recorded faster than it is worked off stays with the store, and with other coordinators."""

TOGETHER = 100
"""As many runs that were handed over are taken on in one transaction."""


class Coordinator:
    """Drives runs over one store.

    Args:
        store: where runs are.
        blobs: where their values are.
        values: stores what the engine itself makes, in place of results.
        executors: makes the executor of a name when it is first needed.
        owner: the identity of this process; if it ``serves``, runs that nobody drives are
            looked for, as ``perdure up`` does.
        clock: wall and monotonic time.
        default_executor: for runs that name none.
        plan_for: finds the plan of a run that was made without one; in the driving thread.
        heartbeat: renews the lease; made here by default.
        on_change: called with a run's id when it has ended, was parked or was lost to another
            owner; in the driving thread.
        on_commit: called with what a run has contributed to a commit, once it is decided and not
            refused; in the driving thread. Who listens keeps it for another thread to look at.
        on_news: called when the store has changed, whoever wrote, in the driving thread.
        observer: counts or traces what is driven; None: nobody does.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        blobs: BlobRoot,
        values: Values,
        executors: Callable[[str], Executor],
        owner: Owner,
        clock: Clock,
        default_executor: str = "processes",
        plan_for: PlanFor = lambda record: None,
        heartbeat: Heartbeat | None = None,
        on_change: Callable[[str], None] = lambda run_id: None,
        on_commit: Callable[[RunCommit], None] = lambda commit: None,
        on_news: Callable[[], None] = lambda: None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._owner = owner
        self._clock = clock
        self._on_change = on_change
        self._on_commit = on_commit
        self._on_news = on_news
        self._observer = observer
        self._default_executor = default_executor
        self._allow_pickle = values.codecs.allow_pickle
        self._fleet = Fleet(executors)
        self._engine = EngineState(
            self._fleet.pools,
            values.store,
            serves=owner.serves,
            token=owner.token,
            place=owner.place,
        )
        self._loader = Loader(
            store,
            self._blobs,
            owner,
            clock,
            self._fleet,
            default_executor,
            plan_for,
            allow_pickle=self._allow_pickle,
        )
        self._commits = Commits(store, clock, self._fleet.pause, serves=owner.serves)
        self._desk = EngineDesk(store, self._engine, self._commits, owner, clock, on_commit)
        self._fleet.attend(self._desk)
        self._heartbeat = heartbeat or Heartbeat(store, owner, clock)
        self._deaf = Outage(
            log, clock, what="could not look for requests", over="requests are looked for again"
        )
        self._events: list[Event] = []
        self._inbox: deque[str] = deque()
        self._born: deque[Born] = deque()
        self._again: list[str] = []
        self._sleepers = Sleepers(store, clock, owner)
        self._in_queues: set[str] = set()
        self._has_freed = False
        self._changes: object = None
        self._last_look = float("-inf")
        self._last_search = float("-inf")
        self._workers: tuple[ProcessId, ...] = ()
        self._left: dict[str, float] = {}
        self._doubts = Doubts(clock)
        self._leaves = False
        self._has_left = False
        self._closed = False

    # --- for any thread ---------------------------------------------------------------------
    def submit(self, run_id: str) -> None:
        """Ask that this coordinator claim and drive the run, if nobody else does."""
        self._inbox.append(run_id)
        self.wake()

    def ready_to_own(self) -> Owner:
        """Register, if that is not done yet, and return as whom runs may be claimed for it."""
        self._heartbeat.start()
        return self._owner

    def adopt(self, born: Born) -> None:
        """Hand over a run that was claimed for this coordinator as it was made."""
        self._born.append(born)
        self.wake()

    def wake(self) -> None:
        """End the current wait, if any."""
        self._fleet.wake()

    def leave(self, within_s: float) -> None:
        """Take nothing on any more, and give runs to others once what runs of them has ended.

        Args:
            within_s: for how long a store that is away is waited for.
        """
        self._leaves = True
        self._commits.give_up(within_s)
        self.wake()

    @property
    def is_left(self) -> bool:
        """Say whether nothing is driven here any more, and nothing is to be written."""
        return not (self._engine.runs or self._events or self._commits.is_waiting)

    def give_up(self) -> None:
        """End the current wait, also one for a store that is away: ``close`` comes next."""
        self._commits.give_up(0.0)
        self._fleet.wake()

    def drives(self, run_id: str) -> bool:
        """Say whether the run is driven here, or is about to be. For any thread.

        In the order in which runs go from one to the next: they are there before they leave.
        """
        waiting = run_id in self._sleepers or run_id in self._again or run_id in self._inbox
        is_new = any(born.record.id == run_id for born in self._born.copy())
        return waiting or is_new or run_id in self._engine.runs

    @property
    def is_in_user_code(self) -> bool:
        """Say whether a step's function runs in the driving thread now."""
        return self._fleet.runs_here

    @property
    def is_idle(self) -> bool:
        """Say whether there is nothing to drive."""
        handed_over = self._inbox or self._born or self._again
        waiting = handed_over or self._events or self._commits.is_waiting
        return not (self._engine.runs or waiting or self._sleepers)

    # --- one turn -----------------------------------------------------------------------------
    def give_up_all_but(self, kept: Collection[str]) -> bool:
        """Give runs up at once: their attempts die, they stay as far as they came.

        Returns whether it did: what is asleep, or handed over only, is given up by ``close``.
        """
        waiting = {*self._inbox, *self._again, *(born.record.id for born in self._born)}
        if not waiting <= set(kept) or not self._sleepers.are_among(kept):
            return False
        for run_id in self._engine.runs.keys() - set(kept):
            self._give_up(RunId(run_id))
            self._events.append(OwnershipLost(run_id, "it was given up"))
        self._advance()
        return True

    def serve(self) -> None:
        """Register at once, so that others see that runs are taken on here."""
        self._fleet.get(self._default_executor)  # what it has by now decides what is taken on
        self._heartbeat.start()

    def turn(self, max_wait_s: float | None = None) -> None:
        """Wait for something to happen, at most ``max_wait_s`` seconds, and act on it.

        Raises StoreError if the store could not be written for longer than the patience.
        """
        # Before more runs are taken on, which that is not about.
        if (late_s := self._heartbeat.take_late()) is not None:
            self._events.append(RenewedLate(late_s))
        if self._leaves:
            self._begin_to_leave()
        else:
            self._take_inbox()
        self._listen()
        wait = 0.0 if self._events or self._engine.touched else self._wait_s(max_wait_s)
        outcomes = self._fleet.poll(wait)
        if self._default_executor in self._fleet.measure():
            self._sleepers.offer = self._fleet.pools[self._default_executor].capacity.offer
        over = [Ended(self._believed(outcome)) for outcome in outcomes]
        if any(outcome.cause is Cause.SETUP_ERROR for outcome in outcomes):
            self._look_elsewhere()
        if self._observer is not None:
            for each in over:
                self._observer.came(each.outcome)
        # What was saved first: the attempt that did so may be among those that ended.
        self._events += [*self._desk.take_events(), *over]
        self._desk.write_told()
        self._note_workers()
        if self._events or not self._engine.is_empty or self._commits.is_waiting:
            self._hear_the_last()
            self._advance()

    def _begin_to_leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._events.append(Leaving())

    def _look_elsewhere(self) -> None:
        """See who else takes runs on: somebody may have what is lacking here."""
        if not self._owner.serves:
            return
        known = self._patiently(self._store.coordinators)
        self._engine.elsewhere = frozenset(
            owner.token
            for owner, alive in known
            if alive and owner.serves and owner != self._owner and not is_seen_dead(owner)
        )

    def _believed(self, outcome: Outcome) -> Outcome:
        """Return an outcome as it may be stored: where there is no pickle no exception is one.

        Only the kernel that a cell was typed into can tell its number, and only while it lives.
        """
        error = outcome.error
        if error is None:
            return outcome
        pickled = error.pickled if self._allow_pickle else None
        told = with_cells(error.traceback)
        return _replace(outcome, error=_replace(error, pickled=pickled, traceback=told))

    def _advance(self) -> None:
        events, self._events = self._events, []
        turn = self._observed(decide(self._engine, events, self._clock.now()))
        for digest in turn.quarantine:
            self._quarantine(digest)
        for extension in turn.extend:
            self._fleet.extend(extension)
        for command in turn.retire:
            self._fleet.retire(command)
        if self._may_defer(turn):
            self._fleet.dispatch(turn.dispatch)
            self._commits.defer(turn.commits)
            report = CommitReport()
        else:
            report = self._write(turn)
            self._fleet.dispatch(
                command for command in turn.dispatch if command.call.id.run_id not in report.refused
            )
        for commit in turn.commits:
            if commit.run_id not in report.refused:
                self._on_commit(commit)
                if self._observer is not None:
                    self._observer.committed(commit)
        self._act(turn, report)
        # No executor knows these calls, so none will ever end them.
        self._events += [
            Ended(ended(command.call, Cause.ABANDONED))
            for command in turn.dispatch
            if command.call.id.run_id in report.refused
        ]

    def _observed(self, turn: Turn) -> Turn:
        """Return a turn with what an observer adds to calls and commits."""
        observer = self._observer
        if observer is None or not (turn.dispatch or turn.commits):
            return turn
        return _replace(
            turn,
            dispatch=tuple(_replace(each, call=observer.sent(each.call)) for each in turn.dispatch),
            commits=observer.about_to_commit(turn.commits),
        )

    def _may_defer(self, turn: Turn) -> bool:
        """Say whether dependants may start before the results they rest on are durable.

        Only under ``durability="group"``, only while there is something to start, and never
        past the age of a group; what leaves the run, its end above all, is never deferred.
        """
        gives_back = turn.ended or turn.parked or turn.handed_back or turn.asleep
        if gives_back or turn.quarantine or not turn.dispatch:
            return False
        runs = self._engine.runs
        is_group = all(runs[c.run_id].record.policy.durability == "group" for c in turn.commits)
        if not is_group or self._commits.is_due:
            return False
        if any(commit.lost or commit.superseded for commit in turn.commits):
            return False  # what they retire may be among the rows that wait
        # Until it is written the store shows a message to the next wait, too.
        return not any(commit.deliveries for commit in turn.commits)

    def _write(self, turn: Turn) -> CommitReport:
        if turn.ended:
            crash_point("terminal.before")
        began = self._clock.monotonic()
        report = self._commits.flush(turn.commits)
        if self._observer is not None and report.committed:
            self._observer.written(self._clock.monotonic() - began)
        if report.committed:
            crash_point("commit.before-telling")
        return report

    def _act(self, turn: Turn, report: CommitReport) -> None:
        for kill in turn.kill:
            self._fleet.kill(kill)
        for command in turn.hand_over:
            self._fleet.hand_over(command)
        for run_id, digest in turn.forget:
            self._blobs.spool(run_id).delete(digest)
        for refused, refusal in report.refused.items():
            self._on_refused(refused, refusal)
        self._events += [
            verified(each, self._blobs) for each in turn.verify if each.run_id not in report.refused
        ]
        for run_id in turn.ended:
            if run_id not in report.refused:
                crash_point("terminal.after")
                log.info("run ended", extra={"action": "end", "run_id": run_id})
            self._let_go(run_id)
        for run_id in turn.parked:
            self._give_back(RunId(run_id), RunStatus.PAUSED)
        for run_id in turn.handed_back:
            self._left[run_id] = self._clock.monotonic() + LEFT_ALONE_S
            self._give_back(RunId(run_id), RunStatus.QUEUED)
        self._put_to_sleep([s for s in turn.asleep if s.record.id not in report.refused])
        refused_sleep = [s.record.id for s in turn.asleep if s.record.id in report.refused]
        for run_id in (*turn.dropped, *refused_sleep):
            self._let_go(run_id)

    def _let_go(self, run_id: str) -> None:
        if not any(call.run_id == run_id for call in self._engine.orphans):
            try:
                self._fleet.close_run(run_id)
            except PerdureError as error:
                # Its unsynced values cannot be removed now; they are nobody's, and swept later.
                log.warning("could not tidy up: %s", error, extra={"run_id": run_id})
        if self._observer is not None:
            self._observer.let_go(run_id)
        if run_id in self._in_queues:
            self._in_queues.remove(run_id)
            self._has_freed = True
        self._on_change(run_id)

    def _has_orphans(self, run_id: str) -> bool:
        held = (*self._engine.orphans, *self._engine.in_making)
        return any(call.run_id == run_id for call in held)

    def _give_back(self, run_id: RunId, to: RunStatus) -> None:
        self._release(run_id, to)
        self._let_go(run_id)

    def _give_up(self, run_id: RunId) -> None:
        """Leave a run as it stands, without an owner; that of a queue stands in its line again."""
        record = self._patiently(lambda: self._store.find_run(run_id))
        if record is not None and record.status in RUN_LIVE:
            is_queued = record.status is RunStatus.RUNNING and record.queue is not None
            to = RunStatus.QUEUED if is_queued else record.status
            self._patiently(lambda: self._store.release_run(record, to=to))

    def _release(self, run_id: RunId, to: RunStatus) -> None:
        record = self._patiently(lambda: self._store.find_run(run_id))
        if record is not None:
            self._patiently(lambda: self._store.release_run(record, to=to))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store for what cannot be put off: other runs must not end with an outage."""
        return self._commits.patiently(ask)

    def _put_to_sleep(self, asleep: list[Asleep]) -> None:
        """Give runs back in which everything waits: no owner, worker or memory is held for them."""
        if not asleep:
            return
        releases = [
            Release(run=each.record, to=RunStatus.WAITING, wake_at=each.wake_at, heard=each.heard)
            for each in asleep
        ]
        for sleeper in asleep:  # not after: meanwhile they would seem nobody's
            self._sleepers.add(sleeper.record.id, sleeper.wake_at)
        released = set(self._patiently(lambda: self._store.release_runs(releases)))
        for sleeper in asleep:
            if sleeper.record.id not in released:
                self._sleepers.remove(sleeper.record.id)
            self._let_go(sleeper.record.id)

    def _on_refused(self, run_id: RunId, refusal: Refusal) -> None:
        log.warning("commit refused: %s", refusal.message, extra={"run_id": run_id})
        if run_id in self._engine.runs:  # else it has left, and may be taken on anew by then
            self._events.append(OwnershipLost(run_id, refusal.message))
        if refusal.kind == "rejected":
            message = f"the store refuses the row of {', '.join(refusal.steps)}: "
            end = failed_end("perdure_storage.errors.StoreError", message + refusal.message)
            record = self._patiently(lambda: self._store.find_run(run_id))
            if record is not None and record.owner == self._owner:
                self._end(run_id, record.epoch, end)
        elif refusal.kind == "condemned":
            # gc is taking a blob that the rows name: the steps that made it run once more.
            self._again.append(run_id)

    def _end(self, run_id: RunId, epoch: int, end: RunEnd) -> None:
        token = self._owner.token
        self._commits.write((RunCommit(run_id=run_id, owner=token, epoch=epoch, end=end),))

    # --- hearing --------------------------------------------------------------------------------
    def _wait_s(self, max_wait_s: float | None) -> float:
        waits = [REQUESTS_EVERY_S]
        if max_wait_s is not None:
            waits.append(max_wait_s)
        for due in (self._engine.next_wakeup(), self._sleepers.next_wake):
            if due is not None:
                waits.append(max(0.0, (due - self._clock.now()).total_seconds()))
        if self._commits.is_waiting:
            waits.append(GROUP_AGE_S)
        return min(waits)

    def _take_inbox(self) -> None:
        ready = [r for r in self._again if r not in self._engine.runs and not self._has_orphans(r)]
        for run_id in ready:
            self._inbox.append(run_id)
            self._again.remove(run_id)
        # A run that is born is handed over before anybody asks that it be driven: those that are
        # asked for by now are loaded first, and not claimed a second time.
        asked = list(islice(self._inbox, TOGETHER))
        self._take_born()
        if len(asked) > 1:
            self._take_on_together(asked)
        for run_id in asked:
            try:
                is_settled = run_id in self._engine.runs or run_id in self._again
                if not is_settled and not self.take_on(run_id):
                    self._on_change(run_id)
            finally:
                self._inbox.popleft()

    def _take_born(self) -> None:
        while born := list(islice(self._born, TOGETHER)):
            try:
                self._load([each.record for each in born], self._loader.reading_of(born))
            finally:
                for _ in born:
                    self._born.popleft()

    def _take_on_together(self, run_ids: list[str]) -> None:
        """Take on what was handed over, in a few transactions for all of it.

        What is not taken by that, because it is somebody's or cannot be read, is looked at by
        itself.
        """
        new = {RunId(run_id) for run_id in run_ids} - self._engine.runs.keys()
        found = self._patiently(lambda: self._store.find_runs(new)) if new else []
        self._take_on_all([run for run in found if run.status in RUN_LIVE])

    def _listen(self) -> None:
        now = self._clock.monotonic()
        # A slot that was given back here goes to the next run at once.
        is_time = now - self._last_look >= REQUESTS_EVERY_S or self._sleepers.are_due
        is_time |= self._has_freed
        unheard = [] if self._deaf.is_on else self._engine.unheard
        if not (is_time or unheard):
            return
        try:
            self._hear_messages(unheard)
            if is_time:
                self._last_look = now
                self._look(now)
        except StoreUnavailable as error:
            # Only a look: what is driven goes on, and its commits are patient by themselves.
            self._deaf.note(error)
        else:
            self._deaf.end()

    def _look(self, now: float) -> None:
        changes = self._store.changes()
        changed, self._changes = changes != self._changes, changes
        if changed:
            self._on_news()
        if changed and self._engine.runs:
            self._hear_requests()
            self._hear_messages([run for run in self._engine.runs.values() if run.waits])
        serves = self._owner.serves
        is_crowded = len(self._engine.runs) >= CROWD
        concerns = serves or bool(self._sleepers)
        changed, self._has_freed = changed or self._has_freed, False
        has_news = (changed and concerns) or self._sleepers.are_more
        looks_anyway = serves or self._sleepers.are_in_line
        is_time = looks_anyway and now - self._last_search > LOOK_FOR_WORK_EVERY_S
        if (has_news and not is_crowded) or is_time or self._sleepers.are_due:
            self._last_search = now
            self._search()

    def _search(self) -> None:
        """Take on runs that nobody drives: any if this coordinator serves, else its sleepers."""
        if self._leaves:
            self._sleepers.postpone(REQUESTS_EVERY_S)
            return
        now = self._clock.monotonic()
        self._left = {run_id: until for run_id, until in self._left.items() if until > now}
        found = [
            run
            for run in self._sleepers.claimable(besides=len(self._left))
            if run.id not in self._engine.runs and run.id not in self._left
        ]
        found = self._doubts.leave_out(found, self._heartbeat.steady_s)
        taken = self._take_on_all(found)
        claimed = {run.id for run in taken}
        self._sleepers.wait_on(run for run in found if run.id not in claimed)
        self._sleepers.look()
        if not taken:
            self._sleepers.postpone(REQUESTS_EVERY_S)

    def _hear_messages(self, runs: list[RunState]) -> None:
        for run in runs:
            if names := names_of_waits(run):
                messages = self._store.messages(run.id, names)
                self._events.append(Heard(run.id, tuple(messages), frozenset(names)))
            else:
                run.unheard = False

    def _hear_the_last(self) -> None:
        """Look once more before a time-out: what was sent in time since the last look wins."""
        now = self._clock.now()
        timers = self._engine.timers
        if not timers or timers[0][0] > now or self._deaf.is_on:
            return
        due = {run_id for at, run_id in timers if at <= now} & self._engine.runs.keys()
        try:
            self._hear_messages([run for i in due if (run := self._engine.runs[i]).waits])
        except StoreUnavailable as error:
            self._deaf.note(error)

    def _hear_requests(self) -> None:
        records = self._store.requests(self._owner.token)
        # Whoever has slept longer than its lease learns here, before it commits, what it lost.
        for run_id in self._engine.runs.keys() - {record.id for record in records}:
            self._events.append(OwnershipLost(run_id, "another coordinator has taken it over"))
        for record in records:
            run = self._engine.runs.get(record.id)
            if run is None:
                # Claimed as it was made, and not loaded yet: it must not miss what is asked now.
                self._changes = None
                continue
            if record.cancel_requested and run.ending is None:
                self._events.append(CancelRequested(record.id))
            if record.pause_requested != run.paused:
                self._events.append(PauseRequested(record.id, record.pause_requested))

    # --- taking runs on -----------------------------------------------------------------------
    def take_on(self, run_id: str) -> bool:
        """Claim the run and load it from its rows. Returns whether it is driven here now."""
        if self._has_orphans(run_id):
            self._again.append(run_id)
            return True
        self._patiently(self._heartbeat.start)
        record = self._patiently(lambda: self._loader.claim(RunId(run_id)))
        if record is None:
            return self._sleepers.add_waiting(RunId(run_id))
        self._load([record])
        self._sleepers.remove(record.id)  # not before: meanwhile it would seem nobody's
        return True

    def _take_on_all(self, records: list[RunRecord]) -> list[RunRecord]:
        """Claim and load those of these runs that nobody alive drives; return them."""
        free = []
        for record in records:
            if not self._has_orphans(record.id):
                free.append(record)
            elif record.id not in self._again:
                self._again.append(record.id)
        claimed: list[RunRecord] = []
        if free:
            self._patiently(self._heartbeat.start)
            claimed = self._patiently(lambda: self._loader.claim_all(free))
            self._load(claimed)
        for record in records:  # not before: meanwhile they would seem nobody's
            self._sleepers.remove(record.id)
        return claimed

    def _load(self, claimed: list[RunRecord], reading: Reading | None = None) -> None:
        if not claimed:
            return
        crash_point("claim.after")
        reading = reading or self._loader.read(claimed)
        for record in claimed:
            try:
                self._begin(record, reading)
            except StoreUnavailable as error:
                # The store is away, the run is as it was: it is loaded again once it is back.
                log.warning("loading is put off: %s", error, extra={"run_id": record.id})
                self._again.append(record.id)
            except PerdureError as error:
                # The run's own data is unusable; other runs of this coordinator go on.
                self._end_unusable(record, error)

    def _begin(self, record: RunRecord, reading: Reading) -> None:
        run, damaged = self._loader.load(record, reading)
        for digest in damaged:
            self._quarantine(digest)
        take_on(self._engine, run, self._clock.now())
        if self._observer is not None:
            self._observer.taken_on(record, self._story_of(record))
        if record.queue is not None:
            self._in_queues.add(record.id)
        if record.cancel_requested:
            self._events.append(CancelRequested(record.id))

    def _story_of(self, record: RunRecord) -> list[EventRecord]:
        observer = self._observer
        if observer is None or not observer.wants_story or record.epoch <= 1:
            return []
        return self._store.list_events(record.id)

    def _end_unusable(self, record: RunRecord, error: PerdureError) -> None:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        self._end(record.id, record.epoch, failed_end(kind, str(error)))
        self._on_change(record.id)

    # --- upkeep -------------------------------------------------------------------------------
    def _note_workers(self) -> None:
        workers = self._fleet.workers()
        if workers != self._workers:
            self._workers = workers
            self._heartbeat.beat_now(workers)

    def _quarantine(self, digest: Digest) -> None:
        try:
            self._blobs.quarantine(digest)
        except PerdureError as error:
            log.warning("could not move a damaged blob aside: %s", error)

    def close(self) -> None:
        """Stop driving: workers die, runs stay RUNNING without an owner. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._fleet.close()
        self._heartbeat.stop()
        retire(self._owner)
