"""Where running attempts have their saves kept: asked inside ``poll``, in the driving thread."""

from __future__ import annotations

import logging
from collections.abc import Callable

from perdure.calls import CallId, Saving, Told
from perdure.engine.commits import Commits
from perdure.engine.events import CancelRequested, Event, PauseRequested, Saved
from perdure.engine.growth import source_of
from perdure.engine.state import EngineState, RunState
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreError, StoreUnavailable
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    AttemptRecord,
    Owner,
    Refusal,
    RunCommit,
    RunId,
    SaveRecord,
    StepId,
)

log = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
"""How often what attempts tell of themselves is written: it is for people to look at."""
_LOOK_EVERY_S = 0.1


class EngineDesk:
    """The ``Desk`` of one coordinator's attempts. Facts go up as events, for ``decide``.

    Args:
        store: where saves are kept, each in a transaction of its own.
        engine: whose attempts they are; only read here.
        commits: waits for a store that does not answer.
        owner: whose runs they are.
        clock: wall and monotonic time.
        on_commit: as that of ``Coordinator``.
    """

    def __init__(
        self,
        store: RunStore,
        engine: EngineState,
        commits: Commits,
        owner: Owner,
        clock: Clock,
        on_commit: Callable[[RunCommit], None],
    ) -> None:
        self._store = store
        self._engine = engine
        self._commits = commits
        self._owner = owner
        self._clock = clock
        self._on_commit = on_commit
        self._told: dict[CallId, Told] = {}
        self._told_at = float("-inf")
        self._looked_at: dict[str, float] = {}
        self._events: list[Event] = []

    # --- for executors ----------------------------------------------------------------------
    def keep(self, saving: Saving) -> Refusal | None:
        """Make a save durable, and return None once it is; or why it is not kept."""
        run = self._run_of(saving.call)
        if run is None:
            return Refusal(kind="stale", message="the attempt is not this coordinator's any more")
        save = self._record(run, saving)
        try:
            refusal = self._commits.patiently(
                lambda: self._store.save(
                    save,
                    owner=self._owner.token,
                    epoch=run.record.epoch,
                    keep_last=saving.keep_last,
                )
            )
        except StoreUnavailable as error:
            return Refusal(kind="unavailable", message=str(error))
        except StoreError as error:
            return Refusal(kind="rejected", message=str(error))
        if refusal is None:
            self._events.append(Saved(save, saving.keep_last))
        else:
            log.warning("save refused: %s", refusal.message, extra={"run_id": run.id})
        return refusal

    def tell(self, told: Told) -> None:
        """Take note of how far an attempt is, and write what was told, once in a while."""
        self._told[told.call] = told
        self.write_told()

    def look(self, call: CallId) -> bool:
        """Say whether the run is paused or cancelled: for steps in this thread, which blocks."""
        run, now = self._run_of(call), self._clock.monotonic()
        if run is None or run.ending is not None or run.paused or run.handed_back:
            return True
        if now - self._looked_at.get(run.id, float("-inf")) < _LOOK_EVERY_S:
            return False
        self._looked_at = {run.id: now}
        try:
            record = self._store.get_run(run.id)
        except PerdureError as error:
            log.debug("cannot look for requests now: %s", error, extra={"run_id": run.id})
            return False
        # The engine hears of it with the end of the attempt, not after it has started another.
        if record.cancel_requested:
            self._events.append(CancelRequested(run.id))
        if record.pause_requested:
            self._events.append(PauseRequested(run.id, True))
        return record.cancel_requested or record.pause_requested

    # --- for the coordinator ------------------------------------------------------------------
    def write_told(self) -> None:
        """Write what attempts have told of themselves, if the last time is long enough ago."""
        now = self._clock.monotonic()
        if not self._told or now - self._told_at < TELL_EVERY_S:
            return
        told, self._told, self._told_at = self._told, {}, now
        attempts: dict[RunId, list[AttemptRecord]] = {}
        for each in told.values():
            run = self._run_of(each.call)
            if run is not None:
                attempts.setdefault(run.id, []).append(_attempt_of(run, each))
        commits = [self._commit(run_id, rows) for run_id, rows in attempts.items()]
        try:
            report = self._store.commit(commits)
        except StoreUnavailable as error:
            log.debug("cannot write progress now: %s", error)
            return
        for commit in commits:
            if commit.run_id not in report.refused:
                self._on_commit(commit)

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    def _commit(self, run_id: RunId, attempts: list[AttemptRecord]) -> RunCommit:
        return RunCommit(
            run_id=run_id,
            owner=self._owner.token,
            epoch=self._engine.runs[run_id].record.epoch,
            attempts=tuple(attempts),
        )

    def _run_of(self, call: CallId) -> RunState | None:
        run = self._engine.runs.get(call.run_id)
        return run if run is not None and call in run.running else None

    def _record(self, run: RunState, saving: Saving) -> SaveRecord:
        step = run.running[saving.call]
        return SaveRecord(
            run_id=run.id,
            step_id=StepId(step.id),
            generation=saving.call.generation,
            attempt=saving.call.attempt,
            item=saving.item,
            at=saving.at,
            source=source_of(run, step),
            value=saving.value,
            saved_at=self._clock.now(),
        )


def _attempt_of(run: RunState, told: Told) -> AttemptRecord:
    step = run.running[told.call]
    step.progress = told.progress
    return AttemptRecord(
        run_id=run.id,
        step_id=StepId(step.id),
        generation=told.call.generation,
        attempt=told.call.attempt,
        started_at=step.begun_at,
        progress=told.progress,
    )
