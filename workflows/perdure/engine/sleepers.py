"""Runs that wait for a time, a message or a slot of their queue, and when to look for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice

from perdure.engine.ownership import is_seen_dead
from perdure_storage.admission import needs_slot
from perdure_storage.clock import Clock
from perdure_storage.guards import is_due
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Owner, RunId, RunRecord

LOOK_FOR_WORK_EVERY_S = 1.0
"""How often a serving coordinator looks for runs that nobody drives, though nothing changed."""

AT_ONCE = 100
"""How many runs are taken on in one turn: between turns steps start and results are committed, so
that a thousand that are due do not hold up those that run; and other coordinators take theirs."""


class Sleepers:
    """What sleeps, or waits in a line, and concerns a coordinator.

    One that serves looks after every run of the store, and asks it when the next is due. Any
    other one remembers those that it gave back itself, or was asked to drive before their turn:
    somebody in its process waits for them.

    Attributes:
        next_wake: when the next one is due, as far as is known.
        are_more: whether the last answer of ``claimable`` may not have been all.
        offer: what runs may ask for that are taken on here; None: anything.
    """

    def __init__(self, store: RunStore, clock: Clock, owner: Owner) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self.offer: Mapping[str, float] | None = dict(owner.offer) or None
        self._own: set[RunId] = set()
        self._are_in_line = False
        self.next_wake: datetime | None = None
        self.are_more = False

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._own

    def __bool__(self) -> bool:
        return bool(self._own)

    def are_among(self, run_ids: Collection[str]) -> bool:
        """Say whether somebody waits here for none but these."""
        return self._own <= set(run_ids)

    @property
    def are_due(self) -> bool:
        """Say whether the next one is to be taken on now."""
        return self.next_wake is not None and self.next_wake <= self._clock.now()

    def add(self, run_id: RunId, wake_at: datetime | None) -> None:
        """Note a run that was just given back."""
        if not self._owner.serves:
            self._own.add(run_id)
        if wake_at is not None:
            self.next_wake = min(wake_at, self.next_wake or wake_at)

    def add_waiting(self, run_id: RunId) -> bool:
        """Note a run that is to be driven and cannot be claimed yet; say whether it is one."""
        record = self._store.find_run(run_id)
        if record is None or not _is_waiting(record):
            return False
        self.add(run_id, record.not_before)
        return True

    def wait_on(self, records: Iterable[RunRecord]) -> None:
        """Keep those for which there was no slot: somebody else was faster."""
        for record in records:
            if needs_slot(record):
                self.add(record.id, None)

    @property
    def are_in_line(self) -> bool:
        """Say whether one may be able to go on though nothing was written: a rate, a lease."""
        return self._are_in_line

    def remove(self, run_id: RunId) -> None:
        """Forget one that is taken on."""
        self._own.discard(run_id)

    def claimable(self, besides: int = 0) -> list[RunRecord]:
        """Return runs to take on now: all of them, or as many as are taken on at once.

        One's own are asked for each by itself: among many that nobody drives they may be the last.

        Args:
            besides: how many of them may be such as are not taken on here, and hide others.
        """
        most = AT_ONCE + besides
        found = self._of_the_store(most) if self._owner.serves else self._of_its_own()
        self.are_more = len(found) >= most
        return found

    def _of_the_store(self, most: int) -> list[RunRecord]:
        # A dead neighbour's lease may stand for a while: its runs are not to wait for that, nor
        # behind thousands that nobody has begun.
        known = self._store.coordinators()
        dead = [owner.token for owner, alive in known if alive and is_seen_dead(owner)]
        return self._store.claimable(
            most, besides=self._owner.token, offer=self.offer, seen_dead=dead
        )

    def _of_its_own(self) -> list[RunRecord]:
        found = (self._store.find_run(run_id) for run_id in list(self._own))
        mine = [record for record in found if record is not None and self._is_claimable(record)]
        if any(needs_slot(record) for record in mine):
            turn = self._turn()
            mine = [r for r in mine if turn is None or not needs_slot(r) or r.id in turn]
        return list(islice(mine, AT_ONCE))

    def _turn(self) -> set[RunId] | None:
        """Return whose turn it is in their queues; None: nobody is there to take the others on.

        Who drives its own runs waits for those that are before it in the line only while somebody
        serves, who takes them on. A run that was left behind in an empty store would stop it.
        """
        is_served = any(alive for owner, alive in self._store.coordinators() if owner.serves)
        if not is_served:
            return None
        return {run.id for run in self._store.claimable(AT_ONCE, besides=self._owner.token)}

    def _is_claimable(self, record: RunRecord) -> bool:
        if record.owner is not None or record.finished_at is not None:
            return False
        return record.cancel_requested or is_due(record, self._clock.now())

    def postpone(self, seconds: float) -> None:
        """Leave those alone for a while that are due and cannot be taken on just now."""
        if self.are_due:
            self.next_wake = self._clock.now() + timedelta(seconds=seconds)

    def look(self) -> None:
        """See when the next one is due, and which are no longer asleep."""
        serves = self._owner.serves
        self.next_wake = self._store.next_wake(self.offer) if serves else self._next_of_own()

    def _next_of_own(self) -> datetime | None:
        found: datetime | None = None
        self._are_in_line = False
        for run_id in list(self._own):
            record = self._store.find_run(run_id)
            if record is None or not _is_waiting(record):
                self._own.discard(run_id)  # somebody else has ended it, or drives it on
                continue
            self._are_in_line |= needs_slot(record)
            due = record.wake_at if record.status is RunStatus.WAITING else record.not_before
            if due is not None:
                found = min(due, found or due)
        return found


def _is_waiting(record: RunRecord) -> bool:
    """Say whether nobody drives a run because it sleeps, or because its turn has not come."""
    if record.owner is not None or record.plan_digest is None:
        return False
    if record.status is RunStatus.WAITING:
        return True
    can_be_held = record.queue is not None or record.not_before is not None
    return record.status is RunStatus.QUEUED and can_be_held
