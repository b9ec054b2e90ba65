"""Looking after the values of a resumed run that no step will read: those of its result."""

from __future__ import annotations

from datetime import datetime

from perdure.engine.advance import reopen
from perdure.engine.state import RunState
from perdure_storage.errors import ValueDamaged, ValueUnavailable
from perdure_storage.protocols import BlobStore
from perdure_storage.records import Digest, Place


def lose_damaged_outputs(run: RunState, blobs: BlobStore, now: datetime) -> list[Digest]:
    """Verify the committed values of the result; those that are gone or damaged are rebuilt.

    Inputs of steps that are still to run need no look here: the worker that reads them verifies
    them. Storage that does not answer is left alone: it says nothing about the value.

    Returns:
        The digests to quarantine.
    """
    damaged = []
    for step_id in sorted(run.outputs):
        step = run.steps[step_id]
        value = step.value
        if not step.is_done or value is None or value.place is Place.INLINE:
            continue
        if value.place is Place.NONE:
            reopen(run, step, "the result needs it and it was not checkpointed", now)
            continue
        try:
            blobs.open(value.integrity, value.size_bytes)
        except ValueDamaged as error:
            damaged.append(value.integrity)
            reopen(run, step, str(error), now)
        except ValueUnavailable:
            continue
    return damaged
