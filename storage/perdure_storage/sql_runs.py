"""``RunStore`` on SQLite and PostgreSQL: one method, one transaction, guarded by what it reads.

A method locks the run's row, asks the guards of ``guards.py`` about what it read, and writes. The
rows of that one run are only ever written under that lock, so nothing else needs to be locked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec

from perdure_storage import guards
from perdure_storage.clock import Clock
from perdure_storage.database import Database, RowRefused, Transaction
from perdure_storage.errors import PerdureError, RunConflict, RunNotFound, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.leases import microseconds
from perdure_storage.lifecycle import RunStatus, is_terminal
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
from perdure_storage.rows import (
    AttemptRows,
    ExpansionRows,
    PlanRows,
    RunRows,
    StepRows,
    from_us,
    pack_offer,
    pack_owner,
    pack_processes,
    to_us,
    unpack_event,
    unpack_owner,
    unpack_processes,
)
from perdure_storage.signing import Signer
from perdure_storage.sql_claims import Claim, Claims
from perdure_storage.sql_commits import Commits, note_ends
from perdure_storage.sql_creation import RUN_COLUMNS, Creation
from perdure_storage.sql_histories import Histories
from perdure_storage.sql_imports import Imports
from perdure_storage.sql_messages import Messages
from perdure_storage.sql_queues import SqlQueueStore
from perdure_storage.sql_saves import Saves
from perdure_storage.sql_schedules import SqlScheduleStore
from perdure_storage.sql_triggers import SqlTriggerStore
from perdure_storage.sql_upkeep import Upkeep

_replace = msgspec.structs.replace

DEAD_KEPT_S = 86_400.0
"""How long the row of a dead coordinator that owns nothing stays, for whoever looks for it."""

_LAST = "\U0010ffff"


class _IdTaken(PerdureError):
    """Undoes the making of a run whose id is taken. Internal."""


class SqlRunStore:
    """A ``RunStore`` in a SQL database.

    Args:
        database: SQLite or PostgreSQL, with its tables made.
        store_id: the id in its settings.
        clock: wall time for deadlines and events.
        signer: signs and checks rows; None for a store whose rows are not signed.
    """

    def __init__(
        self, database: Database, *, store_id: str, clock: Clock, signer: Signer | None
    ) -> None:
        self._database = database
        self._statements = database.statements
        self._store_id = store_id
        self._clock = clock
        self._runs = RunRows(signer)
        self._steps = StepRows(signer)
        self._attempts = AttemptRows(signer)
        self._expansions = ExpansionRows(signer)
        self._plans = PlanRows(signer)
        self._creation = Creation(database, clock, signer)
        self._commits = Commits(database, clock, signer)
        self._messages = Messages(database, clock, signer, self._require)
        self._queues = SqlQueueStore(database, clock, self._changed)
        self._claims = Claims(database, clock, signer, self._messages, self._creation, self._queues)
        self._saves = Saves(database, signer)
        self._histories = Histories(database, signer)
        self._imports = Imports(database, clock, signer, self._creation)
        self._upkeep = Upkeep(database, clock)
        self._schedules = SqlScheduleStore(
            database, clock, signer, self._creation, self._cancel_if_live, self._changed
        )
        self._triggers = SqlTriggerStore(database, clock, signer, self._creation, self._changed)
        self._own_changes = 0

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def url(self) -> str:
        return self._database.url

    @property
    def schedules(self) -> SqlScheduleStore:
        return self._schedules

    @property
    def triggers(self) -> SqlTriggerStore:
        return self._triggers

    @property
    def queues(self) -> SqlQueueStore:
        return self._queues

    @property
    def database(self) -> Database:
        """Return the database, for who looks after it: checks and backups."""
        return self._database

    # --- runs --------------------------------------------------------------------------------
    def create_run(
        self, run: RunRecord, plan: PlanRecord | None, *, owner: Owner | None = None
    ) -> RunRecord | None:
        guards.require_plan(run, plan)
        made = _replace(guards.fresh(run), seq=1)
        if owner is not None and guards.may_be_born(made):
            made = guards.born(made, owner, self._clock.now())
        try:
            self._runs.pack(made)
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise StoreError(f"run {run.id!r} cannot be stored: {error}") from error
        crash_point("run.before-insert")
        try:
            self._database.write(lambda t: self._create(t, made, plan))
        except _IdTaken:
            return None
        except RowRefused as error:
            raise StoreError(f"run {run.id!r} cannot be stored: {error}") from error
        crash_point("run.after-insert")
        self._own_changes += 1
        return made

    def _create(self, transaction: Transaction, run: RunRecord, plan: PlanRecord | None) -> None:
        if not self._creation.create(transaction, run, plan):
            raise _IdTaken(run.id)
        self._database.announce(transaction)

    def find_run(self, run_id: RunId) -> RunRecord | None:
        row = self._database.read(lambda t: t.row(self._statements.find_run, run_id=run_id))
        return None if row is None else self._runs.unpack(row)

    def find_runs(self, run_ids: Collection[RunId]) -> list[RunRecord]:
        listed = self._statements.id_list(list(run_ids))
        rows = self._database.read(lambda t: t.rows(self._statements.find_runs, ids=listed))
        return [self._runs.unpack(row) for row in rows]

    def get_run(self, run_id: RunId) -> RunRecord:
        run = self.find_run(run_id)
        if run is None:
            raise RunNotFound(run_id, self.url)
        return run

    def list_runs(self, query: RunQuery) -> list[RunRecord]:
        given = self._filters(query)
        if query.after is not None:
            given |= {"after_us": to_us(self.get_run(query.after).created_at)}
            given |= {"after_id": query.after}
        statuses = [s for s in query.status if s is not RunStatus.INTERRUPTED]
        given |= {f"status{n}": status.value for n, status in enumerate(statuses)}
        if query.status and not statuses:
            # An empty IN list is no SQL: no stored status is what INTERRUPTED alone asks for.
            given["status0"] = RunStatus.INTERRUPTED.value
        statement = self._statements.list_runs(
            statuses=max(len(statuses), bool(query.status)), filters=_filter_names(query)
        )
        rows = self._database.read(lambda t: t.rows(statement, limit=query.limit, **given))
        return [self._runs.unpack_listed(row) for row in rows]

    def _filters(self, query: RunQuery) -> dict[str, object]:
        given: dict[str, object] = {
            "workflow": query.workflow,
            "schedule": query.schedule,
            "trigger": query.trigger,
            "since_us": to_us(query.since),
            "prefix": query.id_prefix,
            "prefix_end": query.id_prefix + _LAST,
        }
        for number, (name, value) in enumerate(query.tags.items()):
            given |= {f"tag{number}_name": name, f"tag{number}_value": value}
        return given

    def get_plan(self, digest: Digest | None) -> PlanRecord:
        if digest is None:
            raise guards.no_plan_yet(self.url)
        row = self._database.read(lambda t: t.row(self._statements.get_plan, digest=digest))
        if row is None:
            raise StoreError(
                f"no plan {digest} in {self.url}: see what else is missing with `perdure db check`"
            )
        return self._plans.unpack(row)

    def claimable(
        self,
        limit: int = 100,
        *,
        besides: str | None = None,
        offer: Mapping[str, float] | None = None,
        seen_dead: Collection[str] = (),
    ) -> list[RunRecord]:
        now_us = to_us(self._clock.now())
        boot_id = self._database.terms.boot_id
        given: dict[str, object] = {
            "limit": limit,
            "besides": besides or "",
            "now_us": now_us,
            "this_boot": boot_id,
            "seen_dead": self._statements.id_list(list(seen_dead)),
        }
        if offer is not None:
            given["offer"] = pack_offer(offer)

        def look(transaction: Transaction) -> list[RunRecord]:
            queues = self._queues.within(transaction)
            statement = self._statements.claimable(fits=offer is not None, queues=bool(queues))
            found = [self._runs.unpack_listed(r) for r in transaction.rows(statement, **given)]
            if not queues:
                return found
            found += self._queues.in_turn(transaction, queues, offer, limit)
            return sorted(found, key=lambda run: guards.claim_order(run, seen_dead))[:limit]

        return self._database.read(look)

    # --- ownership ---------------------------------------------------------------------------
    def register(self, owner: Owner, lease_s: float) -> None:
        def work(transaction: Transaction) -> None:
            transaction.run(
                self._statements.delete_old_heartbeats, kept_us=microseconds(DEAD_KEPT_S)
            )
            transaction.run(
                self._statements.put_heartbeat,
                token=owner.token,
                owner=pack_owner(owner),
                boot_id=owner.boot_id,
                workers=pack_processes(()),
                lease_us=microseconds(lease_s),
            )

        self._database.write(work)

    def renew(self, owner: Owner, lease_s: float, workers: Sequence[ProcessId] = ()) -> bool:
        crash_point("renew.before")
        packed = pack_processes(workers)
        row = self._database.beat(
            lambda t: t.row(
                self._statements.renew,
                for_token=owner.token,
                new_workers=packed,
                lease_us=microseconds(lease_s),
            )
        )
        crash_point("renew.after")
        return row is not None

    def unregister(self, owner: Owner) -> None:
        self._database.write(lambda t: t.run(self._statements.delete_heartbeat, token=owner.token))
        self._own_changes += 1

    def coordinators(self) -> list[tuple[Owner, bool]]:
        rows = self._database.read(lambda t: t.rows(self._statements.list_coordinators))
        return [(unpack_owner(owner), bool(alive)) for owner, alive in rows]

    def workers_of(self, token: str) -> tuple[ProcessId, ...]:
        row = self._database.read(lambda t: t.row(self._statements.workers_of, token=token))
        return () if row is None else unpack_processes(row[0])

    def claim_run(
        self,
        run_id: RunId,
        owner: Owner,
        *,
        seen_dead: str | None = None,
        epoch: int | None = None,
        built: BuiltPlan | None = None,
    ) -> RunRecord | None:
        claim = Claim(
            owner=owner,
            seen_dead=() if seen_dead is None else (seen_dead,),
            epochs={} if epoch is None else {run_id: epoch},
            built={} if built is None else {run_id: built},
        )
        return self._claims.claim_run(run_id, claim)

    def claim_runs(
        self,
        run_ids: Collection[RunId],
        owner: Owner,
        *,
        seen_dead: Collection[str] = (),
        epochs: Mapping[RunId, int] = NOTHING_SEEN,
        built: Mapping[RunId, BuiltPlan] = NOTHING_BUILT,
    ) -> list[RunRecord]:
        return self._claims.claim_runs(
            run_ids, Claim(owner=owner, seen_dead=seen_dead, epochs=epochs, built=built)
        )

    def release_run(
        self, run: RunRecord, *, to: RunStatus, wake_at: datetime | None = None, heard: int = 0
    ) -> bool:
        return bool(self.release_runs([Release(run=run, to=to, wake_at=wake_at, heard=heard)]))

    def release_runs(self, releases: Sequence[Release]) -> list[RunId]:
        released = self._claims.release_runs(releases)
        self._own_changes += 1
        return released

    def next_wake(self, offer: Mapping[str, float] | None = None) -> datetime | None:
        statement = self._statements.next_wake(fits=offer is not None)
        given = {} if offer is None else {"offer": pack_offer(offer)}
        row = self._database.read(lambda t: t.row(statement, **given))
        return None if row is None else from_us(row[0])

    # --- checkpoints -------------------------------------------------------------------------
    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        return self._commits.commit(batch)

    def list_steps(
        self,
        run_id: RunId,
        *,
        current_only: bool = True,
        among: Collection[StepId] | None = None,
    ) -> list[StepRecord]:
        statements = self._statements
        given: dict[str, object] = {"run_id": run_id}
        if among is None:
            statement = statements.list_current_steps if current_only else statements.list_steps
        else:
            some, current = statements.list_some_steps, statements.list_some_current_steps
            statement = current if current_only else some
            given["ids"] = statements.id_list(sorted(among))
        unpack = self._steps.unpack

        def unpacked(transaction: Transaction) -> list[StepRecord]:
            with transaction.stream(statement, **given) as rows:
                return sorted(map(unpack, rows), key=_by_seq)

        return self._database.read(unpacked)

    def list_attempts(self, run_id: RunId, step_id: StepId | None = None) -> list[AttemptRecord]:
        of_run, of_step = self._statements.list_attempts, self._statements.list_attempts_of_step
        statement = of_run if step_id is None else of_step
        rows = self._database.read(lambda t: t.rows(statement, run_id=run_id, step_id=step_id))
        return [self._attempts.unpack(row) for row in rows]

    def save(
        self, save: SaveRecord, *, owner: str, epoch: int, keep_last: int = 1
    ) -> Refusal | None:
        refusal = self._saves.save(save, owner=owner, epoch=epoch, keep_last=keep_last)
        self._own_changes += 1
        return refusal

    def list_saves(self, run_id: RunId) -> list[SaveRecord]:
        return self._saves.list_saves(run_id)

    def list_expansions(self, run_id: RunId) -> list[ExpansionRecord]:
        statement = self._statements.list_expansions
        rows = self._database.read(lambda t: t.rows(statement, run_id=run_id))
        return [self._expansions.unpack(row) for row in rows]

    def list_events(self, run_id: RunId, *, after: int = 0) -> list[EventRecord]:
        statement = self._statements.list_events
        rows = self._database.read(lambda t: t.rows(statement, run_id=run_id, after=after))
        return [unpack_event(row) for row in rows]

    def histories(self, run_ids: Collection[RunId]) -> dict[RunId, History]:
        return self._histories.read(run_ids)

    # --- messages ------------------------------------------------------------------------------
    def list_waits(self, run_id: RunId) -> list[WaitRecord]:
        return self._messages.list_waits(run_id)

    def send(self, message: MessageRecord) -> MessageRecord | None:
        sent = self._messages.send(message)
        self._own_changes += 1
        return sent

    def messages(self, run_id: RunId, names: Collection[str]) -> list[MessageRecord]:
        return self._messages.list_messages(run_id, names)

    def find_message(self, number: int) -> MessageRecord | None:
        """Return one message, whoever it is for, or None if it is not there."""
        return self._messages.find_message(number)

    def forget_events(self, before: datetime) -> int:
        return self._messages.forget_events(before)

    # --- requests from anyone ----------------------------------------------------------------
    def request_cancel(self, run_id: RunId) -> RunRecord:
        crash_point("cancel.before")
        run = self._database.write(lambda t: self._cancel(t, run_id))
        crash_point("cancel.after")
        self._own_changes += 1
        return run

    def _cancel(self, transaction: Transaction, run_id: RunId) -> RunRecord:
        old = self._require(transaction, run_id)
        guards.require_live(run_id, old.status, "cancel")
        if old.cancel_requested:
            return old
        asked = _replace(old, cancel_requested=True, seq=old.seq + 1)
        self._update(transaction, run_id, cancel_requested=True, seq=asked.seq)
        self._creation.tell(transaction, run_id, asked.seq, "cancel requested")
        self._database.announce(transaction)
        return asked if asked.plan_digest is not None else self._end_unplanned(transaction, asked)

    def _end_unplanned(self, transaction: Transaction, run: RunRecord) -> RunRecord:
        ended = _replace(
            run,
            status=RunStatus.CANCELLED,
            finished_at=self._clock.now(),
            seq=run.seq + 1,
        )
        self._update(
            transaction,
            run.id,
            status=ended.status.value,
            finished_at_us=to_us(ended.finished_at),
            seq=ended.seq,
        )
        self._creation.tell(transaction, run.id, ended.seq, "cancelled")
        note_ends(self._database, transaction, [run.id])
        return ended

    def _cancel_if_live(self, transaction: Transaction, run_id: RunId) -> None:
        run = self._lock(transaction, run_id)
        if run is not None and not is_terminal(run.status):
            self._cancel(transaction, run_id)

    def request_pause(self, run_id: RunId, paused: bool) -> RunRecord:
        crash_point("pause.before")
        run = self._database.write(lambda t: self._pause(t, run_id, paused))
        crash_point("pause.after")
        self._own_changes += 1
        return run

    def _pause(self, transaction: Transaction, run_id: RunId, paused: bool) -> RunRecord:
        old = self._require(transaction, run_id)
        guards.require_live(run_id, old.status, "pause" if paused else "unpause")
        status = guards.status_after_pause(old.status, paused)
        if status is not old.status and not old.lease_live:
            self._update(transaction, run_id, status=status.value, **_NOBODY)
        if old.pause_requested != paused:
            self._update(transaction, run_id, pause_requested=paused, seq=old.seq + 1)
            kind = "pause requested" if paused else "pause cleared"
            self._creation.tell(transaction, run_id, old.seq + 1, kind)
        self._database.announce(transaction)
        return self._require(transaction, run_id)

    def note_unplanned(self, run_id: RunId, why: str) -> bool:
        crash_point("unplanned.before")
        is_new = self._database.write(lambda t: self._note_unplanned(t, run_id, why))
        crash_point("unplanned.after")
        return is_new

    def _note_unplanned(self, transaction: Transaction, run_id: RunId, why: str) -> bool:
        old = self._require(transaction, run_id)
        rows = transaction.rows(self._statements.list_events, run_id=run_id, after=0)
        if not guards.may_note_unplanned(old, [unpack_event(row) for row in rows], why):
            return False
        self._update(transaction, run_id, seq=old.seq + 1)
        self._creation.tell(transaction, run_id, old.seq + 1, guards.UNPLANNED, {"why": why})
        return True

    def requests(self, token: str) -> list[RunRecord]:
        rows = self._database.read(lambda t: t.rows(self._statements.runs_of_owner, token=token))
        return [self._runs.unpack_listed(row) for row in rows]

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
        def reopen(old: RunRecord) -> RunRecord:
            new = guards.reopened(old, plan, policy)
            if inputs is None:
                return new
            return _replace(new, inputs=dict(inputs), inputs_digest=inputs_digest)

        crash_point("reset.before")
        try:
            run = self._database.write(lambda t: self._reset(t, run_id, plan, reopen, reason))
        except RowRefused as error:
            # Between the look and the write another run of its deduplication key was made.
            raise RunConflict(f"run {run_id!r} cannot be opened again: {error}") from error
        crash_point("reset.after")
        self._own_changes += 1
        return run

    def _reset(
        self,
        transaction: Transaction,
        run_id: RunId,
        plan: PlanRecord | None,
        reopen: Callable[[RunRecord], RunRecord],
        reason: str,
    ) -> RunRecord:
        old = self._require(transaction, run_id)
        guards.require_resettable(run_id, old.status, old.lease_live)
        new = _replace(reopen(old), seq=old.seq + 1)
        self._creation.refuse_duplicate(transaction, new)
        blobs = guards.blobs_of_inputs(new)
        of_plan = () if plan is None else plan.blobs
        self._creation.refuse_condemned(transaction, run_id, (*of_plan, *blobs))
        if plan is not None:
            self._creation.put_plan(transaction, plan)
            transaction.insert(self._statements.insert_plan_ref, [(run_id, plan.digest)])
        self._creation.refer(transaction, "run", run_id, blobs)
        # The whole row, because the plan is under the run's signature.
        changed = dict(zip(RUN_COLUMNS, self._runs.pack(new), strict=True))
        self._update(transaction, run_id, **{name: changed[name] for name in REOPENING})
        transaction.run(self._statements.close_failures, of_run=run_id)
        self._creation.tell(
            transaction, run_id, new.seq, "reset", guards.reset_detail(old, plan, reason)
        )
        self._database.announce(transaction)
        return _replace(new, lease_live=False)

    def delete_run(self, run_id: RunId) -> None:
        crash_point("delete.before")
        self._database.write(lambda t: self._delete(t, run_id))
        crash_point("delete.after")
        self._own_changes += 1

    def _delete(self, transaction: Transaction, run_id: RunId) -> None:
        statements = self._statements
        run = self._require(transaction, run_id)
        children = transaction.rows(statements.live_children, run_id=run_id)
        takers = transaction.rows(statements.live_takers, run_id=run_id)
        guards.require_deletable(
            run_id, run.status, [row[0] for row in children], [row[0] for row in takers]
        )
        plans = [row[0] for row in transaction.rows(statements.plans_of_run, run_id=run_id)]
        for statement in statements.delete_of_run:
            transaction.run(statement, run_id=run_id)
        transaction.insert(statements.insert_tombstone, [(run_id, to_us(self._clock.now()))])
        self._creation.drop_unused(transaction, plans)

    def whole_run(self, run_id: RunId) -> WholeRun:
        return self._imports.whole_run(run_id)

    def import_run(self, whole: WholeRun, told: Mapping[str, Any]) -> RunRecord | None:
        imported = self._imports.import_run(whole, told)
        self._own_changes += 1
        return imported

    # --- upkeep ------------------------------------------------------------------------------
    def free_id(self, run_id: RunId) -> None:
        self._upkeep.free_id(run_id)

    def list_tombstones(self, before: datetime) -> list[RunId]:
        return self._upkeep.list_tombstones(before)

    def unreferenced(
        self, digests: Iterable[Digest], *, besides: Collection[RunId] = ()
    ) -> list[Digest]:
        return self._upkeep.unreferenced(digests, besides)

    def condemn(self, digests: Iterable[Digest]) -> list[Digest]:
        return self._upkeep.condemn(digests)

    def list_condemned(self, digests: Iterable[Digest] | None = None) -> dict[Digest, datetime]:
        return self._upkeep.list_condemned(digests)

    def absolve(self, marks: Mapping[Digest, datetime]) -> None:
        self._upkeep.absolve(marks)

    def forget_condemned(self, before: datetime) -> int:
        return self._upkeep.forget_condemned(before)

    def pin(self, pin: PinRecord, *, pinned: Callable[[], None] = lambda: None) -> None:
        """Keep every blob that is referred to now from gc, as ``RunStore.pin`` says.

        Args:
            pin: id, time and note.
            pinned: called inside the transaction, while nobody else can write on SQLite: who
                begins to read there sees exactly what is pinned.
        """
        self._upkeep.pin(pin, pinned)

    def unpin(self, pin_id: str) -> bool:
        return self._upkeep.unpin(pin_id)

    def list_pins(self) -> list[PinRecord]:
        return self._upkeep.list_pins()

    # --- settings -----------------------------------------------------------------------------
    def blobs_url(self) -> str | None:
        """Return the URL of the blob root that this store is bound to, if it is bound."""
        settings = self._database.read(lambda t: t.texts(self._statements.list_settings))
        return settings.get("blobs_url")

    def check_blobs(self, url: str) -> bool:
        bound = self.blobs_url()
        if bound is not None:
            guards.require_bound(self.url, bound, public_url(url))
        row = self._database.read(lambda t: t.row(self._statements.any_run_ever))
        return row is not None and not row[0]

    def bind_blobs(self, url: str) -> None:
        shown = public_url(url)
        bound = self.blobs_url()
        if bound is None:
            statement = self._statements.insert_setting
            crash_point("bind.before")
            self._database.write(lambda t: t.insert(statement, [("blobs_url", shown)]))
            crash_point("bind.after")
            bound = self.blobs_url() or shown  # another one may have been faster
        guards.require_bound(self.url, bound, shown)

    # --- looking out -------------------------------------------------------------------------
    def changes(self) -> object:
        # Other threads of this process write through this very object: those writes count too.
        return (self._database.changes(), self._own_changes)

    def _changed(self) -> None:
        self._own_changes += 1

    def close(self) -> None:
        self._database.close()

    # --- inside a transaction ----------------------------------------------------------------
    def _lock(self, transaction: Transaction, run_id: RunId) -> RunRecord | None:
        lock = self._statements.lock_run
        if lock is not None:
            transaction.row(lock, run_id=run_id)
        row = transaction.row(self._statements.find_run, run_id=run_id)
        return None if row is None else self._runs.unpack(row)

    def _require(self, transaction: Transaction, run_id: RunId) -> RunRecord:
        run = self._lock(transaction, run_id)
        if run is None:
            raise RunNotFound(run_id, self.url)
        return run

    def _update(self, transaction: Transaction, run_id: RunId, **columns: object) -> None:
        transaction.run(self._statements.update_run(*columns), run_id=run_id, **columns)


_by_seq = attrgetter("seq")
_NOBODY: dict[str, object] = {"owner": None, "owner_token": None}
REOPENING = (
    "status",
    "plan_digest",
    "inputs",
    "inputs_digest",
    "policy",
    "deadline_us",
    "finished_at_us",
    "error",
    "error_mac",
    "owner",
    "owner_token",
    "takeovers",
    "seq",
    "wake_at_us",
    "cancel_requested",
    "pause_requested",
    "mac",
)


def _filter_names(query: RunQuery) -> frozenset[str]:
    in_use = {
        "workflow": query.workflow is not None,
        "schedule": query.schedule is not None,
        "trigger": query.trigger is not None,
        "since": query.since is not None,
        "prefix": bool(query.id_prefix),
        "after": query.after is not None,
        "interrupted": RunStatus.INTERRUPTED in query.status,
        **{f"tag{number}": True for number in range(len(query.tags))},
    }
    return frozenset(name for name, is_used in in_use.items() if is_used)
