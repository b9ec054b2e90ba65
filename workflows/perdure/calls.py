"""Frozen wire types between the engine, its executors and the workers.

A ``StepCall`` goes down, one ``Outcome`` comes back up, always: the executor makes the outcome
itself where the worker can no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from perdure.plan import ActorStep, Arg, Function, Path, StepOptions
from perdure.reference import StepRef
from perdure_storage.hashing import digest_of
from perdure_storage.records import (
    CacheTerms,
    Cause,
    Digest,
    ErrorRecord,
    Place,
    PlanRecord,
    Progress,
    Refusal,
    StoredValue,
)


class CallId(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one generation of one step of one run."""

    run_id: str
    step_id: str
    generation: int
    attempt: int


class Replay(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A committed call of an actor that is made again, to come from a snapshot to a later state.

    Attributes:
        step_id, generation, attempt: what it was.
        method: the method; "" for the constructor.
        args, kwargs, values: as those of a ``StepCall``.
        expected: value digest of its result then; "" if there is none to compare with.
    """

    step_id: str
    generation: int
    attempt: int
    method: str
    args: tuple[Arg, ...] = ()
    kwargs: dict[str, Arg] = {}
    values: dict[str, StoredValue] = {}
    expected: str = ""


class Instance(msgspec.Struct, frozen=True, gc=False, order=True):
    """One of the processes of an actor, by the run, the constructor's step, and its number."""

    run_id: str
    actor: str
    number: int


class ActorCall(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a call of an actor is to be made on, and what is to be kept of it.

    Attributes:
        of: what the step is to the actor.
        role: ``"new"`` and ``"write"`` change the live instance, ``"read"`` has a copy of it,
            ``"again"`` makes the result of a committed call once more, in an instance of its own,
            and ``"use"`` has one that its constructor made.
        base: after which call the instance has to be: ``"<step id>/<generation>"``.
        is_live: the instance is said to be there: neither ``state`` nor ``replay`` are sent.
        state: the state after an earlier call, from which ``replay`` leads to ``base``.
        state_of: the step of that call.
        replay: the calls since then; from the constructor on if there is no ``state``.
        keeps: the state after the call is to be kept.
        defaults: options of its calls.
        number: of the actor's processes, in which it is to be made.
        secrets: names of those that its constructor was given: any of its calls may print them.
    """

    of: ActorStep
    role: str = "new"
    base: str = ""
    is_live: bool = False
    state: StoredValue | None = None
    state_of: str = ""
    replay: tuple[Replay, ...] = ()
    keeps: bool = False
    defaults: StepOptions = StepOptions()
    number: int = 0
    secrets: tuple[str, ...] = ()


class SavedValue(msgspec.Struct, frozen=True, array_like=True):
    """What an earlier attempt of a step has saved; fields as those of ``SaveRecord``."""

    at: int
    value: StoredValue
    item: str = ""


class Saving(msgspec.Struct, frozen=True):
    """What a running attempt wants to be kept for the next one.

    Attributes:
        keep_last: how many saves of the step, or of this item of it, are to stand.
    """

    call: CallId
    value: StoredValue
    at: int
    keep_last: int = 1
    item: str = ""


class Told(msgspec.Struct, frozen=True):
    """How far a running attempt says that it is."""

    call: CallId
    progress: Progress


class Desk(Protocol):
    """Where attempts that run have their saves kept, and say how far they are. For any thread."""

    def keep(self, saving: Saving) -> Refusal | None:
        """Make a save durable, and return None once it is; or why it is not kept."""
        ...

    def tell(self, told: Told) -> None:
        """Say how far an attempt is. May be lost."""
        ...

    def look(self, call: CallId) -> bool:
        """Say whether the attempt is asked to hand over: its run is paused or cancelled."""
        ...


class StepCall(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """All that a worker needs to run one attempt, beside the run's ``CallContext``.

    Attributes:
        function: id of a function of the context.
        args, kwargs: templates; the worker resolves them from ``values`` and the context.
        values: encoded inputs by key: ``"step:<id>"``, ``"input:<name>"``, or ``"items:<id>"``
            for references to a map's children.
        parts: projections of this step's value that others consume: their value digests are
            computed when the value is stored.
        timeout_s: run time after which the executor ends the attempt, with cause TIMEOUT.
        checkpoint: False puts large values into the unsynced spool instead of the blob store.
        outputs: the number of values to be returned; checked if above 1.
        retry_on: constant index of the classes or predicate that decide ``Outcome.retryable``.
        stop_when: constant index of the predicate that decides ``Outcome.stops``.
        idempotency_key: the same for every attempt of this generation.
        trace: the span of the attempt, as ``traceparent``; "" if nobody traces.
        names: the sub-workflows around the step and its own name, by ``/``: what the names of
            the steps begin with that it may give in place of a value.
        answer: id of the step that would answer for it; "" for the next link of its chain.
        saves: what earlier attempts have saved, oldest first.
        is_brief: calls of its function have been over at once: it may be handed to a worker that
            still runs others.
        actor: of a call of an actor, on what it is made.
        turns: of a step that was given handles of actors, what came before it, by actor.
        cpus, gpus, resources: what it holds while it runs, for executors that find a place for it
            themselves.
        gpu_ids: the GPUs that it has, or has a part of; no other is to be seen by it.
        shares_gpu: others may have the rest of the one that it has a part of.
        memory_bytes: more than that, beyond a tolerance, and the executor ends the attempt, with
            cause OUT_OF_MEMORY.
    """

    id: CallId
    function: str
    args: tuple[Arg, ...] = ()
    kwargs: dict[str, Arg] = {}
    values: dict[str, StoredValue] = {}
    parts: tuple[Path, ...] = ()
    timeout_s: float | None = None
    checkpoint: bool = True
    outputs: int = 1
    retry_on: int | None = None
    stop_when: int | None = None
    idempotency_key: str = ""
    names: str = ""
    answer: str = ""
    saves: tuple[SavedValue, ...] = ()
    is_brief: bool = False
    actor: ActorCall | None = None
    turns: dict[str, str] = {}
    cpus: float = 1.0
    gpus: float = 0.0
    resources: dict[str, float] = {}
    gpu_ids: tuple[str, ...] = ()
    shares_gpu: bool = False
    memory_bytes: int | None = None
    trace: str = ""


class CallContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one run share: sent to a worker once, in the parts that it needs.

    Attributes:
        blobs_url, store_id: where values are; workers open the blob store themselves.
        blobs_cache: where this host keeps copies of values that are elsewhere.
        bundle: digest of the recorded sources to put first on the path, or None to import what
            is there today.
        allow_pickle: whether values may be pickles.
        cells: the numbers of the cells that its code is of, by file name: graphs are made in
            workers too.
    """

    run_id: str
    blobs_url: str
    store_id: str
    functions: dict[str, Function]
    constants: dict[int, StoredValue]
    bundle: Digest | None = None
    bundle_size: int = 0
    allow_pickle: bool = True
    blobs_cache: CacheTerms | None = None
    cells: dict[str, str] = {}


class FirstTry(msgspec.Struct, frozen=True):
    """A try that a step has had before it was one, as an item of a chunk.

    Attributes:
        error: what its function raised.
        retryable: whether ``retry_on`` admits it.
    """

    error: ErrorRecord
    retryable: bool


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that a step gave in place of its value; the plan's output is the step that answers.

    Attributes:
        kind: ``"graph"`` (a returned node) or ``"map"``.
        count: how many steps are in it.
        plan: its step ids are those of the run.
        failed: tries that steps of it have had, by step.
    """

    kind: str
    count: int
    plan: PlanRecord
    failed: dict[str, FirstTry] = {}


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What a step waits for in place of having a value; fields as those of ``WaitRecord``.

    Attributes:
        steps, wanted, cancel_rest: as of a ``Pause``; kept in the record's ``match``.
    """

    kind: str
    name: str = ""
    match: dict[str, Any] = {}
    deadline: datetime | None = None
    default: StoredValue | None = None
    steps: tuple[StepRef, ...] = ()
    wanted: int = 1
    cancel_rest: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How one attempt ended.

    Attributes:
        cause: SUCCEEDED has ``value``, ``growth`` or ``wait``; every other cause has ``error``.
        retryable: whether ``retry_on`` admits the user's error (evaluated in the worker).
        stops: whether ``stop_when`` says of the value that the other children are not needed.
        culprit: for INPUT_LOST and INPUT_UNAVAILABLE, the key in ``StepCall.values``.
        worker: who ran it: ``"host/pid"``, with the GPUs that it had, if it had any.
        peak_memory_bytes: the worker's peak resident set, None if unknown.
        states: of a call of an actor that was to be kept, the state after it, by actor.
    """

    id: CallId
    cause: Cause
    value: StoredValue | None = None
    growth: Growth | None = None
    wait: Wait | None = None
    error: ErrorRecord | None = None
    retryable: bool = True
    stops: bool = False
    culprit: str = ""
    worker: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    peak_memory_bytes: int | None = None
    states: dict[str, StoredValue] = {}


def step_key(step_id: str) -> str:
    """Return the key under which a step's value travels in ``StepCall.values``."""
    return f"step:{step_id}"


def input_key(name: str) -> str:
    """Return the key under which a workflow parameter travels in ``StepCall.values``."""
    return f"input:{name}"


def items_key(step_id: str) -> str:
    """Return the key under which references to a map's children travel in ``StepCall.values``."""
    return f"items:{step_id}"


def encode_items(items: Sequence[StepRef]) -> StoredValue:
    """Return references as they travel to a worker: with the call, whatever their number."""
    data = msgspec.json.encode([(ref.step_id, ref.path) for ref in items])
    integrity = digest_of(data)
    return StoredValue(
        codec="refs/1",
        place=Place.INLINE,
        size_bytes=len(data),
        integrity=integrity,
        value_digest=integrity,
        data=data,
    )


def decode_items(stored: StoredValue) -> list[StepRef]:
    """Return the references that ``encode_items`` wrote."""
    assert stored.data is not None
    return [StepRef(step_id, tuple(path)) for step_id, path in msgspec.json.decode(stored.data)]
