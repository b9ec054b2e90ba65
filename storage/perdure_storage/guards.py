"""What must stand before a row may change, as pure functions: every store asks the same ones.

Stores read the facts under their own lock and hand them in; the answers, and their words, are
then the same in memory, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from perdure_storage.durations import LONGEST
from perdure_storage.errors import DuplicateRun, InternalError, RunConflict, StoreError
from perdure_storage.lifecycle import RUN_LIVE, RUN_TERMINAL, RunStatus, StepStatus, may_become
from perdure_storage.queue_records import QueueRecord
from perdure_storage.records import (
    AMOUNT_SLACK,
    AttemptRecord,
    BuiltPlan,
    Digest,
    EventRecord,
    MessageRecord,
    Owner,
    Place,
    PlanRecord,
    Refusal,
    RunCommit,
    RunId,
    RunPolicy,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    StoredValue,
    WaitRecord,
    WholeRun,
)

_replace = msgspec.structs.replace

_LARGEST = 2**63 - 1

REOPENED = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})
"""Statuses of step rows that become history when their run is opened again."""


def refusal_of(
    commit: RunCommit, status: RunStatus, owner: str | None, epoch: int
) -> Refusal | None:
    """Return why this part of a batch may not land on a run in that state, or None.

    Terminal is asked before ownership: the end of a run clears its owner, and "it is over" is
    what a late holder has to hear.
    """
    if status in RUN_TERMINAL:
        return Refusal(kind="terminal", message=f"run {commit.run_id!r} is {status}")
    if owner != commit.owner or epoch != commit.epoch:
        seen = f"owner {owner or 'nobody'}, epoch {epoch}"
        return Refusal(
            kind="stale",
            message=f"run {commit.run_id!r} has {seen}; the commit comes from"
            f" {commit.owner}, epoch {commit.epoch}",
        )
    if commit.end is not None and not _may_end(status, commit.end.status):
        return Refusal(
            kind="rejected",
            message=f"run {commit.run_id!r} is {status} and cannot become {commit.end.status}",
        )
    return None


def _may_end(status: RunStatus, end: RunStatus) -> bool:
    return end in RUN_TERMINAL and may_become(status, end)


def gone(run_id: RunId) -> Refusal:
    """Return the refusal for a run that the store does not know."""
    return Refusal(kind="gone", message=f"no run {run_id!r}")


def condemned(run_id: RunId, digests: Iterable[Digest]) -> Refusal:
    """Return the refusal for a commit that names blobs which gc is taking."""
    return condemned_of(f"run {run_id!r}", digests)


def condemned_of(what: str, digests: Iterable[Digest]) -> Refusal:
    """Return the refusal for a change of ``what`` that names blobs which gc is taking."""
    found = tuple(sorted(digests))
    return Refusal(
        kind="condemned",
        message=f"{what} refers to {len(found)} blobs that `perdure gc` is removing now:"
        " do the same again",
        digests=found,
    )


def stale_of(what: str, read: int, stored: int | None) -> Refusal:
    """Return the refusal for a change of what has another version by now, or is not there."""
    if stored is None:
        return Refusal(kind="gone", message=f"no {what}")
    return Refusal(
        kind="stale",
        message=f"{what} has version {stored}; the change was decided on version {read}",
    )


def rejected(run_id: RunId, steps: Iterable[StepId], why: str = "") -> Refusal:
    """Return the refusal for rows that the store will not take, whoever asks."""
    named = tuple(dict.fromkeys(steps))
    reason = why or "the row is there already, is not current, or cannot be stored"
    which = f" steps {', '.join(named)}:" if named else ""
    return Refusal(kind="rejected", message=f"run {run_id!r}:{which} {reason}", steps=named)


def require_distinct(batch: Sequence[RunCommit]) -> None:
    """Raise InternalError if a run is in the batch twice: its guards would see half a commit."""
    if len({part.run_id for part in batch}) != len(batch):
        raise InternalError("a commit batch holds the same run twice")


def require_storable(what: str, texts: Iterable[str], numbers: Iterable[int] = ()) -> None:
    """Raise StoreError if no database could take a row of such texts and numbers.

    PostgreSQL has no place for NUL in a text, UTF-8 has none for a lone surrogate, and neither
    database has one for an integer of more than 64 bits. All stores refuse alike.
    """
    try:
        whole = "".join(texts)
        whole.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{what} cannot be stored: {error}") from error
    if "\0" in whole or max(map(abs, numbers), default=0) > _LARGEST:
        raise StoreError(f"{what} cannot be stored: a NUL or too large a number is in a row of it")


def require_storable_queue(queue: QueueRecord) -> None:
    """Raise StoreError if no database could take the row of a queue, or nobody count by it."""
    if queue.window is not None and queue.window > LONGEST:
        raise StoreError(
            f"queue {queue.name!r} cannot be stored: its window is longer than {LONGEST.days} days"
        )
    numbers = (queue.limit, queue.limit_per_key, queue.rate)
    texts = (queue.name, queue.declared)
    given = [number for number in numbers if number is not None]
    require_storable(f"queue {queue.name!r}", texts, given)


def is_current(
    save: SaveRecord,
    steps: Iterable[tuple[StepId, int]],
    attempts: Iterable[AttemptRecord],
    saves: Iterable[SaveRecord],
) -> bool:
    """Say whether the attempt that saves is the current one of its step.

    Args:
        save: what is to be kept.
        steps: step rows of the run: step and generation.
        attempts: those of the run.
        saves: those of the run.
    """
    mine = save.generation, save.attempt
    return not (
        any(step == save.step_id and generation >= mine[0] for step, generation in steps)
        or any(
            (each.generation, each.attempt) > mine
            or ((each.generation, each.attempt) == mine and each.cause is not None)
            for each in attempts
            if each.step_id == save.step_id
        )
        or any(
            (each.generation, each.attempt) > mine for each in saves if each.step_id == save.step_id
        )
    )


def outrun(save: SaveRecord) -> Refusal:
    """Return the refusal for the save of an attempt that is not the current one."""
    return Refusal(
        kind="stale",
        message=f"attempt {save.attempt} of step {save.step_id!r} (generation {save.generation})"
        f" of run {save.run_id!r} is not its current one: it has ended, or another has begun",
    )


def blobs_of_step(step: StepRecord) -> tuple[Digest, ...]:
    """Return the blobs that a step row refers to."""
    if not step.states:
        return blobs_of_value(step.value)
    of_states = (digest for state in step.states.values() for digest in blobs_of_value(state))
    return (*blobs_of_value(step.value), *of_states)


def blobs_of_value(value: StoredValue | None) -> tuple[Digest, ...]:
    """Return the blob that a value is in, if it is in one, and those of a folder's files."""
    if value is None:
        return ()
    return (value.integrity, *value.files) if value.place is Place.BLOB else value.files


