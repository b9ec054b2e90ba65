"""The contract of stores of queues: docstrings that are law. ``contract_queues.py`` tests it.

A queue is a row with limits. Who has a slot is read off the runs, so that no slot can leak: *a run
of a queue has a slot while it has an owner*. It takes one with the claim that finds it without an
owner, and gives it back with what clears the owner: its end, a release, a reset, a pause. A run
whose owner died keeps its slot, and so does who takes it over.

``RunStore.claim_run`` and ``claim_runs`` count under the lock of the queue's row, so that limits
hold whatever number of coordinators claim at once; ``RunStore.claimable`` gives the runs whose turn
it is. A queue without a row has no limits.
"""

from __future__ import annotations

from typing import Protocol

from perdure_storage.queue_records import QueueRecord, QueueStanding


class QueueStore(Protocol):
    """Queues and how they stand."""

    def put_queue(self, queue: QueueRecord) -> QueueRecord | None:
        """Insert a queue, or replace the limits of one.

        Guard: the version of ``queue`` is the stored one; 0: no queue has the name. Returns the row
        as it is now, its version one more, or None if the guard failed: nothing was written, read
        it again. Limits that shrink end no run: none begins until there is room. Raises StoreError
        if the row cannot be stored.
        """
        ...

    def remove_queue(self, name: str) -> bool:
        """Remove a queue's limits; return whether it was there. Its runs go on without them."""
        ...

    def find_queue(self, name: str) -> QueueRecord | None:
        """Return the queue, or None."""
        ...

    def list_queues(self) -> list[QueueRecord]:
        """Return all queues, by name."""
        ...

    def standing(self, name: str) -> QueueStanding:
        """Return how a queue stands now, whether it has a row or not."""
        ...
