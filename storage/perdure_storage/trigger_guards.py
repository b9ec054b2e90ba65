"""What must stand before a trigger may change, as pure functions that every store asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from perdure_storage import guards
from perdure_storage.errors import InternalError, StoreError
from perdure_storage.records import Digest, PlanRecord, Refusal, RunRecord
from perdure_storage.trigger_records import (
    LONGEST_KEY_BYTES,
    ArrivalRecord,
    TriggerChange,
    TriggerRecord,
)

DEFERRED = "deferred"
UNDECIDED = ("held", DEFERRED)
"""Decisions of arrivals about which something is still to be decided: no retention takes them."""

_replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is asked about a stored trigger before a change of it lands."""

    version: int
    digest: str
    paused: bool

    @classmethod
    def of(cls, trigger: TriggerRecord) -> Standing:
        """Return that of a trigger."""
        return cls(version=trigger.version, digest=trigger.digest, paused=trigger.paused)


def require_distinct(batch: Sequence[TriggerChange]) -> None:
    """Raise InternalError if a trigger is in the batch twice: the second was not read after it."""
    if len({change.trigger.name for change in batch}) != len(batch):
        raise InternalError("a batch of changes holds the same trigger twice")


def require_consistent(change: TriggerChange) -> None:
    """Raise InternalError if the parts of a change do not belong together."""
    name = change.trigger.name
    arrivals = (*change.arrivals, *change.revised)
    owners = {arrival.trigger for arrival in arrivals} | {run.trigger for run in change.runs}
    if not owners <= {name}:
        raise InternalError(f"the change of trigger {name!r} holds arrivals or runs of another one")
    if len({arrival.key for arrival in arrivals}) != len(arrivals):
        raise InternalError(f"the change of trigger {name!r} holds an arrival twice")
    if change.revised and not change.moves:
        raise InternalError(f"trigger {name!r} is to decide anew, without having been read for it")
    if not {run.id for run in change.runs} <= {arrival.run_id for arrival in arrivals}:
        raise InternalError(f"a run of trigger {name!r} is named by no arrival")


def require_plan(change: TriggerChange, plan: PlanRecord | None) -> None:
    """Raise InternalError unless the plan is the one that the trigger names."""
    guards.require_own_plan(_named(change), change.trigger.plan_digest, plan)


def require_storable(change: TriggerChange) -> None:
    """Raise StoreError if no database could take a row of the change."""
    t = change.trigger
    texts = [t.name, t.definition, t.digest, t.module or "", t.state, *t.events]
    for run in change.runs:
        texts += guards.texts_of_run(run)
    for arrival in (*change.arrivals, *change.revised):
        texts += _texts_of(arrival)
    guards.require_storable(_named(change), texts, [t.heard, *(r.priority for r in change.runs)])
    for key in (arrival.key for arrival in change.arrivals):
        if (size := len(key.encode())) > LONGEST_KEY_BYTES:
            raise StoreError(
                f"{_named(change)} cannot be stored: the key of an arrival has {size:,} bytes, and"
                f" {LONGEST_KEY_BYTES:,} at most are kept: {key[:40]!r}..."
            )


def _texts_of(arrival: ArrivalRecord) -> tuple[str, ...]:
    a = arrival
    return a.key, a.condition, a.facts, a.decision, a.why, a.reason, a.run_id or "", a.code


def blobs_of_arrival(arrival: ArrivalRecord) -> tuple[Digest, ...]:
    """Return the blob that an arrival refers to, if it refers to one."""
    return guards.blobs_of_value(arrival.payload)


def blobs_of_change(change: TriggerChange) -> set[Digest]:
    """Return the blobs that the arrivals and the runs of a change refer to."""
    of_arrivals = {blob for arrival in change.arrivals for blob in blobs_of_arrival(arrival)}
    return of_arrivals | guards.blobs_of_runs(change.runs)


def stale(change: TriggerChange, stored: Standing | None) -> Refusal | None:
    """Return the refusal of a change that was decided on something else than what is stored.

    What moves nothing is not decided by the state: many may bring arrivals at once. But what the
    trigger is, and whether it is paused, does decide.
    """
    read = change.trigger
    if stored is None or (change.moves and stored.version != read.version):
        version = None if stored is None else stored.version
        return guards.stale_of(_named(change), read.version, version)
    if change.moves or (stored.digest, stored.paused) == (read.digest, read.paused):
        return None
    why = "it was paused, resumed or registered anew since it was read"
    return Refusal(kind="stale", message=f"{_named(change)}: {why}")


def lets_go_on(change: TriggerChange, stored: Standing) -> bool:
    """Say whether a paused trigger would go on: then nothing may be left that was put off."""
    return change.moves and stored.paused and not change.trigger.paused


def left_behind(change: TriggerChange, deferred: Collection[str]) -> Refusal | None:
    """Return the refusal of a change that lets a trigger go on without what was put off."""
    keys = set(deferred) - {arrival.key for arrival in change.revised}
    if not keys:
        return None
    return Refusal(
        kind="stale", message=f"{_named(change)}: {min(keys)!r} was put off, and is not decided"
    )


def already_there(change: TriggerChange, keys: Collection[str]) -> Refusal | None:
    """Return the refusal of a change that rests on arrivals being new which are there."""
    if not change.moves or not keys:
        return None
    first = min(keys)
    return Refusal(kind="stale", message=f"{_named(change)}: {first!r} has arrived already")


def condemned(change: TriggerChange, digests: Iterable[Digest]) -> Refusal:
    """Return the refusal of a change that names blobs which gc is taking."""
    return guards.condemned_of(_named(change), digests)


def rejected(change: TriggerChange, why: str) -> Refusal:
    """Return the refusal of a change with a row that the store will not take."""
    return Refusal(kind="rejected", message=f"{_named(change)}: {why}")


def without(change: TriggerChange, known: Collection[str]) -> TriggerChange:
    """Return the change without the arrivals of those keys, and the runs that only they name."""
    if not known:
        return change
    arrivals = tuple(arrival for arrival in change.arrivals if arrival.key not in known)
    named = {arrival.run_id for arrival in (*arrivals, *change.revised)}
    runs: tuple[RunRecord, ...] = tuple(run for run in change.runs if run.id in named)
    return _replace(change, arrivals=arrivals, runs=runs)


def after(stored: TriggerRecord, change: TriggerChange, now: datetime) -> TriggerRecord:
    """Return the stored row after a change; arrivals change nothing of the definition."""
    if not change.moves:
        return stored
    new = change.trigger
    return _replace(
        stored,
        version=stored.version + 1,
        updated_at=now,
        state=new.state,
        heard=new.heard,
        next_at=new.next_at,
        paused=new.paused,
        listener=None if new.paused else stored.listener,
    )


def revised(stored: ArrivalRecord, new: ArrivalRecord) -> ArrivalRecord:
    """Return a stored arrival with another decision."""
    return _replace(
        stored,
        decision=new.decision,
        why=new.why,
        reason=new.reason,
        decided_at=new.decided_at,
        run_id=new.run_id,
        code=new.code,
    )


def were_told(refused: Mapping[str, Refusal]) -> bool:
    """Say whether every trigger of a batch that is there has been told, by who was refused."""
    return all(refusal.kind == "gone" for refusal in refused.values())


def _named(change: TriggerChange) -> str:
    return f"trigger {change.trigger.name!r}"