def is_for(message: MessageRecord, run: RunRecord) -> bool:
    """Say whether a run may have a message: a signal to it, or an event since it was created."""
    if message.run_id is not None:
        return message.run_id == run.id
    return message.at >= run.created_at


def hears(wait: WaitRecord, message: MessageRecord) -> bool:
    """Say whether a wait is for messages of this kind and name; ``match`` is the engine's."""
    kind = "event" if message.run_id is None else "signal"
    return wait.message is None and wait.kind == kind and wait.name == message.name


def blobs_of_commit(commit: RunCommit) -> set[Digest]:
    """Return the blobs that a run's part of a batch refers to."""
    return {
        *(digest for step in commit.steps for digest in blobs_of_step(step)),
        *(digest for wait in commit.waits for digest in blobs_of_value(wait.default)),
        *(digest for expansion in commit.expansions for digest in expansion.plan.blobs),
    }


def blobs_of_inputs(run: RunRecord) -> tuple[Digest, ...]:
    """Return the blobs that a run's inputs refer to."""
    return _blobs_of(run.inputs)


def blobs_of_runs(runs: Iterable[RunRecord]) -> set[Digest]:
    """Return the blobs that the inputs of runs refer to."""
    return {digest for run in runs for digest in blobs_of_inputs(run)}


