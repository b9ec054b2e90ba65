"""Frozen rows of triggers: what has happened, and what became of it.

A store does not know what a trigger means. Its definition and its state are JSON texts that come
from the caller and go back to it; only what a store has to ask about is kept apart.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Digest, Refusal, RunId, RunRecord, StoredValue

LONGEST_KEY_BYTES = 2_000
"""How long the key of an arrival may be, in UTF-8: an index of PostgreSQL takes little more."""


class TriggerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger: a definition, and how far it has come.

    Attributes:
        name: names it; its arrivals and its runs refer to it by that.
        definition: JSON text; opaque.
        digest: of the definition, so that another one is seen without being read.
        module: which declares it; None if a person registered it.
        plan_digest: of the plan that its runs have; None: who claims a run builds its plan.
        blobs: which the definition names, kept from gc while the trigger is there.
        events: names of the events of which it wants to know.
        heard: number of the newest event that it has read: later ones are kept for it.
        watches_runs: it wants to know when runs end.
        listens: it has sources that somebody has to listen to.
        state: JSON text; opaque. Cursors of its sources are in it.
        next_at: when time alone brings a decision; None: it brings none.
        paused: it makes no runs; for lists, and for who would listen.
        listener: token of the coordinator that listens for it; given by the store.
        version: grows by one with each change; 0 for one that was never stored.
        created_at, updated_at: given by the store.
    """

    name: str
    definition: str
    digest: str
    module: str | None = None
    plan_digest: Digest | None = None
    blobs: tuple[Digest, ...] = ()
    events: tuple[str, ...] = ()
    heard: int = 0
    watches_runs: bool = False
    listens: bool = False
    state: str
    next_at: datetime | None = None
    paused: bool = False
    listener: str | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ArrivalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, once, and what became of it. Key: (trigger, key).

    Attributes:
        key: of several arrivals of one trigger with one key, the first counts. Of at most
            ``LONGEST_KEY_BYTES``.
        seq: given by the store; later ones of a trigger have larger ones.
        condition: name of the part of the trigger that it answers.
        at: when it was received.
        facts: JSON text: what is known of it; opaque.
        payload: a value that only travels whole, kept from gc while the row is there.
        decision: what became of it, in the words of the caller.
        why: the reason for programs, in the words of the caller.
        reason: the reason for people.
        decided_at: when that was decided.
        run_id: the run that it made, or had a part in.
        code: the code of that run, as far as it is known: an entry point, or a digest.
    """

    trigger: str
    key: str
    seq: int = 0
    condition: str = ""
    at: datetime
    facts: str = "{}"
    payload: StoredValue | None = None
    decision: str
    why: str = ""
    reason: str = ""
    decided_at: datetime
    run_id: RunId | None = None
    code: str = ""


class TriggerChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changes with a trigger, together.

    Attributes:
        trigger: the row as it was read, its ``version`` included, with what is new in it.
        moves: whether anything of the row is new, or an earlier arrival is decided anew. False:
            new arrivals alone are written, whatever the version is by then.
        arrivals: new ones, in the order in which they were decided.
        revised: earlier ones about which something else is decided now, as they are from now on.
        runs: to be made, QUEUED: without a plan, or with one that is there; each is named by an
            arrival of this change.
    """

    trigger: TriggerRecord
    moves: bool = True
    arrivals: tuple[ArrivalRecord, ...] = ()
    revised: tuple[ArrivalRecord, ...] = ()
    runs: tuple[RunRecord, ...] = ()


class AcceptReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch of changes.

    Attributes:
        accepted: the rows after the change, by name.
        refused: why a change did not land, by name: ``"stale"``, ``"gone"``, ``"condemned"`` or
            ``"rejected"``.
        known: arrivals that were there already, as they are, by trigger and key: of these nothing
            was written, and no run made. Of a change that is rejected none is told.
        made: the runs that did not exist before, in the order of the changes.
    """

    accepted: dict[str, TriggerRecord] = {}
    refused: dict[str, Refusal] = {}
    known: dict[tuple[str, str], ArrivalRecord] = {}
    made: tuple[RunId, ...] = ()


class EndRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run, kept until triggers have been told of it.

    Attributes:
        id: given by the store; no order is promised.
        seq: the run's sequence number then: a run that is opened again may end again.
        trigger, schedule: what made the run.
        created_at: when the run was made: another one may have the id of one that was deleted. None
            only of ends that an older version wrote.
    """

    id: int
    run_id: RunId
    seq: int
    status: RunStatus
    workflow: str
    tags: dict[str, str] = {}
    trigger: str | None = None
    schedule: str | None = None
    at: datetime
    created_at: datetime | None = None


class TriggerQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of triggers by name. ``after`` is the name of the last one of the page before."""

    module: str | None = None
    paused: bool | None = None
    watches_runs: bool | None = None
    listens: bool | None = None
    name_prefix: str = ""
    limit: int = 100
    after: str | None = None


class ArrivalQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of arrivals of a trigger, newest first; with ``oldest_first`` the other way round.

    Attributes:
        decision: only those of which this was decided.
        beyond: only those that come after the one of this ``seq``, in the order asked for.
    """

    trigger: str
    decision: str | None = None
    beyond: int | None = None
    oldest_first: bool = False
    limit: int = 100
