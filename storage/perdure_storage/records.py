"""Frozen rows: what a store keeps and gives back, as plain values.

Everything here is immutable, has no behaviour beyond naming itself, and travels as it is over
pipes and in plans (msgspec). Times are aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NewType

import msgspec

from perdure_storage.lifecycle import RunStatus, StepStatus

RunId = NewType("RunId", str)
StepId = NewType("StepId", str)
Digest = NewType("Digest", str)
"""``<algorithm>:<hex>``; the integrity digest of bytes, ``blake3:...``."""


AMOUNT_SLACK = 1e-9
"""Parts of something add up to it, whatever the last bit of a float says."""


class Place(StrEnum):
    """Where the bytes of a value are."""

    INLINE = "inline"  # in the row itself
    BLOB = "blob"  # in the blob store, by integrity digest, fsynced
    SPOOL = "spool"  # in the run's unsynced spool: gone after a crash, never named by a row
    NONE = "none"  # nowhere: the step has ``checkpoint=False``; rebuilt from lineage


class StoredValue(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One encoded value: where its bytes are, what they are, and what it looked like.

    Attributes:
        codec: name and version, ``"json/1"``.
        place: where the bytes are; ``data`` holds them if ``INLINE``.
        size_bytes: length of the encoded bytes.
        integrity: BLAKE3 of the encoded bytes; the blob's name.
        value_digest: compares values over processes, ``"v1:<hex>"``; ``"opaque:<hex>"`` where
            equality proves sameness and difference proves nothing.
        parts: value digests of the projections that other steps consume, by path text.
        preview: JSON made when the value was stored, so that looking never decodes.
        files: of a folder, the blobs that hold its files; who refers to the value refers to
            them too. Steps have no such values: their rows do not keep it.
    """

    codec: str
    place: Place
    size_bytes: int
    integrity: Digest
    value_digest: str
    data: bytes | None = None
    parts: dict[str, str] = {}
    preview: str = ""
    files: tuple[Digest, ...] = ()


class Cause(StrEnum):
    """How an attempt ended. The causes are told apart because they spend different budgets."""

    SUCCEEDED = "succeeded"
    USER_ERROR = "user error"  # the user's code raised: spends ``retries``
    TIMEOUT = "timeout"  # as a user error, StepTimeout
    WORKER_LOST = "worker lost"  # process died, node gone: spends ``lost_retries``
    OUT_OF_MEMORY = "out of memory"  # as lost, once
    SETUP_ERROR = "setup error"  # code changed, import failed, secret missing: spends nothing
    INPUT_LOST = "input lost"  # an input was missing or damaged: spends nothing
    INPUT_UNAVAILABLE = "input unavailable"  # storage does not answer: spends nothing, waits
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  # its coordinator died or handed back: charges nobody
    ENGINE_ERROR = "engine error"


class ErrorRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An exception as data: always readable, never unpickled by looking.

    Attributes:
        type: qualified name, ``"builtins.ValueError"``.
        traceback: text, the user's frames only where that is possible.
        pickled: the exception by cloudpickle, if it could be; decoded only to be raised.
    """

    type: str
    message: str
    traceback: str = ""
    cause: Cause = Cause.USER_ERROR
    step_id: str | None = None
    pickled: bytes | None = None


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A coordinator: one process, told apart from any other that ever had its pid.

    Attributes:
        token: unique for each coordinator; what rows refer to.
        started: the process's start time in seconds since the epoch, as psutil reports it.
        serves: takes on any run that nobody drives, as ``perdure up`` does.
        offer: how much steps may have there in all, by name; of one that serves.
    """

    token: str
    host: str
    boot_id: str
    pid_ns: str
    pid: int
    started: float
    serves: bool = False
    offer: tuple[tuple[str, float], ...] = ()

    @property
    def place(self) -> str:
        """Return where it is, as people are told: ``process 7 on here``."""
        return f"process {self.pid} on {self.host}"


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be mistaken for a later one of the same number."""

    pid: int
    started: float


class RunPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is to be driven; recorded with it. Values are those of the public functions.

    Attributes:
        trace: W3C's ``traceparent`` of the span in which it was asked for, if there was one.
    """

    durability: str = "step"
    on_failure: str = "stop"
    on_change: str = "recompute"
    on_divergence: str = "fail"
    executor: str | None = None
    code: str = "recorded"
    trace: str | None = None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One durable execution of a plan.

    Attributes:
        plan_digest: names its plan; None until who claims it has built that from ``origin``.
        origin: entry point that can make the plan again, ``"package.module:workflow"`` or
            ``"/path/file.py:workflow"``; None if nothing can.
        inputs: the workflow's arguments by parameter name, defaults included.
        inputs_digest: digest over the value digests of ``inputs``.
        reuse_from: run whose unchanged steps this run takes over.
        forked_from: run of which this one is a rerun, fork or reuse.
        owner: who drives it now; None while nobody does.
        lease_live: whether the owner's lease stood when the row was read.
        epoch: fencing number; grows by one with each claim.
        takeovers: claims in a row that followed a dead owner without a new commit since.
        seq: commit sequence number of the newest step row or event.
        wake_at: when a WAITING run has something to do.
        schedule: whose tick made it.
        by_hand: whether somebody asked that schedule for it: policies leave it out.
        trigger: whose arrival made it.
        limit_key: of a run in a queue, the key under which others count as alike; "" for none.
        dedup_key: of a run in a queue, what no other live run of that queue may have too.
    """

    id: RunId
    workflow: str
    status: RunStatus
    plan_digest: Digest | None
    origin: str | None = None
    inputs: dict[str, StoredValue] = {}
    inputs_digest: str = ""
    policy: RunPolicy = RunPolicy()
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    parent: RunId | None = None
    forked_from: RunId | None = None
    reuse_from: RunId | None = None
    queue: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: ErrorRecord | None = None
    owner: Owner | None = None
    lease_live: bool = False
    epoch: int = 0
    takeovers: int = 0
    seq: int = 0
    wake_at: datetime | None = None
    cancel_requested: bool = False
    pause_requested: bool = False
    schedule: str | None = None
    by_hand: bool = False
    trigger: str | None = None
    limit_key: str = ""
    dedup_key: str | None = None


class StepRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One generation of a step, written once: when it ends. Pending steps have no row.

    Attributes:
        generation: one life of the step's result, from 1.
        current: whether this generation is the one that counts; older ones are history.
        attempt: number of the attempt that ended it.
        own: digest over its code, its constants and the options that enter the result.
        fingerprint: ``own`` together with the fingerprints upstream.
        inputs: value digests consumed, in the order of the plan's references.
        caught: the value is a ``Failure`` that ``catch=True`` made of an error; of a FAILED row,
            that a step around it, with ``catch=True``, has this failure as its value.
        reason: why it ran, or why it was taken over without running.
        peak_memory_bytes: what the attempt that ended it held at most; None if that is not known.
        seq: the run's commit sequence number, given by the store.
        states: of a call of an actor, the actor's state after it, by the id of the actor: its
            snapshot. In the row of the result, so that neither is ever there without the other.
    """

    run_id: RunId
    step_id: StepId
    generation: int
    status: StepStatus
    current: bool = True
    attempt: int = 1
    name: str = ""
    own: str = ""
    code: str = ""
    fingerprint: str = ""
    inputs: tuple[str, ...] = ()
    value: StoredValue | None = None
    error: ErrorRecord | None = None
    caught: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str = ""
    reason: str = ""
    peak_memory_bytes: int | None = None
    seq: int = 0
    states: dict[str, StoredValue] = {}