def texts_of_run(run: RunRecord) -> tuple[str, ...]:
    """Return the texts of a run that were written by people."""
    keys = (run.queue or "", run.limit_key, run.dedup_key or "")
    return run.id, run.workflow, run.origin or "", *keys


def _blobs_of(inputs: Mapping[str, StoredValue]) -> tuple[Digest, ...]:
    return tuple(v.integrity for v in inputs.values() if v.place is Place.BLOB)


def fresh(run: RunRecord) -> RunRecord:
    """Return the run as it is when it is made: nobody owns it and nothing has happened."""
    return _replace(
        run,
        status=RunStatus.QUEUED,
        owner=None,
        lease_live=False,
        epoch=0,
        takeovers=0,
        seq=0,
        error=None,
        started_at=None,
        finished_at=None,
        cancel_requested=False,
        pause_requested=False,
    )


def may_be_born(run: RunRecord) -> bool:
    """Say whether a run may be claimed as it is made: it has neither to wait nor to be counted."""
    return run.queue is None and run.not_before is None


def already_there(run: RunRecord, other: RunId) -> DuplicateRun:
    """Return the refusal of a run whose deduplication key another live run of its queue has."""
    return DuplicateRun(
        f"run {other!r} of queue {run.queue!r} has the dedup_key {run.dedup_key!r} already and is "
        f"not over: wait for it, or end it with `perdure cancel {other}`",
        run_id=other,
    )


def born(run: RunRecord, owner: Owner, now: datetime) -> RunRecord:
    """Return a run that is made just now as it is once its maker has claimed it too."""
    return _replace(
        run,
        status=status_after_claim(run),
        owner=owner,
        lease_live=True,
        epoch=run.epoch + 1,
        started_at=now,
        seq=run.seq + 1,
    )


def require_plan(run: RunRecord, plan: PlanRecord | None) -> None:
    """Raise InternalError unless the plan is the one that the run names."""
    require_own_plan(f"run {run.id!r}", run.plan_digest, plan)


def require_own_plan(what: str, digest: Digest | None, plan: PlanRecord | None) -> None:
    """Raise InternalError unless ``plan`` is the one of that digest, and None that of none."""
    if (None if plan is None else plan.digest) != digest:
        raise InternalError(f"{what} was to be stored with another plan than it names")


def no_plan_yet(store: str) -> StoreError:
    """Return the error for who asks for the plan of a run that has none."""
    return StoreError(
        f"that run has no plan yet in {store}: whoever drives it first builds it from its code."
        " Start `perdure up`"
    )


def with_plan(run: RunRecord, built: BuiltPlan) -> RunRecord:
    """Return a run that was made without a plan with the one that was built for it."""
    return _replace(
        run,
        plan_digest=built.plan.digest,
        inputs=built.inputs,
        inputs_digest=built.inputs_digest,
    )


def blobs_of_built(built: BuiltPlan) -> tuple[Digest, ...]:
    """Return the blobs that a built plan and its inputs refer to."""
    return (*built.plan.blobs, *_blobs_of(built.inputs))


def reopened(run: RunRecord, plan: PlanRecord | None, policy: RunPolicy | None) -> RunRecord:
    """Return a run that is opened again, with another plan or policy if there is one."""
    return _replace(
        run,
        status=RunStatus.QUEUED,
        plan_digest=run.plan_digest if plan is None else plan.digest,
        policy=policy or run.policy,
        owner=None,
        error=None,
        deadline=None,
        wake_at=None,
        finished_at=None,
        takeovers=_deaths(run),
        cancel_requested=False,
        pause_requested=False,
    )


