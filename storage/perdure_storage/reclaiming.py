"""A run store that takes condemned blobs back by itself where they are there after all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from perdure_storage.blobs import BlobRoot
from perdure_storage.collection import reclaim
from perdure_storage.errors import BlobsCondemned, PerdureError
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    CommitReport,
    Digest,
    MessageRecord,
    Refusal,
    RunCommit,
    SaveRecord,
)
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.schedule_records import FireReport, ScheduleChange
from perdure_storage.trigger_guards import were_told
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import AcceptReport, TriggerChange

logger = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K", bound=str)


def reclaiming(store: RunStore, blobs: BlobRoot) -> RunStore:
    """Return the store, with a second try for whoever names blobs that gc has condemned.

    What is put again after it was collected still has its mark: that is no reason to run a step
    once more. Only what is really gone is refused in the end.

    Args:
        store: refuses, as its contract says.
        blobs: where the blobs are to be.
    """
    return cast(RunStore, _Reclaiming(store, blobs))


class _Reclaiming:
    """Everything that the store below does; what names blobs tries twice."""

    def __init__(self, below: RunStore, blobs: BlobRoot) -> None:
        self._below = below
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def create_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.create_run(*args, **kwargs))

    def claim_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.claim_run(*args, **kwargs))

    def claim_runs(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.claim_runs(*args, **kwargs))

    @property
    def schedules(self) -> ScheduleStore:
        return cast(ScheduleStore, _ReclaimingSchedules(self._below, self._blobs))

    @property
    def triggers(self) -> TriggerStore:
        return cast(TriggerStore, _ReclaimingTriggers(self._below, self._blobs))

    def reset_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.reset_run(*args, **kwargs))

    def import_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.import_run(*args, **kwargs))

    def send(self, message: MessageRecord) -> MessageRecord | None:
        return self._twice(lambda: self._below.send(message))

    def save(self, save: SaveRecord, **more: Any) -> Refusal | None:
        refusal = self._below.save(save, **more)
        if refusal is None or not _taken_back({"it": refusal}, self._below, self._blobs):
            return refusal
        return self._below.save(save, **more)

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        report = self._below.commit(batch)
        mine = _taken_back(report.refused, self._below, self._blobs)
        if not mine:
            return report
        again = self._below.commit([part for part in batch if part.run_id in mine])
        others = {run_id: r for run_id, r in report.refused.items() if run_id not in mine}
        return CommitReport(
            committed={**report.committed, **again.committed},
            refused={**others, **again.refused},
        )

    def _twice(self, ask: Callable[[], T]) -> T:
        return _twice(ask, self._below, self._blobs)


class _ReclaimingSchedules:
    """Everything that the schedules below do; what names blobs tries twice."""

    def __init__(self, runs: RunStore, blobs: BlobRoot) -> None:
        self._runs = runs
        self._below = runs.schedules
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def register(self, *args: Any, **kwargs: Any) -> Any:
        return _twice(lambda: self._below.register(*args, **kwargs), self._runs, self._blobs)

    def fire(self, batch: Sequence[ScheduleChange]) -> FireReport:
        report = self._below.fire(batch)
        mine = _taken_back(report.refused, self._runs, self._blobs)
        if not mine:
            return report
        again = self._below.fire([change for change in batch if change.schedule.name in mine])
        others = {name: r for name, r in report.refused.items() if name not in mine}
        return FireReport(
            fired={**report.fired, **again.fired},
            refused={**others, **again.refused},
            made=(*report.made, *again.made),
        )


class _ReclaimingTriggers:
    """Everything that the triggers below do; what names blobs tries twice."""

    def __init__(self, runs: RunStore, blobs: BlobRoot) -> None:
        self._runs = runs
        self._below = runs.triggers
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def register(self, *args: Any, **kwargs: Any) -> Any:
        return _twice(lambda: self._below.register(*args, **kwargs), self._runs, self._blobs)

    def accept(self, batch: Sequence[TriggerChange], ends: Collection[int] = ()) -> AcceptReport:
        report = self._below.accept(batch, ends)
        mine = _taken_back(report.refused, self._runs, self._blobs)
        if not mine:
            return report
        others = {name: r for name, r in report.refused.items() if name not in mine}
        again = self._below.accept(
            [change for change in batch if change.trigger.name in mine],
            ends if were_told(others) else (),
        )
        return AcceptReport(
            accepted={**report.accepted, **again.accepted},
            refused={**others, **again.refused},
            known={**report.known, **again.known},
            made=(*report.made, *again.made),
        )


def _taken_back(refused: Mapping[K, Refusal], store: RunStore, blobs: BlobRoot) -> set[K]:
    """Take condemned blobs back; return of what was refused for them what can be tried again."""
    return {
        key
        for key, refusal in refused.items()
        if refusal.kind == "condemned" and _take_back(store, blobs, refusal.digests)
    }


def _twice(ask: Callable[[], T], store: RunStore, blobs: BlobRoot) -> T:
    try:
        return ask()
    except BlobsCondemned as error:
        if not _take_back(store, blobs, error.digests):
            raise
    return ask()


def _take_back(store: RunStore, blobs: BlobRoot, digests: Iterable[str]) -> bool:
    try:
        return reclaim(store, blobs, map(Digest, digests))
    except PerdureError as error:
        # The refusal stands, and says what is to be done; this is only why.
        logger.warning("could not take condemned blobs back: %s", error)
        return False