class Progress(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How far a step says that it has come: for people to look at, nothing is decided by it.

    Attributes:
        done, total: in whatever the step counts; ``total`` is None if it does not know.
        item: of a step that takes several items, the one that said so.
    """

    done: float
    total: float | None = None
    message: str = ""
    at: datetime
    item: str = ""


class AttemptRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One try of a step; ``cause`` is None while it runs. Key: (run, step, generation, attempt)."""

    run_id: RunId
    step_id: StepId
    generation: int
    attempt: int
    cause: Cause | None = None
    error: ErrorRecord | None = None
    worker: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    not_before: datetime | None = None
    peak_memory_bytes: int | None = None
    progress: Progress | None = None


class SaveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a step saved while it ran, for its next attempt to go on from.

    Attributes:
        generation, attempt: who saved it.
        item: of a step that takes several items, the one that it belongs to; else "".
        number: given by the store; later saves of a step have larger ones.
        at: what the step calls the place that it had come to.
        source: digest of what it was made from: the step as it was, and what it consumed.
    """

    run_id: RunId
    step_id: StepId
    generation: int
    attempt: int
    item: str = ""
    number: int = 0
    at: int
    source: str = ""
    value: StoredValue
    saved_at: datetime


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a run's durable story beyond its step rows. ``seq`` is given by the store."""

    kind: str
    at: datetime
    step_id: StepId | None = None
    detail: dict[str, Any] = {}
    seq: int = 0


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as the store sees it: JSON bytes under their digest, and the blobs they name.

    Attributes:
        needs: the most that any of its steps asks for, by name of what it is; empty if that is
            no more than anybody has.
    """

    digest: Digest
    body: bytes
    blobs: tuple[Digest, ...] = ()
    needs: dict[str, float] = {}


class BuiltPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that was made without a plan gets with its first claim.

    Attributes:
        plan: built from the run's ``origin`` as it is today.
        inputs: the run's own, checked against that code, defaults included.
        inputs_digest: digest over their value digests.
    """

    plan: PlanRecord
    inputs: dict[str, StoredValue]
    inputs_digest: str


NOTHING_BUILT: Mapping[RunId, BuiltPlan] = MappingProxyType({})
"""For who claims runs that all have their plans."""

NOTHING_SEEN: Mapping[RunId, int] = MappingProxyType({})
"""For who claims runs in whichever epoch they are."""


class ExpansionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that a step gave in place of its value: one row, at any width.

    Attributes:
        step_id, generation: the life of the step that gave it.
        link: 0, or for a chain of tail calls the number of its link.
        kind: ``"graph"`` (a returned node) or ``"map"``.
        count: how many steps are in it.
        source: digest of what it was made from: the step as it was, and what it consumed.
        plan: the graph; its step ids are those of the run.
    """

    run_id: RunId
    step_id: StepId
    generation: int
    link: int = 0
    kind: str = "graph"
    count: int
    source: str = ""
    plan: PlanRecord


class WaitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one life of a step waits for; open until that life has a step row.

    Attributes:
        kind: ``"sleep"``, ``"signal"``, ``"event"`` or ``"steps"``.
        name: of the signal or event.
        match: what an event has to say about itself, item by item.
        deadline: when the waiting ends by itself; None: never.
        default: the step's value then; None: it fails with a time-out.
        source: digest of what it was made from: the step as it was, and what it consumed.
        message: id of the message that ended it.
    """

    run_id: RunId
    step_id: StepId
    generation: int
    kind: str
    name: str = ""
    match: dict[str, Any] = {}
    deadline: datetime | None = None
    default: StoredValue | None = None
    source: str = ""
    message: int | None = None


class MessageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A signal to one run, or an event for any.

    Attributes:
        id: given by the store; later messages have larger ones.
        run_id: whom a signal is for; None for an event.
        match: what an event says about itself; waits select by it.
        dedup_key: of several messages with one key, to one run under one name, the first counts.
        sender: the run of whose steps one sent it; None if no step did.
    """

    id: int = 0
    run_id: RunId | None = None
    name: str
    value: StoredValue
    match: dict[str, Any] = {}
    dedup_key: str | None = None
    at: datetime
    sender: RunId | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message that ends the wait of one life of a step."""

    message: int
    step_id: StepId
    generation: int


class StepKey(msgspec.Struct, frozen=True, gc=False):
    """Names one generation of one step within a run."""

    step_id: StepId
    generation: int


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The one terminal transition of a run."""

    status: RunStatus
    error: ErrorRecord | None = None


class RunCommit(msgspec.Struct, frozen=True, kw_only=True):
    """What one run contributes to a commit batch. Everything of it lands, or nothing.

    Attributes:
        steps: rows of generations that ended, to insert.
        attempts: started or ended tries, inserted or overwritten by key.
        lost: current SUCCEEDED rows whose value is gone: they become LOST, no longer current.
        superseded: current rows that no longer count (changed code, new fork): history from now.
        end: the terminal transition, in the same transaction as the last checkpoint.
        wake_at: earliest deadline that the run waits for.
        expansions: graphs that steps gave in place of their values, to insert.
        waits: what steps wait for in place of having values, to insert.
        deliveries: messages that end waits; the step rows that they end with come along.
        spent: steps whose saves nobody needs any more: they have their values.
    """

    run_id: RunId
    owner: str
    epoch: int
    steps: tuple[StepRecord, ...] = ()
    expansions: tuple[ExpansionRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    events: tuple[EventRecord, ...] = ()
    lost: tuple[StepKey, ...] = ()
    superseded: tuple[StepKey, ...] = ()
    waits: tuple[WaitRecord, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    spent: tuple[StepId, ...] = ()
    end: RunEnd | None = None
    wake_at: datetime | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run's part of a batch did not land.

    Attributes:
        kind: ``"stale"`` (another owner or epoch), ``"terminal"``, ``"gone"`` (no such run),
            ``"condemned"`` (refers to blobs that gc is taking: put them again),
            ``"rejected"`` (the database refuses the row of ``steps``: those steps fail).
    """

    kind: str
    message: str
    digests: tuple[Digest, ...] = ()
    steps: tuple[StepId, ...] = ()


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is given back.

    Attributes:
        run: as it was claimed: its owner and epoch are to stand.
        to: QUEUED, WAITING or PAUSED.
        wake_at: when it is due; None: never by itself.
        heard: number of the newest message that the owner has looked at.
    """

    run: RunRecord
    to: RunStatus
    wake_at: datetime | None = None
    heard: int = 0


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All that a store has of what a run did: every row, past generations included.

    Attributes:
        steps: in commit order.
        attempts: ordered by (step, generation, attempt).
        expansions: ordered by (step, generation, link).
        waits: ordered by (step, generation).
        saves: ordered by (step, number).
        events: in order.
    """

    steps: tuple[StepRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    expansions: tuple[ExpansionRecord, ...] = ()
    waits: tuple[WaitRecord, ...] = ()
    saves: tuple[SaveRecord, ...] = ()
    events: tuple[EventRecord, ...] = ()


class WholeRun(msgspec.Struct, frozen=True, kw_only=True):
    """Every row that belongs to one run: what goes from store to store when it moves.

    Attributes:
        plans: all that it has, those of its expansions and former ones too, by digest.
        messages: signals to it, and the events that it has consumed, by number.
    """

    run: RunRecord
    plans: tuple[PlanRecord, ...] = ()
    history: History = History()
    messages: tuple[MessageRecord, ...] = ()


class CommitReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch, per run."""

    committed: dict[RunId, int] = {}
    refused: dict[RunId, Refusal] = {}


class CacheTerms(msgspec.Struct, frozen=True):
    """Where a host keeps copies of blobs that are elsewhere.

    Attributes:
        folder: of this host, and this user.
        limit_bytes: what all copies together may have; 0: none is kept.
    """

    folder: str
    limit_bytes: int


class BlobFile(msgspec.Struct, frozen=True, kw_only=True):
    """A blob as its storage sees it.

    Attributes:
        changed_at: when it was last put or renewed, in seconds since 1970 by the storage's clock.
    """

    digest: Digest
    size_bytes: int
    changed_at: float


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder beside the blobs that no row refers to by itself.

    Attributes:
        area: ``"incoming"`` and ``"quarantine"`` hold files, ``"spool"`` and ``"logs"`` a folder
            for each run, named by ``folder_of`` its id.
        name: within the area.
        size_bytes: of a file; 0 of a folder.
        changed_at: as of a blob.
    """

    area: str
    name: str
    size_bytes: int
    changed_at: float


class PinRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps blobs from gc for a reason outside of the store, such as a backup of its rows.

    Attributes:
        note: where the reason is, for people: the backup's file.
    """

    id: str
    at: datetime
    note: str = ""


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first. ``after`` is the id of the last run of the page before."""

    status: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    schedule: str | None = None
    trigger: str | None = None
    tags: dict[str, str] = {}
    since: datetime | None = None
    id_prefix: str = ""
    limit: int = 100
    after: RunId | None = None


Buffer = bytes | bytearray | memoryview
Params = Mapping[str, StoredValue]