def _deaths(run: RunRecord) -> int:
    """Return the owners in a row that died driving the run, the one that it has counted.

    A run that had ended or was paused begins anew. One that was cut off does not: a program that is
    started again whenever it died opens its run each time, and what kills it is to be found out.
    """
    if run.status in RUN_TERMINAL or run.status is RunStatus.PAUSED:
        return 0
    return run.takeovers + (run.owner is not None)


def reset_detail(run: RunRecord, plan: PlanRecord | None, reason: str) -> dict[str, object]:
    """Return what the event of a reset tells; the plan before, if another takes its place."""
    detail: dict[str, object] = {"reason": reason, "was": str(run.status)}
    return detail if plan is None else {**detail, "plan_before": run.plan_digest}


def token_of(run: RunRecord) -> str | None:
    """Return the token of the run's owner, if there is one."""
    return None if run.owner is None else run.owner.token


def fits(needs: Mapping[str, float], offer: Mapping[str, float]) -> bool:
    """Say whether nothing is needed of which there is less."""
    return all(amount <= offer.get(name, 0.0) + AMOUNT_SLACK for name, amount in needs.items())


def claim_order(
    run: RunRecord, seen_dead: Collection[str] = ()
) -> tuple[bool, bool, int, datetime, str]:
    """Return what sorts claimable runs: healthy neighbours last, what was begun before what waits,
    then by priority, then by age.
    """
    is_neighbours = run.lease_live and token_of(run) not in seen_dead
    return is_neighbours, run.owner is None, -run.priority, run.created_at, run.id


def is_due(run: RunRecord, now: datetime) -> bool:
    """Say whether a live run that nobody drives has something to do at ``now``."""
    match run.status:
        case RunStatus.QUEUED:
            return run.not_before is None or run.not_before <= now
        case RunStatus.WAITING:
            return run.wake_at is not None and run.wake_at <= now
        case RunStatus.PAUSED:
            # The request was cleared while an owner was still putting the run down.
            return not run.pause_requested
        case _:
            return run.status is RunStatus.RUNNING


def shows_as(run: RunRecord) -> frozenset[RunStatus]:
    """Return the statuses by which a query finds the run: INTERRUPTED is read off the lease."""
    if run.status is RunStatus.RUNNING and not run.lease_live:
        return frozenset({RunStatus.RUNNING, RunStatus.INTERRUPTED})
    return frozenset({run.status})


def is_held(run: RunRecord, stored: RunRecord) -> bool:
    """Say whether whoever holds ``run`` still holds it, going by the stored row."""
    return is_held_as(run, stored.status, token_of(stored), stored.epoch)


def is_held_as(run: RunRecord, status: RunStatus, token: str | None, epoch: int) -> bool:
    """Say whether whoever holds ``run`` still holds it, going by what is stored of it."""
    held = run.owner is not None and token_of(run) == token and run.epoch == epoch
    return held and status not in RUN_TERMINAL


def status_after_claim(run: RunRecord) -> RunStatus:
    """Return the status of a live run once it is claimed."""
    stays = run.status is RunStatus.PAUSED and run.pause_requested
    return RunStatus.PAUSED if stays else RunStatus.RUNNING


def status_after_pause(status: RunStatus, paused: bool) -> RunStatus:
    """Return the status of a live run that nobody drives once its pause request is set so."""
    if paused:
        return RunStatus.PAUSED
    return RunStatus.QUEUED if status is RunStatus.PAUSED else status


def claim_event(before: RunRecord, owner: Owner) -> tuple[str, dict[str, object]]:
    """Return kind and detail of the event that tells of a claim."""
    detail: dict[str, object] = {
        "owner": owner.token,
        "host": owner.host,
        "pid": owner.pid,
        "epoch": before.epoch + 1,
    }
    if is_takeover(before, owner):
        return "taken over", {**detail, "from": token_of(before)}
    return "claimed", detail


def is_takeover(before: RunRecord, owner: Owner) -> bool:
    """Say whether a claim by ``owner`` takes the run from somebody else."""
    return before.owner is not None and before.owner.token != owner.token


