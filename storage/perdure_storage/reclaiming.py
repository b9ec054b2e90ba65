"""A run store that takes condemned blobs back by itself where they are there after all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from perdure_storage.blobs import BlobRoot
from perdure_storage.collection import reclaim
from perdure_storage.errors import BlobsCondemned, PerdureError
from perdure_storage.protocols import RunStore
from perdure_storage.records import CommitReport, Digest, MessageRecord, RunCommit

logger = logging.getLogger(__name__)
T = TypeVar("T")


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
    """Everything that the store below does; four methods try twice."""

    def __init__(self, below: RunStore, blobs: BlobRoot) -> None:
        self._below = below
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def create_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.create_run(*args, **kwargs))

    def reset_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._twice(lambda: self._below.reset_run(*args, **kwargs))

    def send(self, message: MessageRecord) -> MessageRecord | None:
        return self._twice(lambda: self._below.send(message))

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        report = self._below.commit(batch)
        mine = {
            run_id
            for run_id, refusal in report.refused.items()
            if refusal.kind == "condemned" and self._reclaim(refusal.digests)
        }
        if not mine:
            return report
        again = self._below.commit([part for part in batch if part.run_id in mine])
        others = {run_id: r for run_id, r in report.refused.items() if run_id not in mine}
        return CommitReport(
            committed={**report.committed, **again.committed},
            refused={**others, **again.refused},
        )

    def _twice(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BlobsCondemned as error:
            if not self._reclaim(error.digests):
                raise
        return ask()

    def _reclaim(self, digests: Iterable[str]) -> bool:
        try:
            return reclaim(self._below, self._blobs, map(Digest, digests))
        except PerdureError as error:
            # The refusal stands, and says what is to be done; this is only why.
            logger.warning("could not take condemned blobs back: %s", error)
            return False
