"""Looking after the values of a resumed run that no step will read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from perdure.engine.advance import reopen
from perdure.engine.commands import Verify
from perdure.engine.events import Verified
from perdure.engine.state import RunState, StepState
from perdure_storage.errors import ValueDamaged, ValueUnavailable
from perdure_storage.protocols import BlobStore
from perdure_storage.records import Digest, Place


def lose_damaged_values(run: RunState, blobs: BlobStore, now: datetime) -> list[Digest]:
    """Verify committed values; those that are gone or damaged are rebuilt.

    Those of the result always; all of them if every step has committed, for then nothing else
    will read them. Inputs of steps that are still to run need no look here: the worker that reads
    them verifies them. Storage that does not answer is left alone: it says nothing about a value.

    Returns:
        The digests to quarantine.
    """
    damaged = []
    for step in list(_to_verify(run)):
        value = step.value
        if not step.is_done or value is None or value.place is Place.INLINE:
            continue
        if value.place is Place.NONE:
            if step.id in run.outputs:
                reopen(run, step, "the result needs it and it was not checkpointed", now)
            continue
        try:
            blobs.open(value.integrity, value.size_bytes)
            run.seen.add(value.integrity)
        except ValueDamaged as error:
            damaged.append(value.integrity)
            reopen(run, step, str(error), now)
        except ValueUnavailable:
            continue
    return damaged


def unseen_results(run: RunState) -> list[Verify]:
    """Return blobs of the result that nobody has written or read since the run was taken on.

    They were taken over, or came up from a branch or graph, when the others had been verified.
    """
    if run.record.epoch == 1 and run.record.reuse_from is None:
        return []  # all that it has was made here
    found = []
    for step_id in sorted(run.outputs):
        value = run.steps[step_id].value
        if value is not None and value.place is Place.BLOB and value.integrity not in run.seen:
            found.append(Verify(run.id, step_id, value))
    return found


def verified(command: Verify, blobs: BlobStore) -> Verified:
    """Look at a blob. Storage that does not answer says nothing against it."""
    value, damage = command.value, ""
    try:
        blobs.open(value.integrity, value.size_bytes).release()
    except ValueDamaged as error:
        damage = str(error)
    except ValueUnavailable:
        pass
    return Verified(command.run_id, command.step_id, value.integrity, damage)


def _to_verify(run: RunState) -> Iterable[StepState]:
    if run.unfinished == 0:
        return run.steps.values()
    return (run.steps[step_id] for step_id in sorted(run.outputs))