def require_bound(store: str, bound: str, url: str) -> None:
    """Raise StoreError if the store keeps its values elsewhere than in ``url``."""
    if bound != url:
        raise StoreError(
            f"{store} keeps its values in {_spelt(bound)}, not in {_spelt(url)}."
            f" {_way_to(bound)}, or make another store for that place"
        )


def _spelt(place: str) -> str:
    """Return a place of values for messages; ``./x`` lies in the store's own folder."""
    return f"{place.removeprefix('./')}/ beside it" if place.startswith("./") else place


def _way_to(bound: str) -> str:
    # What is typed would start in the working directory, and ``./blobs`` does not.
    if bound == "./blobs":
        return "Leave blobs= (PERDURE_BLOBS) out"
    if bound.startswith("./"):
        return f"Name the folder {bound.removeprefix('./')} there with blobs= (PERDURE_BLOBS)"
    return f"Open it with blobs={bound!r} (PERDURE_BLOBS)"


def require_releasable(run_id: RunId, to: RunStatus) -> None:
    """Raise InternalError if a run cannot be given back in that status."""
    if to not in RUN_LIVE:
        raise InternalError(f"run {run_id!r} cannot be released as {to}")


def require_live(run_id: RunId, status: RunStatus, wish: str) -> None:
    """Raise RunConflict if the run is over; ``wish`` is the verb that was asked for."""
    if status in RUN_TERMINAL:
        raise RunConflict(f"cannot {wish} run {run_id!r}: it is {status} already")


def require_resettable(run_id: RunId, status: RunStatus, driven: bool) -> None:
    """Raise RunConflict if somebody drives the run, so that it cannot be opened again."""
    if driven and status not in RUN_TERMINAL and status is not RunStatus.PAUSED:
        raise RunConflict(
            f"run {run_id!r} is {status} and its coordinator is alive: wait for it,"
            f" or stop it with `perdure cancel {run_id}`"
        )


def require_deletable(
    run_id: RunId,
    status: RunStatus,
    live_children: Collection[RunId],
    live_takers: Collection[RunId],
) -> None:
    """Raise RunConflict if the run is not over, or one that it started, or that takes it over."""
    if status not in RUN_TERMINAL:
        raise RunConflict(
            f"cannot delete run {run_id!r}: it is {status}. Type `perdure cancel {run_id}` first"
        )
    if live_children:
        child = sorted(live_children)[0]
        raise RunConflict(
            f"cannot delete run {run_id!r}: its child {child!r} is live."
            f" Type `perdure cancel {child}` first"
        )
    if live_takers:
        taker = sorted(live_takers)[0]
        raise RunConflict(
            f"cannot delete run {run_id!r}: {taker!r} takes its results over and is live. Wait for"
            f" it, or type `perdure cancel {taker}` first"
        )


UNPLANNED = "unplanned"
"""Kind of the event that says why a run has no plan yet."""


def may_note_unplanned(run: RunRecord, events: Sequence[EventRecord], why: str) -> bool:
    """Say whether it is news why a run has no plan: it waits for one, and nobody said so last."""
    if run.status is not RunStatus.QUEUED or run.plan_digest is not None:
        return False
    last = events[-1] if events else None
    return last is None or last.kind != UNPLANNED or last.detail.get("why") != why


IMPORTED = "imported"
"""Kind of the event that says where a run came from."""


def as_imported(run: RunRecord) -> RunRecord:
    """Return a run of another store as it is in this one: nothing of it goes on by itself.

    Names of schedules and triggers mean others here, whose policies and rules are not about it. A
    live run takes over nothing: who is named may be another one.
    """
    imported = _replace(
        run,
        owner=None,
        lease_live=False,
        takeovers=0,
        seq=run.seq + 1,
        schedule=None,
        by_hand=False,
        trigger=None,
        dedup_key=None,
    )
    if run.status in RUN_TERMINAL:
        return imported
    return _replace(
        imported,
        status=RunStatus.PAUSED,
        pause_requested=True,
        cancel_requested=False,
        wake_at=None,
        reuse_from=None,
    )


