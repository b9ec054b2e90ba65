"""Watching one run while somebody waits for it: a thread that looks, and shows what it sees."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from perdure.engine.ownership import is_driven
from perdure.progress.board import commit_of
from perdure_storage.errors import PerdureError
from perdure_storage.lifecycle import RUN_TERMINAL
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    AttemptRecord,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
    StepKey,
)

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.125
LOOK_AT_LEAST_EVERY_S = 0.5
SHOW_SHARE = 50
"""Showing may take one part in so many of the time, as far as that leaves a view that moves."""
READ_SHARE = 5
"""So may reading the store, where another process drives the run."""


class Display(Protocol):
    """Where progress is shown. Used by one thread at a time."""

    def update(self, commits: list[RunCommit]) -> None:
        """Take in facts and show what has become of the run."""
        ...

    def close(self) -> None:
        """Take away what does not stay."""
        ...


class Watch:
    """Shows a run while the ``with`` block runs. A view that fails costs the view, never the run.

    Args:
        facts: where its news come from.
        display: where they are shown.
    """

    def __init__(self, facts: Facts, display: Display) -> None:
        self._facts = facts
        self._display = display
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._loop, name="perdure-progress", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._turn(last=True)
        try:
            self._display.close()
        except (OSError, ValueError) as error:  # the terminal is gone
            log.debug("could not close the view of the run's progress: %s", error)

    def _loop(self) -> None:
        pause = LOOK_EVERY_S
        while not self._stop.wait(pause) and not self._failed:
            pause = max(LOOK_EVERY_S, min(SHOW_SHARE * self._turn(), LOOK_AT_LEAST_EVERY_S))

    def _turn(self, *, last: bool = False) -> float:
        """Look once; return how long showing took, in seconds."""
        if self._failed:
            return 0.0
        try:
            commits = self._facts.take(last=last)
            began = time.monotonic()
            self._display.update(commits)
            return time.monotonic() - began
        except PerdureError as error:
            log.debug("could not look at the run: %s", error)
        except Exception:
            self._failed = True
            log.debug("the view of the run's progress has failed", exc_info=True)
        return 0.0


class Facts:
    """The news of one run: overheard where this process drives it, else read from the store.

    ``overheard`` is filled by the driving thread; all else is used by one thread at a time.

    Args:
        store: where the run is.
        run_id: the run.
        drives: says whether this process drives it now.
    """

    def __init__(self, store: RunStore, run_id: RunId, drives: Callable[[], bool]) -> None:
        self.overheard: deque[RunCommit] = deque()
        self._store = store
        self._run_id = run_id
        self._drives = drives
        self._changes: object = None
        self._current: set[StepKey] = set()
        self._next_read = float("-inf")
        self._is_ours = False
        self._is_over = False

    def take(self, *, last: bool = False) -> list[RunCommit]:
        """Return what is new since the last time; things may be told again.

        Args:
            last: the store is read even if that was not long ago.
        """
        if self._is_over:
            return []
        was_ours, self._is_ours = self._is_ours, self._drives()
        if self.overheard or self._is_ours or (was_ours and not last):
            # A run that has just left our hands has its end on the way: that is not to be read.
            commits = [self.overheard.popleft() for _ in range(len(self.overheard))]
        else:
            commits = self._look(last=last)
        self._is_over = any(commit.end is not None for commit in commits)
        return commits

    def _look(self, *, last: bool) -> list[RunCommit]:
        began = time.monotonic()
        if began < self._next_read and not last:
            return []
        changes = self._store.changes()
        if changes == self._changes:
            return []
        commit = self._read()
        self._changes = changes
        self._next_read = began + READ_SHARE * (time.monotonic() - began)
        return [commit]

    def _read(self) -> RunCommit:
        """Return all that the store has as if it had been committed just now."""
        rows = self._store.list_steps(self._run_id)
        attempts = self._store.list_attempts(self._run_id)
        expansions = self._store.list_expansions(self._run_id)
        waits = self._store.list_waits(self._run_id)
        record = self._store.find_run(self._run_id)
        if record is not None:
            attempts = in_flight_or_ended(attempts, record)
        current = {StepKey(row.step_id, row.generation) for row in rows}
        lost, self._current = self._current - current, current
        end = None
        if record is not None and record.status in RUN_TERMINAL:
            end = RunEnd(status=record.status, error=record.error)
        commit = commit_of(rows, attempts, expansions, waits)
        return msgspec.structs.replace(commit, lost=tuple(lost), end=end)


def in_flight_or_ended(attempts: list[AttemptRecord], record: RunRecord) -> list[AttemptRecord]:
    """Leave out what a dead owner had in flight: nothing of it runs, though no row says so yet.

    Args:
        attempts: a run's attempts.
        record: the run.
    """
    if is_driven(record):
        return attempts
    return [attempt for attempt in attempts if attempt.cause is not None]
