"""Making decisions durable: one transaction for all that is due; patient with the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from perdure.engine.outages import Outage
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreUnavailable
from perdure_storage.protocols import RunStore
from perdure_storage.records import CommitReport, RunCommit, RunId

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long a store that does not take a commit is waited for before the runs are given up, by
somebody who waits for them."""
SERVING_PATIENCE_S = 900.0
"""The same for who serves: hours of work are not to end with the restart of a database."""
PARK_S = 0.25
GROUP_AGE_S = 0.005
"""``durability="group"``: how old an unwritten result may become while there is work."""


class Commits:
    """What is decided and not yet written, and the way to write it. Owned by the coordinator."""

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        pause: Callable[[float], None],
        *,
        serves: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pause = pause
        self._serves = serves
        self._until = float("inf")
        self._outage = Outage(
            log,
            clock,
            what="store does not take the commit, waiting",
            over="the store takes commits again",
        )
        self._waiting: list[tuple[RunCommit, ...]] = []
        self._since = 0.0

    @property
    def is_waiting(self) -> bool:
        """Say whether something is decided that is not durable."""
        return bool(self._waiting)

    @property
    def is_due(self) -> bool:
        """Say whether what waits has waited long enough."""
        return bool(self._waiting) and self._clock.monotonic() - self._since >= GROUP_AGE_S

    def defer(self, commits: tuple[RunCommit, ...]) -> None:
        """Keep commits for the next ``flush``, in order."""
        if commits:
            if not self._waiting:
                self._since = self._clock.monotonic()
            self._waiting.append(commits)

    def flush(self, commits: tuple[RunCommit, ...] = ()) -> CommitReport:
        """Write all that waits and ``commits`` after it. Raises as ``write``."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if any(commit.lost or commit.superseded for commit in commits):
                # What they retire may be among the rows that wait: those go first.
                first = self.write(merge(waiting))
                second = self.write(commits)
                return CommitReport(
                    committed={**first.committed, **second.committed},
                    refused={**first.refused, **second.refused},
                )
            commits = merge([*waiting, commits])
        return self.write(commits) if commits else CommitReport()

    def give_up(self, within_s: float) -> None:
        """Wait for the store only so long, from any thread: its runs are to be left."""
        self._until = self._clock.monotonic() + within_s

    def write(self, commits: tuple[RunCommit, ...]) -> CommitReport:
        """Commit; park while the store does not answer: nothing starts, attempts go on.

        Raises:
            StoreUnavailable: the store has been away for longer than the patience.
        """
        return self.patiently(lambda: self._store.commit(commits))

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store for something; park while it does not answer. Raises as ``write``."""
        patience_s = SERVING_PATIENCE_S if self._serves else PATIENCE_S
        give_up_at = self._clock.monotonic() + patience_s
        while True:
            try:
                answer = ask()
            except StoreUnavailable as error:
                if self._clock.monotonic() >= min(give_up_at, self._until):
                    raise
                self._outage.note(error)
                self._pause(PARK_S)
            else:
                self._outage.end()
                return answer


def merge(batches: Sequence[tuple[RunCommit, ...]]) -> tuple[RunCommit, ...]:
    """Join commits of the same run, in order."""
    merged: dict[RunId, RunCommit] = {}
    for batch in batches:
        for commit in batch:
            before = merged.get(commit.run_id)
            merged[commit.run_id] = commit if before is None else _join(before, commit)
    return tuple(merged.values())


def _join(first: RunCommit, second: RunCommit) -> RunCommit:
    ended = {(row.step_id, row.generation) for row in second.steps}
    return msgspec.structs.replace(
        second,
        steps=first.steps + second.steps,
        expansions=first.expansions + second.expansions,
        waits=first.waits + second.waits,
        deliveries=first.deliveries + second.deliveries,
        # A start row that its own end overtook is not written.
        attempts=tuple(
            attempt
            for attempt in first.attempts
            if attempt.cause is not None or (attempt.step_id, attempt.generation) not in ended
        )
        + second.attempts,
        events=first.events + second.events,
        lost=first.lost + second.lost,
        superseded=first.superseded + second.superseded,
        spent=first.spent + second.spent,
    )
