"""Runs whose owner only an outage of the store may have kept from renewing its lease."""

from __future__ import annotations

import msgspec

from perdure.engine.ownership import is_seen_dead
from perdure.engine.sleepers import LOOK_FOR_WORK_EVERY_S
from perdure_storage.clock import Clock
from perdure_storage.records import RunRecord

SETTLE_S = 5.0
"""For so long after an outage of the store runs are left alone whose lease is over: their owner
could not renew it either, and is about to."""


class _Doubt(msgspec.Struct, frozen=True):
    """How often a run was found whose owner may come back, and when that last counted."""

    looks: int = 0
    at: float = float("-inf")

    def after_look(self, now: float) -> _Doubt:
        """Count a look, unless the one before was a moment ago."""
        is_new = now - self.at >= LOOK_FOR_WORK_EVERY_S
        return _Doubt(self.looks + 1, now) if is_new else self


class Doubts:
    """Of whom it is not known whether they may come back, and how long they have been missed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_run: dict[str, _Doubt] = {}

    def leave_out(self, found: list[RunRecord], steady_s: float) -> list[RunRecord]:
        """Return runs that nobody drives without those whose owner may come back.

        One that is found again and again has had its time, also where no renewal here is ever in
        time, as beside steps that hold Python's lock. Looks are counted, since an outage may lie
        between two of them.

        Args:
            found: what a look has found.
            steady_s: for how long the lease here has been renewed in time.
        """
        if steady_s >= SETTLE_S:
            self._by_run = {}
            return found
        now = self._clock.monotonic()  # the question may have been under way for long
        doubtful = [run.id for run in found if run.owner and not is_seen_dead(run.owner)]
        doubts = {run_id: self._by_run.get(run_id, _Doubt()) for run_id in doubtful}
        self._by_run = {run_id: doubt.after_look(now) for run_id, doubt in doubts.items()}
        most = SETTLE_S / LOOK_FOR_WORK_EVERY_S
        waiting = {run_id for run_id, doubt in self._by_run.items() if doubt.looks <= most}
        return [run for run in found if run.id not in waiting]
