"""A run store in this process's memory: a verified fake, the store of eager runs and simulations.

It keeps the contract of ``RunStore`` but for durability: everything is gone with the object.
Rows are frozen structs, so handing them out gives nothing away.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from perdure_storage import guards
from perdure_storage.admission import needs_slot
from perdure_storage.clock import Clock, SystemClock
from perdure_storage.errors import BlobsCondemned, RunNotFound, StoreError
from perdure_storage.lifecycle import RUN_LIVE, RUN_TERMINAL, RunStatus, StepStatus
from perdure_storage.memory_neighbours import Neighbours
from perdure_storage.memory_queues import MemoryQueueStore
from perdure_storage.memory_schedules import MemoryScheduleStore
from perdure_storage.memory_triggers import MemoryTriggerStore
from perdure_storage.records import (
    NOTHING_BUILT,
    NOTHING_SEEN,
    AttemptRecord,
    BuiltPlan,
    CommitReport,
    Digest,
    EventRecord,
    ExpansionRecord,
    History,
    MessageRecord,
    Owner,
    PinRecord,
    PlanRecord,
    ProcessId,
    Refusal,
    Release,
    RunCommit,
    RunId,
    RunPolicy,
    RunQuery,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    StoredValue,
    WaitRecord,
    WholeRun,
)
from perdure_storage.roots import public_url
from perdure_storage.rows import StepRows

_replace = msgspec.structs.replace
_ROWS = StepRows(None)


@dataclass(slots=True)
class _Run:
    """Everything of one run; ``steps`` is in commit order, ``current`` the generation in force."""

    record: RunRecord
    plans: set[Digest]
    steps: dict[tuple[StepId, int], StepRecord] = field(default_factory=dict)
    current: dict[StepId, int] = field(default_factory=dict)
    attempts: dict[tuple[StepId, int, int], AttemptRecord] = field(default_factory=dict)
    expansions: dict[tuple[StepId, int, int], ExpansionRecord] = field(default_factory=dict)
    waits: dict[tuple[StepId, int], WaitRecord] = field(default_factory=dict)
    saves: list[SaveRecord] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)


@dataclass(slots=True)
class _Heartbeat:
    owner: Owner
    until: float
    workers: tuple[ProcessId, ...] = ()


class MemoryRunStore:
    """``RunStore`` over dictionaries, one lock around each method.

    Args:
        clock: wall time for deadlines, monotonic time for leases.
        boot_id: the boot whose leases can stand; None takes every owner for one of this boot.
        store_id: fixed by simulations, made otherwise.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        boot_id: str | None = None,
        store_id: str | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._boot_id = boot_id
        self._store_id = store_id or secrets.token_hex(8)
        self._lock = threading.RLock()
        self._runs: dict[RunId, _Run] = {}
        self._plans: dict[Digest, PlanRecord] = {}
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._condemned: dict[Digest, datetime] = {}
        self._tombstones: dict[RunId, datetime] = {}
        self._messages: list[MessageRecord] = []
        self._newest_message = 0
        self._pins: dict[str, tuple[PinRecord, frozenset[Digest]]] = {}
        self._blobs_url: str | None = None
        self._version = 0
        beside = Neighbours(
            lock=self._lock,
            url=self.url,
            is_taken=self._is_taken,
            create=lambda run: self._create(run, None) is not None,
            cancel=self._cancel_if_live,
            runs=lambda: [kept.record for kept in self._runs.values()],
            messages=lambda: list(self._messages),
            is_live=self._is_live,
            condemned=lambda: self._condemned,
            plans=self._plans,
            drop_plan=lambda digest: self._drop_plans({digest}),
            changed=self._change,
        )
        self._schedules = MemoryScheduleStore(self._clock, beside)
        self._queues = MemoryQueueStore(
            self._lock,
            self._clock,
            lambda: [kept.record for kept in self._runs.values()],
            self._change,
        )
        self._triggers = MemoryTriggerStore(self._clock, beside)

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def url(self) -> str:
        return f"memory://{self._store_id}"

    @property
    def schedules(self) -> MemoryScheduleStore:
        return self._schedules

    @property
    def triggers(self) -> MemoryTriggerStore:
        return self._triggers

    @property
    def queues(self) -> MemoryQueueStore:
        return self._queues

    # --- runs -------------------------------------------------------------------------------
    def create_run(
        self, run: RunRecord, plan: PlanRecord | None, *, owner: Owner | None = None
    ) -> RunRecord | None:
        guards.require_plan(run, plan)
        with self._lock:
            made = self._create(run, plan)
            if made is None or owner is None or not guards.may_be_born(made):
                return made
            return self._claim(self._runs[run.id], owner)

    def _create(self, run: RunRecord, plan: PlanRecord | None) -> RunRecord | None:
        """Make a run whose plan is given, is there, or is to be built."""
        if self._is_taken(run.id):
            return None
        self._refuse_duplicate(run)
        blobs = set(guards.blobs_of_inputs(run))
        self._refuse_condemned(run.id, blobs | set(() if plan is None else plan.blobs))
        if plan is not None:
            self._plans.setdefault(plan.digest, plan)
        plans = set() if run.plan_digest is None else {run.plan_digest}
        kept = _Run(record=guards.fresh(run), plans=plans, blobs=blobs)
        self._runs[run.id] = kept
        self._tell(kept, "submitted")
        return self._seen(kept)

    def _refuse_duplicate(self, run: RunRecord) -> None:
        if run.dedup_key is None:
            return
        for other in (kept.record for kept in self._runs.values()):
            is_live = other.status in RUN_LIVE and other.id != run.id
            if is_live and (other.queue, other.dedup_key) == (run.queue, run.dedup_key):
                raise guards.already_there(run, other.id)

    def _is_taken(self, run_id: RunId) -> bool:
        return run_id in self._runs or run_id in self._tombstones

    def find_run(self, run_id: RunId) -> RunRecord | None:
        with self._lock:
            kept = self._runs.get(run_id)
            return None if kept is None else self._seen(kept)

    def find_runs(self, run_ids: Collection[RunId]) -> list[RunRecord]:
        return [run for run_id in run_ids if (run := self.find_run(run_id)) is not None]

    def get_run(self, run_id: RunId) -> RunRecord:
        with self._lock:
            return self._seen(self._kept(run_id))

    def list_runs(self, query: RunQuery) -> list[RunRecord]:
        with self._lock:
            found = [self._seen(kept) for kept in self._runs.values()]
            if query.after is not None:
                last = _newness(self._kept(query.after).record)
                found = [run for run in found if _newness(run) < last]
        chosen = sorted((r for r in found if _matches(query, r)), key=_newness, reverse=True)
        return [_replace(run, inputs={}) for run in chosen[: query.limit]]

    def get_plan(self, digest: Digest | None) -> PlanRecord:
        if digest is None:
            raise guards.no_plan_yet(self.url)
        with self._lock:
            plan = self._plans.get(digest)
        if plan is None:
            raise StoreError(
                f"no plan {digest} in {self.url}: see what else is missing with `perdure db check`"
            )
        return plan

    def claimable(
        self,
        limit: int = 100,
        *,
        besides: str | None = None,
        offer: Mapping[str, float] | None = None,
        seen_dead: Collection[str] = (),
    ) -> list[RunRecord]:
        now = self._clock.now()
        with self._lock:
            due = [k for k in self._runs.values() if self._is_claimable(k, now)]
            fit = [k for k in due if k.record.cancel_requested or self._fits(k, offer)]
            runs = [self._seen(k) for k in fit]
            limited = [r for r in runs if needs_slot(r) and r.queue in self._queues.names]
            turn = {r.id for r in self._queues.in_turn(limited, limit)}
        limited_ids = {r.id for r in limited} - turn
        others = [r for r in runs if besides is None or guards.token_of(r) != besides]
        others = [r for r in others if r.id not in limited_ids]
        others.sort(key=lambda run: guards.claim_order(run, seen_dead))
        return [_replace(run, inputs={}) for run in others[:limit]]

    # --- ownership --------------------------------------------------------------------------
    def register(self, owner: Owner, lease_s: float) -> None:
        with self._lock:
            until = self._clock.monotonic() + lease_s
            self._heartbeats[owner.token] = _Heartbeat(owner, until)

    def renew(self, owner: Owner, lease_s: float, workers: Sequence[ProcessId] = ()) -> bool:
        with self._lock:
            heartbeat = self._heartbeats.get(owner.token)
            if heartbeat is None:
                return False
            heartbeat.until = self._clock.monotonic() + lease_s
            heartbeat.workers = tuple(workers)
            return True

    def unregister(self, owner: Owner) -> None:
        with self._lock:
            self._heartbeats.pop(owner.token, None)
            self._version += 1

    def coordinators(self) -> list[tuple[Owner, bool]]:
        with self._lock:
            beats = [self._heartbeats[token] for token in sorted(self._heartbeats)]
            return [(beat.owner, self._stands(beat)) for beat in beats]

    def requests(self, token: str) -> list[RunRecord]:
        with self._lock:
            mine = [
                self._seen(k) for k in self._runs.values() if guards.token_of(k.record) == token
            ]
        return [_replace(run, inputs={}) for run in sorted(mine, key=lambda run: run.id)]

    def workers_of(self, token: str) -> tuple[ProcessId, ...]:
        with self._lock:
            heartbeat = self._heartbeats.get(token)
            return () if heartbeat is None else heartbeat.workers

    def claim_run(
        self,
        run_id: RunId,
        owner: Owner,
        *,
        seen_dead: str | None = None,
        epoch: int | None = None,
        built: BuiltPlan | None = None,
    ) -> RunRecord | None:
        claimed = self.claim_runs(
            [run_id],
            owner,
            seen_dead=() if seen_dead is None else (seen_dead,),
            epochs={} if epoch is None else {run_id: epoch},
            built={} if built is None else {run_id: built},
        )
        return next(iter(claimed), None)

    def claim_runs(
        self,
        run_ids: Collection[RunId],
        owner: Owner,
        *,
        seen_dead: Collection[str] = (),
        epochs: Mapping[RunId, int] = NOTHING_SEEN,
        built: Mapping[RunId, BuiltPlan] = NOTHING_BUILT,
    ) -> list[RunRecord]:
        with self._lock:
            free = [
                run_id
                for run_id in sorted(set(run_ids))
                if self._may_claim(run_id, seen_dead, epochs.get(run_id))
            ]
            planned = [each for each in free if self._has_plan(each, built)]
            records = self._queues.admit([self._runs[each].record for each in planned])
            free = [record.id for record in records]
            to_build = [each for each in free if self._runs[each].record.plan_digest is None]
            for each in to_build:
                self._refuse_condemned(each, set(guards.blobs_of_built(built[each])))
            for each in to_build:
                self._build(self._runs[each], built[each])
            return [self._claim(self._runs[each], owner) for each in free]

    def _has_plan(self, run_id: RunId, built: Mapping[RunId, BuiltPlan]) -> bool:
        return self._runs[run_id].record.plan_digest is not None or run_id in built

    def _build(self, kept: _Run, built: BuiltPlan) -> None:
        self._plans.setdefault(built.plan.digest, built.plan)
        kept.plans.add(built.plan.digest)
        kept.record = guards.with_plan(kept.record, built)
        kept.blobs.update(guards.blobs_of_inputs(kept.record))

    def _claim(self, kept: _Run, owner: Owner) -> RunRecord:
        old = kept.record
        self._set(
            kept,
            owner=owner,
            epoch=old.epoch + 1,
            status=guards.status_after_claim(old),
            takeovers=old.takeovers + guards.is_takeover(old, owner),
            started_at=old.started_at or self._clock.now(),
        )
        kind, detail = guards.claim_event(old, owner)
        self._tell(kept, kind, detail)
        return self._seen(kept)

    def release_run(
        self, run: RunRecord, *, to: RunStatus, wake_at: datetime | None = None, heard: int = 0
    ) -> bool:
        return bool(self.release_runs([Release(run=run, to=to, wake_at=wake_at, heard=heard)]))

    def release_runs(self, releases: Sequence[Release]) -> list[RunId]:
        for release in releases:
            guards.require_releasable(release.run.id, release.to)
        with self._lock:
            return [release.run.id for release in releases if self._release(release)]

    def _release(self, release: Release) -> bool:
        kept = self._runs.get(release.run.id)
        if kept is None or not guards.is_held(release.run, kept.record):
            return False
        wake_at = release.wake_at
        if release.to is RunStatus.WAITING and self._is_unheard(kept, release.heard):
            wake_at = self._clock.now()
        self._set(kept, owner=None, status=release.to, wake_at=wake_at)
        return True

    def next_wake(self, offer: Mapping[str, float] | None = None) -> datetime | None:
        with self._lock:
            kept = [k for k in self._runs.values() if k.record.status == "WAITING"]
            waiting = [k.record for k in kept if self._fits(k, offer)]
        return min((run.wake_at for run in waiting if run.wake_at is not None), default=None)

    # --- checkpoints ------------------------------------------------------------------------
    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        committed: dict[RunId, int] = {}
        refused: dict[RunId, Refusal] = {}
        with self._lock:
            guards.require_distinct(batch)
            for part in batch:
                refusal = self._refusal(part)
                if refusal is None:
                    committed[part.run_id] = self._apply(part)
                else:
                    refused[part.run_id] = refusal
        return CommitReport(committed=committed, refused=refused)

    def save(
        self, save: SaveRecord, *, owner: str, epoch: int, keep_last: int = 1
    ) -> Refusal | None:
        texts = (save.run_id, save.step_id, save.item, save.source)
        guards.require_storable(f"what step {save.step_id!r} saved", texts, (save.at,))
        with self._lock:
            part = RunCommit(run_id=save.run_id, owner=owner, epoch=epoch)
            if (refusal := self._refusal(part)) is not None:
                return refusal
            if taken := self._condemned.keys() & set(guards.blobs_of_value(save.value)):
                return guards.condemned(save.run_id, taken)
            kept = self._runs[save.run_id]
            if not guards.is_current(save, kept.steps, kept.attempts.values(), kept.saves):
                return guards.outrun(save)
            others = [each.number for each in kept.saves if each.step_id == save.step_id]
            kept.saves.append(_replace(save, number=max(others, default=0) + 1))
            self._prune(kept, save, keep_last)
            self._set(kept, takeovers=0)
            self._version += 1
            return None

    def _prune(self, kept: _Run, save: SaveRecord, keep_last: int) -> None:
        mine = [s for s in kept.saves if (s.step_id, s.item) == (save.step_id, save.item)]
        gone = {each.number for each in mine[: -max(1, keep_last)]}
        kept.saves = [s for s in kept.saves if s.step_id != save.step_id or s.number not in gone]

    def list_saves(self, run_id: RunId) -> list[SaveRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            saves = [] if kept is None else list(kept.saves)
        return sorted(saves, key=lambda save: (save.step_id, save.number))

    def list_steps(
        self,
        run_id: RunId,
        *,
        current_only: bool = True,
        among: Collection[StepId] | None = None,
    ) -> list[StepRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            steps = [] if kept is None else list(kept.steps.values())
        return [
            step
            for step in steps
            if (step.current or not current_only) and (among is None or step.step_id in among)
        ]

    def list_attempts(self, run_id: RunId, step_id: StepId | None = None) -> list[AttemptRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            attempts = {} if kept is None else dict(kept.attempts)
        return [attempts[key] for key in sorted(attempts) if step_id is None or key[0] == step_id]

    def list_expansions(self, run_id: RunId) -> list[ExpansionRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            expansions = {} if kept is None else dict(kept.expansions)
        return [expansions[key] for key in sorted(expansions)]

    def list_waits(self, run_id: RunId) -> list[WaitRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            waits = {} if kept is None else dict(kept.waits)
        return [waits[key] for key in sorted(waits)]

    def list_events(self, run_id: RunId, *, after: int = 0) -> list[EventRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            events = [] if kept is None else list(kept.events)
        return [event for event in events if event.seq > after]

    def histories(self, run_ids: Collection[RunId]) -> dict[RunId, History]:
        with self._lock:
            return {
                run_id: History(
                    steps=tuple(self.list_steps(run_id, current_only=False)),
                    attempts=tuple(self.list_attempts(run_id)),
                    expansions=tuple(self.list_expansions(run_id)),
                    waits=tuple(self.list_waits(run_id)),
                    saves=tuple(self.list_saves(run_id)),
                    events=tuple(self.list_events(run_id)),
                )
                for run_id in run_ids
            }

    # --- messages ------------------------------------------------------------------------------
    def send(self, message: MessageRecord) -> MessageRecord | None:
        with self._lock:
            told = [] if message.run_id is None else [self._kept(message.run_id)]
            for kept in told:
                guards.require_live(kept.record.id, kept.record.status, "signal")
            if message.dedup_key is not None and any(
                _key_of_message(each) == _key_of_message(message) for each in self._messages
            ):
                return None
            taken = set(guards.blobs_of_value(message.value))
            self._refuse_condemned(message.run_id or RunId(""), taken)
            self._newest_message += 1
            sent = _replace(message, id=self._newest_message)
            self._messages.append(sent)
            for kept in told:
                self._tell(kept, "signalled", {"name": sent.name, "message": sent.id})
            for kept in told or self._runs.values():
                is_asleep = kept.record.status is RunStatus.WAITING
                if is_asleep and (told or _is_heard(kept, sent)):
                    self._set(kept, wake_at=self._clock.now())
            self._version += 1
            return sent

    def messages(self, run_id: RunId, names: Collection[str]) -> list[MessageRecord]:
        with self._lock:
            kept = self._runs.get(run_id)
            if kept is None:
                return []
            had = {wait.message for wait in kept.waits.values()}
            return [
                each
                for each in self._messages
                if each.name in names and each.id not in had and guards.is_for(each, kept.record)
            ]

    def forget_events(self, before: datetime) -> int:
        with self._lock:
            live = [k.record.created_at for k in self._runs.values() if k.record.status in RUN_LIVE]
            limit = min([before, *live])
            kept = [
                each
                for each in self._messages
                if each.run_id is not None or each.at >= limit or self._triggers.is_unheard(each)
            ]
            gone = len(self._messages) - len(kept)
            self._messages = kept
            return gone

    # --- requests from anyone ----------------------------------------------------------------
    def request_cancel(self, run_id: RunId) -> RunRecord:
        with self._lock:
            kept = self._kept(run_id)
            guards.require_live(run_id, kept.record.status, "cancel")
            if not kept.record.cancel_requested:
                self._set(kept, cancel_requested=True)
                self._tell(kept, "cancel requested")
                if kept.record.plan_digest is None:
                    now = self._clock.now()
                    self._set(kept, status=RunStatus.CANCELLED, finished_at=now)
                    self._tell(kept, "cancelled")
                    self._triggers.note_end(kept.record)
            return self._seen(kept)

    def _cancel_if_live(self, run_id: RunId) -> None:
        kept = self._runs.get(run_id)
        if kept is not None and kept.record.status in RUN_LIVE:
            self.request_cancel(run_id)

    def request_pause(self, run_id: RunId, paused: bool) -> RunRecord:
        with self._lock:
            kept = self._kept(run_id)
            old = kept.record
            guards.require_live(run_id, old.status, "pause" if paused else "unpause")
            status = guards.status_after_pause(old.status, paused)
            if status is not old.status and not self._is_driven(old):
                self._set(kept, status=status, owner=None)
            if old.pause_requested != paused:
                self._set(kept, pause_requested=paused)
                self._tell(kept, "pause requested" if paused else "pause cleared")
            return self._seen(kept)

    def note_unplanned(self, run_id: RunId, why: str) -> bool:
        with self._lock:
            kept = self._kept(run_id)
            if not guards.may_note_unplanned(kept.record, kept.events, why):
                return False
            self._tell(kept, guards.UNPLANNED, {"why": why})
            return True

    def reset_run(
        self,
        run_id: RunId,
        *,
        plan: PlanRecord | None = None,
        inputs: Mapping[str, StoredValue] | None = None,
        inputs_digest: str = "",
        policy: RunPolicy | None = None,
        reason: str = "resume",
    ) -> RunRecord:
        with self._lock:
            kept = self._kept(run_id)
            old = kept.record
            guards.require_resettable(run_id, old.status, self._is_driven(old))
            new = guards.reopened(old, plan, policy)
            if inputs is not None:
                new = _replace(new, inputs=dict(inputs), inputs_digest=inputs_digest)
            self._refuse_duplicate(new)
            blobs = set(guards.blobs_of_inputs(new))
            self._refuse_condemned(run_id, blobs | set(() if plan is None else plan.blobs))
            if plan is not None:
                self._plans.setdefault(plan.digest, plan)
                kept.plans.add(plan.digest)
            kept.record = new
            kept.blobs |= blobs
            self._close_failures(kept)
            self._tell(kept, "reset", guards.reset_detail(old, plan, reason))
            return self._seen(kept)

    def delete_run(self, run_id: RunId) -> None:
        with self._lock:
            kept = self._kept(run_id)
            children = [
                child.record.id
                for child in self._runs.values()
                if child.record.parent == run_id and child.record.status in RUN_LIVE
            ]
            guards.require_deletable(run_id, kept.record.status, children, self._takers(run_id))
            del self._runs[run_id]
            self._messages = [each for each in self._messages if each.run_id != run_id]
            self._tombstones[run_id] = self._clock.now()
            self._drop_plans(kept.plans)
            self._version += 1

    def whole_run(self, run_id: RunId) -> WholeRun:
        with self._lock:
            kept = self._kept(run_id)
            had = {wait.message for wait in kept.waits.values()}
            return WholeRun(
                run=self._seen(kept),
                plans=tuple(self._plans[digest] for digest in sorted(kept.plans)),
                history=self.histories([run_id])[run_id],
                messages=tuple(m for m in self._messages if m.run_id == run_id or m.id in had),
            )

    def import_run(self, whole: WholeRun, told: Mapping[str, Any]) -> RunRecord | None:
        guards.require_whole(whole)
        with self._lock:
            run, history = guards.as_imported(whole.run), whole.history
            if self._is_taken(run.id):
                return None
            self._refuse_condemned(run.id, guards.blobs_of_whole(whole))
            numbers = self._imported_messages(whole)
            event = EventRecord(
                kind=guards.IMPORTED, at=self._clock.now(), detail=dict(told), seq=run.seq
            )
            for plan in whole.plans:
                self._plans.setdefault(plan.digest, plan)
            waits = guards.imported_waits(whole, numbers)
            kept = _Run(
                record=run,
                plans={plan.digest for plan in whole.plans},
                steps={(s.step_id, s.generation): s for s in history.steps},
                current={s.step_id: s.generation for s in history.steps if s.current},
                attempts={(a.step_id, a.generation, a.attempt): a for a in history.attempts},
                expansions={_key_of(each): each for each in history.expansions},
                waits={(wait.step_id, wait.generation): wait for wait in waits},
                saves=list(history.saves),
                events=guards.imported_events(whole, numbers, event),
                blobs=guards.blobs_of_whole(whole),
            )
            self._runs[run.id] = kept
            self._version += 1
            return self._seen(kept)

    def _imported_messages(self, whole: WholeRun) -> dict[int, int]:
        """Keep the messages of an imported run; return their numbers here."""
        numbers = {}
        for message in whole.messages:
            self._newest_message += 1
            numbers[message.id] = self._newest_message
            mine = guards.imported_message(message, whole.run.id)
            self._messages.append(_replace(mine, id=self._newest_message))
        return numbers

    def free_id(self, run_id: RunId) -> None:
        with self._lock:
            self._tombstones.pop(run_id, None)

    def list_tombstones(self, before: datetime) -> list[RunId]:
        with self._lock:
            return sorted(run_id for run_id, at in self._tombstones.items() if at < before)

    # --- blobs' references -------------------------------------------------------------------
    def unreferenced(
        self, digests: Iterable[Digest], *, besides: Collection[RunId] = ()
    ) -> list[Digest]:
        with self._lock:
            return sorted(set(digests) - set(self._referenced(besides)))

    def condemn(self, digests: Iterable[Digest]) -> list[Digest]:
        with self._lock:
            marked = self.unreferenced(digests)
            self._condemned.update(dict.fromkeys(marked, self._clock.now()))
            return marked

    def list_condemned(self, digests: Iterable[Digest] | None = None) -> dict[Digest, datetime]:
        with self._lock:
            if digests is None:
                return dict(self._condemned)
            return {each: self._condemned[each] for each in digests if each in self._condemned}

    def absolve(self, marks: Mapping[Digest, datetime]) -> None:
        with self._lock:
            for digest, at in marks.items():
                if self._condemned.get(digest) == at:
                    del self._condemned[digest]

    def forget_condemned(self, before: datetime) -> int:
        with self._lock:
            old = [digest for digest, at in self._condemned.items() if at < before]
            for digest in old:
                del self._condemned[digest]
            return len(old)

    # --- pins --------------------------------------------------------------------------------
    def pin(self, pin: PinRecord) -> None:
        with self._lock:
            if pin.id in self._pins:
                raise StoreError(f"there is a pin {pin.id!r} in {self.url} already")
            self._pins[pin.id] = (pin, frozenset(self._held()))

    def unpin(self, pin_id: str) -> bool:
        with self._lock:
            return self._pins.pop(pin_id, None) is not None

    def list_pins(self) -> list[PinRecord]:
        with self._lock:
            pins = [pin for pin, _ in self._pins.values()]
        return sorted(pins, key=lambda pin: (pin.at, pin.id))

    def check_blobs(self, url: str) -> bool:
        with self._lock:
            if self._blobs_url is not None:
                guards.require_bound(self.url, self._blobs_url, public_url(url))
            return not self._runs and not self._tombstones

    def bind_blobs(self, url: str) -> None:
        with self._lock:
            self._blobs_url = self._blobs_url or public_url(url)
            guards.require_bound(self.url, self._blobs_url, public_url(url))

    # --- looking out -------------------------------------------------------------------------
    def changes(self) -> object:
        return self._version

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    # --- inside, under the lock ----------------------------------------------------------------
    def _kept(self, run_id: RunId) -> _Run:
        kept = self._runs.get(run_id)
        if kept is None:
            raise RunNotFound(run_id, self.url)
        return kept

    def _seen(self, kept: _Run) -> RunRecord:
        return _replace(kept.record, lease_live=self._is_driven(kept.record))

    def _set(self, kept: _Run, **changes: object) -> None:
        kept.record = _replace(kept.record, **changes)
        self._change()

    def _change(self) -> None:
        self._version += 1

    def _tell(self, kept: _Run, kind: str, detail: dict[str, object] | None = None) -> None:
        seq = kept.record.seq + 1
        kept.events.append(
            EventRecord(kind=kind, at=self._clock.now(), detail=detail or {}, seq=seq)
        )
        self._set(kept, seq=seq)

    def _is_driven(self, run: RunRecord) -> bool:
        return run.owner is not None and self._is_live(run.owner.token)

    def _is_live(self, token: str) -> bool:
        heartbeat = self._heartbeats.get(token)
        return heartbeat is not None and self._stands(heartbeat)

    def _stands(self, heartbeat: _Heartbeat) -> bool:
        is_over = heartbeat.until <= self._clock.monotonic()
        return self._is_here(heartbeat.owner) and not is_over

    def _is_here(self, owner: Owner) -> bool:
        return self._boot_id is None or owner.boot_id == self._boot_id

    def _is_claimable(self, kept: _Run, now: datetime) -> bool:
        run = kept.record
        if run.status in RUN_TERMINAL:
            return False
        if self._is_driven(run) and not (run.owner is not None and self._is_here(run.owner)):
            return False
        return run.cancel_requested or guards.is_due(run, now)

    def _fits(self, kept: _Run, offer: Mapping[str, float] | None) -> bool:
        if offer is None:
            return True
        digest = kept.record.plan_digest
        plans = [] if digest is None else [self._plans[digest]]
        plans += [expansion.plan for expansion in kept.expansions.values()]
        return all(guards.fits(plan.needs, offer) for plan in plans)

    def _may_claim(self, run_id: RunId, seen_dead: Collection[str], epoch: int | None) -> bool:
        kept = self._runs.get(run_id)
        if kept is None or kept.record.status in RUN_TERMINAL:
            return False
        run = kept.record
        if epoch not in (None, run.epoch):
            return False
        return not self._is_driven(run) or guards.token_of(run) in seen_dead

    def _is_unheard(self, kept: _Run, heard: int) -> bool:
        """Say whether a message is there for an open wait of the run that is newer."""
        newer = [m for m in self._messages if m.id > heard and guards.is_for(m, kept.record)]
        return any(_is_heard(kept, message) for message in newer)

    def _refuse_condemned(self, run_id: RunId, blobs: set[Digest]) -> None:
        taken = self._condemned.keys() & blobs
        if taken:
            refusal = guards.condemned(run_id, taken)
            raise BlobsCondemned(refusal.message, digests=refusal.digests)

    def _refusal(self, part: RunCommit) -> Refusal | None:
        kept = self._runs.get(part.run_id)
        if kept is None:
            return guards.gone(part.run_id)
        run = kept.record
        refusal = guards.refusal_of(part, run.status, guards.token_of(run), run.epoch)
        if refusal is not None:
            return refusal
        taken = self._condemned.keys() & guards.blobs_of_commit(part)
        if taken:
            return guards.condemned(part.run_id, taken)
        bad = [*_bad_steps(kept, part), *_bad_expansions(kept, part), *_bad_waits(kept, part)]
        return guards.rejected(part.run_id, bad) if bad else None

    def _apply(self, part: RunCommit) -> int:
        kept = self._runs[part.run_id]
        for key in part.lost:
            self._retire(kept, key.step_id, key.generation, lost=True)
        for key in part.superseded:
            self._retire(kept, key.step_id, key.generation, lost=False)
        seq = kept.record.seq
        for seq, step in enumerate(part.steps, seq + 1):  # noqa: B020
            kept.steps[step.step_id, step.generation] = _replace(step, seq=seq)
            kept.blobs.update(guards.blobs_of_step(step))
            if step.current:
                kept.current[step.step_id] = step.generation
        for expansion in part.expansions:
            self._plans.setdefault(expansion.plan.digest, expansion.plan)
            kept.plans.add(expansion.plan.digest)
            kept.expansions[_key_of(expansion)] = expansion
        for wait in part.waits:
            kept.waits[wait.step_id, wait.generation] = wait
            kept.blobs.update(guards.blobs_of_value(wait.default))
        for delivery in part.deliveries:
            ended = delivery.step_id, delivery.generation
            kept.waits[ended] = _replace(kept.waits[ended], message=delivery.message)
        kept.saves = [save for save in kept.saves if save.step_id not in part.spent]
        for attempt in part.attempts:
            kept.attempts[attempt.step_id, attempt.generation, attempt.attempt] = attempt
        for seq, event in enumerate(part.events, seq + 1):  # noqa: B020
            kept.events.append(_replace(event, seq=seq))
        takeovers = 0 if part.steps else kept.record.takeovers
        self._set(kept, seq=seq, wake_at=part.wake_at, takeovers=takeovers)
        if part.end is not None:
            self._end(kept, part)
        return kept.record.seq

    def _end(self, kept: _Run, part: RunCommit) -> None:
        assert part.end is not None
        self._set(
            kept,
            status=part.end.status,
            error=part.end.error,
            finished_at=self._clock.now(),
            owner=None,
        )
        self._tell(kept, part.end.status.lower())
        self._triggers.note_end(kept.record)

    def _retire(self, kept: _Run, step_id: StepId, generation: int, *, lost: bool) -> None:
        old = kept.steps[step_id, generation]
        status = StepStatus.LOST if lost else old.status
        kept.steps[step_id, generation] = _replace(old, status=status, current=False)
        del kept.current[step_id]

    def _close_failures(self, kept: _Run) -> None:
        for (step_id, generation), step in list(kept.steps.items()):
            if step.current and step.status in guards.REOPENED and not step.caught:
                self._retire(kept, step_id, generation, lost=False)

    def _drop_plans(self, plans: set[Digest]) -> None:
        for digest in plans:
            is_of_run = any(digest in kept.plans for kept in self._runs.values())
            is_pinned = self._schedules.holds_plan(digest) or self._triggers.holds_plan(digest)
            if not is_of_run and not is_pinned:
                del self._plans[digest]

    def _takers(self, run_id: RunId) -> list[RunId]:
        """Return the live runs that take this one's steps over."""
        records = (kept.record for kept in self._runs.values())
        return [r.id for r in records if r.reuse_from == run_id and r.status in RUN_LIVE]

    def _referenced(self, besides: Collection[RunId] = ()) -> Iterator[Digest]:
        yield from self._held(besides)
        for _, digests in self._pins.values():
            yield from digests

    def _held(self, besides: Collection[RunId] = ()) -> Iterator[Digest]:
        """Yield what runs and their plans refer to, but for those of some runs."""
        staying = [kept for run_id, kept in self._runs.items() if run_id not in besides]
        for kept in staying:
            yield from kept.blobs
            for save in kept.saves:
                yield from guards.blobs_of_value(save.value)
        for message in self._messages:
            if message.run_id not in besides:
                yield from guards.blobs_of_value(message.value)
        for digest in {digest for kept in staying for digest in kept.plans}:
            yield from self._plans[digest].blobs
        yield from self._schedules.held()
        yield from self._triggers.held()


def _newness(run: RunRecord) -> tuple[datetime, RunId]:
    return (run.created_at, run.id)


def _matches(query: RunQuery, run: RunRecord) -> bool:
    return (
        (not query.status or guards.shows_as(run) & set(query.status) != set())
        and (query.workflow is None or run.workflow == query.workflow)
        and (query.schedule is None or run.schedule == query.schedule)
        and (query.trigger is None or run.trigger == query.trigger)
        and query.tags.items() <= run.tags.items()
        and (query.since is None or run.created_at >= query.since)
        and run.id.startswith(query.id_prefix)
    )


def _bad_steps(kept: _Run, part: RunCommit) -> Iterator[StepId]:
    """Yield the steps of rows that a database would refuse, in the order of the part."""
    retired: set[StepId] = set()
    for key in (*part.lost, *part.superseded):
        if kept.current.get(key.step_id) != key.generation or key.step_id in retired:
            yield key.step_id
        retired.add(key.step_id)
    for key in part.lost:
        old = kept.steps.get((key.step_id, key.generation))
        if old is not None and old.status is not StepStatus.SUCCEEDED:
            yield key.step_id
    yield from _bad_inserts(kept, part.steps, retired)


def _bad_inserts(kept: _Run, steps: Iterable[StepRecord], retired: set[StepId]) -> Iterator[StepId]:
    keys: set[tuple[StepId, int]] = set()
    filled: set[StepId] = set()
    for step in steps:
        step_id = step.step_id
        key = (step_id, step.generation)
        is_there = key in kept.steps or key in keys
        has_current = step_id in filled or (step_id in kept.current and step_id not in retired)
        if is_there or (step.current and has_current) or not _is_storable(step):
            yield step_id
            continue
        keys.add(key)
        if step.current:
            filled.add(step_id)


def _bad_expansions(kept: _Run, part: RunCommit) -> Iterator[StepId]:
    seen: set[tuple[StepId, int, int]] = set()
    for expansion in part.expansions:
        key = _key_of(expansion)
        if key in kept.expansions or key in seen:
            yield expansion.step_id
        seen.add(key)


def _bad_waits(kept: _Run, part: RunCommit) -> Iterator[StepId]:
    """Yield the steps of waits that are there already, and of deliveries that cannot be."""
    new: set[tuple[StepId, int]] = set()
    for wait in part.waits:
        key = wait.step_id, wait.generation
        if key in kept.waits or key in new:
            yield wait.step_id
        new.add(key)
    had = {wait.message for wait in kept.waits.values() if wait.message is not None}
    unended = new | {key for key, wait in kept.waits.items() if wait.message is None}
    for delivery in part.deliveries:
        key = delivery.step_id, delivery.generation
        if key not in unended or delivery.message in had:
            yield delivery.step_id
            continue
        unended.remove(key)
        had.add(delivery.message)


def _is_heard(kept: _Run, message: MessageRecord) -> bool:
    """Say whether a wait of the run that is open is for such a message."""
    return any(
        guards.hears(wait, message) and key not in kept.steps for key, wait in kept.waits.items()
    )


def _key_of_message(message: MessageRecord) -> tuple[RunId | None, str, str | None]:
    return message.run_id, message.name, message.dedup_key


def _key_of(expansion: ExpansionRecord) -> tuple[StepId, int, int]:
    """Return what an expansion is found by within its run."""
    return expansion.step_id, expansion.generation, expansion.link


def _is_storable(step: StepRecord) -> bool:
    """Say whether a database could take the row."""
    try:
        _ROWS.pack(step)
    except (ValueError, OverflowError, TypeError):
        return False
    return True