def imported_message(message: MessageRecord, run_id: RunId) -> MessageRecord:
    """Return a message of an imported run: an event that it had is to nobody else here."""
    if message.run_id is not None:
        return message
    return _replace(message, run_id=run_id, dedup_key=None)


def imported_events(
    whole: WholeRun, numbers: Mapping[int, int], told: EventRecord
) -> list[EventRecord]:
    """Return the story of an imported run: messages have the numbers of this store."""
    events = sorted(whole.history.events, key=lambda event: event.seq)
    return [*(_renumbered(event, numbers) for event in events), told]


def imported_waits(whole: WholeRun, numbers: Mapping[int, int]) -> list[WaitRecord]:
    """Return the waits of an imported run: messages have the numbers of this store."""
    return [
        wait if wait.message is None else _replace(wait, message=numbers[wait.message])
        for wait in whole.history.waits
    ]


def _renumbered(event: EventRecord, numbers: Mapping[int, int]) -> EventRecord:
    if event.kind != "signalled" or event.detail.get("message") not in numbers:
        return event
    detail = {**event.detail, "message": numbers[event.detail["message"]]}
    return _replace(event, detail=detail)


def blobs_of_whole(whole: WholeRun) -> set[Digest]:
    """Return the blobs that the rows of a run refer to; those of LOST rows are gone."""
    history = whole.history
    values = (
        *(save.value for save in history.saves),
        *(wait.default for wait in history.waits),
        *(message.value for message in whole.messages),
    )
    return {
        *blobs_of_inputs(whole.run),
        *(digest for plan in whole.plans for digest in plan.blobs),
        *(digest for value in values for digest in blobs_of_value(value)),
        *(
            digest
            for step in history.steps
            if step.status is not StepStatus.LOST
            for digest in blobs_of_step(step)
        ),
    }


def require_whole(whole: WholeRun) -> None:
    """Raise StoreError unless all rows are of the run, each is there once, and they fit."""
    run, history = whole.run, whole.history
    rows: tuple[Any, ...] = (
        *history.steps,
        *history.attempts,
        *history.expansions,
        *history.waits,
        *history.saves,
    )
    current = [step.step_id for step in history.steps if step.current]
    taken = [wait.message for wait in history.waits if wait.message is not None]
    plans = {plan.digest: plan for plan in whole.plans}
    keys = (
        [(s.step_id, s.generation) for s in history.steps],
        current,
        [(a.step_id, a.generation, a.attempt) for a in history.attempts],
        [(e.step_id, e.generation, e.link) for e in history.expansions],
        [(w.step_id, w.generation) for w in history.waits],
        [(s.step_id, s.number) for s in history.saves],
        [event.seq for event in history.events],
        [message.id for message in whole.messages],
        [plan.digest for plan in whole.plans],
        taken,
    )
    numbered: tuple[Any, ...] = (*history.steps, *history.events)
    fits = (
        all(row.run_id == run.id for row in rows)
        and all(message.run_id in (None, run.id) for message in whole.messages)
        and all(len(set(each)) == len(each) for each in keys)
        and all(0 < row.seq <= run.seq for row in numbered)
        and all(plans.get(each.plan.digest) == each.plan for each in history.expansions)
        and (run.plan_digest is None or run.plan_digest in plans)
        and set(taken) <= {message.id for message in whole.messages}
        and all(map(_has_zones, (run, *rows, *history.events, *whole.messages)))
    )
    if not fits:
        raise StoreError(f"the rows of run {run.id!r} do not fit together: it cannot be imported")


def _has_zones(row: msgspec.Struct) -> bool:
    """Say whether all times of a row are aware."""
    values = (getattr(row, name) for name in row.__struct_fields__)
    return all(value.tzinfo is not None for value in values if isinstance(value, datetime))
