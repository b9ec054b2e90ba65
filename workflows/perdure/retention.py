"""What may go: runs that a policy lets go, and whatever nothing refers to any more.

Every part is safe to die in and to repeat: a run goes in one transaction and leaves a tombstone
until its log and spool are gone; blobs go as ``perdure_storage.collection`` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from perdure.errors import DefinitionError, RunConflict, RunNotFound
from perdure.resources import Duration, parse_duration
from perdure.runtime import Runtime
from perdure_scheduler.ledger import Ledger, Retention
from perdure_storage.collection import (
    Collected,
    collect_garbage,
    find_garbage,
    forget_old_marks,
)
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RUN_LIVE, RUN_TERMINAL
from perdure_storage.protocols import RunStore
from perdure_storage.records import Leftover, RunId, RunQuery, RunRecord
from perdure_storage.roots import FILE_AREAS, folder_of
from perdure_storage.temporary_folders import sweep_left_folders

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which finished runs are kept; without a rule all are.

    Attributes:
        keep: those that ended within this time.
        keep_last: the newest so many of each workflow.
        tags: what is said here is about runs with all these tags; others are kept.
    """

    keep: timedelta | None = None
    keep_last: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def lets_go(self) -> bool:
        """Say whether there is a rule."""
        return self.keep is not None or self.keep_last is not None

    def keeps(self, run: RunRecord, rank: int, now: datetime) -> bool:
        """Say whether a finished run stays: one rule that keeps it is enough.

        Args:
            run: the run.
            rank: how many newer finished runs of its workflow there are.
            now: the time.
        """
        ended_at = run.finished_at or run.created_at
        is_recent = self.keep is not None and now - ended_at < self.keep
        return is_recent or (self.keep_last is not None and rank < self.keep_last)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What ``gc`` removed, or would remove, and what it kept.

    Attributes:
        dry_run: nothing was removed, this is what would be.
        runs: ids of the runs that were deleted.
        blobs: how many values, functions and sources were removed from the blob store.
        size_bytes: what the removed blobs and files held.
        files: temporary files of writers that died, and damaged blobs that were set aside.
        leftovers: logs and spools of runs that are gone.
        grace_s: what is younger was left alone.
        kept: how much was kept, by reason.
    """

    dry_run: bool
    runs: tuple[str, ...] = ()
    blobs: int = 0
    size_bytes: int = 0
    files: int = 0
    leftovers: int = 0
    grace_s: float = 0.0
    kept: Mapping[str, int] = field(default_factory=dict)


def parse_policy(
    keep: Duration | None, keep_last: int | None, tags: Mapping[str, str] | None
) -> Policy:
    """Return the policy of what was given.

    Raises:
        DefinitionError: a duration or a number that cannot be, or tags without a rule.
    """
    if keep_last is not None and (isinstance(keep_last, bool) or keep_last < 0):
        raise DefinitionError(f"keep_last={keep_last!r}: a number of runs, 0 or more")
    policy = Policy(
        keep=None if keep is None else timedelta(seconds=parse_duration(keep, what="keep")),
        keep_last=keep_last,
        tags=dict(tags or {}),
    )
    if policy.tags and not policy.lets_go:
        raise DefinitionError(
            "tags say which runs a rule is about, and there is none: add keep= or keep_last= "
            "(--keep 30d, --keep-last 100)"
        )
    return policy


def collect(
    runtime: Runtime, policy: Policy, *, grace: Duration = "24h", dry_run: bool = False
) -> GcReport:
    """Delete the runs that the policy lets go, then remove what nothing refers to.

    Args:
        runtime: the opened stores.
        policy: which finished runs are kept.
        grace: what is younger than this is left alone, unreferenced or not.
        dry_run: look only.
    """
    work = _Rehearsal if dry_run else _Collection
    return work(runtime, policy, parse_duration(grace, what="grace")).report()


def ledger_of(runtime: Runtime, *, keep: timedelta | None = None) -> Ledger:
    """Return the ledger of a store's schedules and triggers, with what the settings keep of it.

    Args:
        runtime: the opened stores.
        keep: how long ticks are kept instead. Not arrivals: whoever sends something again, sends
            it within the time that the settings say, and it is not to count twice.
    """
    settings = runtime.settings
    retention = Retention(
        keep=keep or settings.keep_ticks,
        keep_last=settings.keep_ticks_last,
        keep_arrivals=settings.keep_ticks,
    )
    return Ledger(runtime.store.schedules, runtime.store.triggers, runtime.clock, retention)


class _Collection:
    """One pass over a store."""

    dry_run = False

    def __init__(self, runtime: Runtime, policy: Policy, grace_s: float) -> None:
        self.runtime = runtime
        self.store: RunStore = runtime.store
        self.policy = policy
        self.grace_s = max(grace_s, runtime.blobs.least_grace_s)
        self.now = runtime.clock.now()
        self.before = self.now - timedelta(seconds=self.grace_s)
        self.kept: Counter[str] = Counter()

    def report(self) -> GcReport:
        """Do everything, in an order in which each part makes room for the next."""
        runs = tuple(run_id for run_id in self.choose_runs() if self.delete(run_id))
        stale = list(self.stale_leftovers())
        for leftover in stale:
            self.remove(leftover)
        self.finish_deletions()
        self.forget_events()
        self.forget_ticks()
        blobs = self.collect_blobs(runs)
        self.kept["pins"] = len(self.store.list_pins())
        self.kept["blobs younger than the grace"] = blobs.young
        files = [leftover for leftover in stale if leftover.area in FILE_AREAS]
        return GcReport(
            dry_run=self.dry_run,
            runs=runs,
            blobs=blobs.blobs,
            size_bytes=blobs.size_bytes + sum(file.size_bytes for file in files),
            files=len(files),
            leftovers=len(stale) - len(files),
            grace_s=self.grace_s,
            kept={reason: count for reason, count in self.kept.items() if count},
        )

    # --- runs ---------------------------------------------------------------------------------
    def finish_deletions(self) -> None:
        """Finish what a death cut off between a run's rows and its log and spool."""
        for run_id in self.store.list_tombstones(self.before):
            self.runtime.sweep_deleted(run_id)

    def choose_runs(self) -> list[RunId]:
        """Return the finished runs that the policy lets go and that no live run needs."""
        needed = self._needed_by_live_runs()
        if not self.policy.lets_go:
            return []
        ranks: Counter[str] = Counter()
        chosen = []
        # One walk in the order of an index: by several statuses each page would be a sort.
        for run in all_runs(self.store, RunQuery(tags=dict(self.policy.tags))):
            if run.status not in RUN_TERMINAL:
                continue
            rank, ranks[run.workflow] = ranks[run.workflow], ranks[run.workflow] + 1
            if self.policy.keeps(run, rank, self.now):
                self.kept["runs within the policy"] += 1
            elif run.id in needed:
                self.kept["runs that a live run needs"] += 1
            else:
                chosen.append(run.id)
        return chosen

    def _needed_by_live_runs(self) -> set[str | None]:
        live = list(all_runs(self.store, RunQuery(status=_LIVE)))
        self.kept["live runs"] = len(live)
        return {other for run in live for other in (run.parent, run.reuse_from)}

    def delete(self, run_id: RunId) -> bool:
        """Delete a run with all that it left beside its rows; say whether it was there to be."""
        try:
            self.store.delete_run(run_id)
        except (RunConflict, RunNotFound):  # opened again, or deleted, since it was listed
            self.kept["runs that changed meanwhile"] += 1
            return False
        self.runtime.sweep_deleted(run_id)
        return True

    def forget_events(self) -> None:
        """Forget the events that are as old as runs that go, but for what a live run may take.

        A rule about tags says nothing about events, which have none.
        """
        if self.policy.keep is not None and not self.policy.tags:
            self.store.forget_events(self.now - self.policy.keep)

    def forget_ticks(self) -> None:
        """Forget old ticks, as old as runs that go if a rule says how old, and old arrivals."""
        if not self.policy.tags:
            ledger_of(self.runtime, keep=self.policy.keep).sweep()

    # --- beside the rows ----------------------------------------------------------------------
    def stale_leftovers(self) -> Iterator[Leftover]:
        """Yield old files, logs of runs that are gone, and spools of runs that do not go on."""
        # Looked at before the runs are: a run exists before its folders do.
        old = [each for each in self.runtime.blobs.leftovers() if self._is_old(each)]
        if not old:
            return
        known = {folder_of(run.id): run.status for run in all_runs(self.store, RunQuery())}
        for leftover in old:
            status = known.get(leftover.name)
            is_live = status is not None and status not in RUN_TERMINAL
            is_needed = is_live if leftover.area == "spool" else status is not None
            if leftover.area in FILE_AREAS or not is_needed:
                yield leftover

    def _is_old(self, leftover: Leftover) -> bool:
        return leftover.changed_at < self.before.timestamp()

    def remove(self, leftover: Leftover) -> None:
        """Remove a leftover."""
        crash_point("leftover.before-remove")
        self.runtime.blobs.remove_leftover(leftover)
        crash_point("leftover.after-remove")

    # --- blobs --------------------------------------------------------------------------------
    def collect_blobs(self, runs: Iterable[str]) -> Collected:
        """Remove what nothing refers to, now that these runs are deleted."""
        del runs
        self.runtime.blobs.sweep_temporaries(older_than_s=self.grace_s, clock=self.runtime.clock)
        sweep_left_folders()  # nobody uses them, however young they are
        forget_old_marks(self.store, self.now)
        return collect_garbage(self.store, self.runtime.blobs, self.before)


class _Rehearsal(_Collection):
    """The same pass, with hands in its pockets."""

    dry_run = True

    def finish_deletions(self) -> None: ...

    def forget_events(self) -> None: ...

    def forget_ticks(self) -> None: ...

    def delete(self, run_id: RunId) -> bool:
        return True

    def remove(self, leftover: Leftover) -> None: ...

    def collect_blobs(self, runs: Iterable[str]) -> Collected:
        leaving = [RunId(run_id) for run_id in runs]
        return find_garbage(self.store, self.runtime.blobs, self.before, besides=leaving)


_LIVE = tuple(sorted(RUN_LIVE))


def all_runs(store: RunStore, query: RunQuery) -> Iterator[RunRecord]:
    """Yield every run that a query finds, page by page, newest first."""
    query = msgspec.structs.replace(query, limit=_PAGE)
    while page := store.list_runs(query):
        yield from page
        if len(page) < _PAGE:
            return
        query = msgspec.structs.replace(query, after=page[-1].id)
