"""The contracts of stores. Their docstrings are law; ``contract.py`` holds every store to it.

Each method of ``RunStore`` is one transaction: all of it lands or nothing does, also when the
process dies inside. A guard that fails changes nothing and says what it saw. Locks are taken in
the order run rows by id, then steps, then others.

Events that the store itself writes, in the transaction of the change they tell of, each with the
next sequence number: ``submitted``, ``claimed``, ``taken over``, ``cancel requested``,
``pause requested``, ``pause cleared``, ``reset``, ``imported``, and the terminal ``succeeded``,
``failed``, ``cancelled``. All others come in with ``RunCommit.events``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from perdure_storage.lifecycle import RunStatus
from perdure_storage.queue_protocol import QueueStore
from perdure_storage.records import (
    NOTHING_BUILT,
    NOTHING_SEEN,
    AttemptRecord,
    Buffer,
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
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.trigger_protocol import TriggerStore


class RunStore(Protocol):
    """Metadata of runs. Safe to use from one thread at a time for writing; see each method."""

    @property
    def store_id(self) -> str:
        """Return the id made when the store was created; blobs lie under it."""
        ...

    @property
    def url(self) -> str:
        """Return where the store is, without credentials, for messages."""
        ...

    @property
    def schedules(self) -> ScheduleStore:
        """Return the schedules of the same database."""
        ...

    @property
    def triggers(self) -> TriggerStore:
        """Return the triggers of the same database."""
        ...

    @property
    def queues(self) -> QueueStore:
        """Return the queues of the same database."""
        ...

    # --- runs -------------------------------------------------------------------------------
    def create_run(
        self, run: RunRecord, plan: PlanRecord | None, *, owner: Owner | None = None
    ) -> RunRecord | None:
        """Insert a QUEUED run with its plan, if it has one yet, and blob references.

        With ``owner``, who is registered and has a plan, the run is claimed in the same
        transaction, as ``claim_run`` would: RUNNING, epoch 1. But not one of a queue, or with a
        ``not_before``: it is QUEUED, and claimed in its turn.

        Guard: no run, and no tombstone, has this id. No other live run of its queue has its
        ``dedup_key``: else DuplicateRun is raised, which names that run. Returns the row, or None
        if the id is taken (the caller then reads the run and applies the rules for existing ids;
        if there is none to read, the id was deleted and what it left is not all gone yet).
        After it returned the run exists, whatever dies. Ownership, epoch, sequence and requests
        start from nothing, whatever ``run`` says. Raises BlobsCondemned if inputs or plan name
        blobs that gc is taking: nothing was made, put them again; InternalError if ``plan`` is not
        the one that the run names.
        """
        ...

    def find_run(self, run_id: RunId) -> RunRecord | None:
        """Return the run, or None. ``lease_live`` is judged by the store's own clock."""
        ...

    def find_runs(self, run_ids: Collection[RunId]) -> list[RunRecord]:
        """Return those of the runs that there are, in no order."""
        ...

    def get_run(self, run_id: RunId) -> RunRecord:
        """Return the run. Raises RunNotFound, naming the store that was asked."""
        ...

    def list_runs(self, query: RunQuery) -> list[RunRecord]:
        """Return a page of runs, newest first, by (created_at, id). ``inputs`` are left empty."""
        ...

    def get_plan(self, digest: Digest | None) -> PlanRecord:
        """Return the plan. Raises StoreError if it is not there.

        None, which a run without a plan has, is of no plan that is there.
        """
        ...

    def claimable(
        self,
        limit: int = 100,
        *,
        besides: str | None = None,
        offer: Mapping[str, float] | None = None,
        seen_dead: Collection[str] = (),
    ) -> list[RunRecord]:
        """Return live runs without a live lease that are due: QUEUED ones whose ``not_before``
        has come, WAITING ones whose ``wake_at`` has come, RUNNING ones whose owner's lease is
        over or is on this boot (the caller looks whether that process lives), and any live one
        with a cancel request. PAUSED ones whose pause request was cleared count as RUNNING.

        Those without a live lease come first, so that healthy neighbours hide nothing, and those
        of owners in ``seen_dead``, whose leases count for nothing; then those that somebody has
        begun, before whatever waits; then highest priority, then oldest. Runs owned by ``besides``
        (the caller's own token) are left out. ``inputs`` are left empty.

        Of a queue with limits only those are given that hold a slot, that are to be cancelled, or
        whose turn it is: as many as there is room for, woken ones first; then the highest priority,
        then the key with the fewest runs going on, then the key that was served longest ago, then
        the oldest.

        With an ``offer``, how much there is of what by name, runs are left out whose plan, or a
        graph that a step of theirs gave, needs more of something, but for those that are to be
        cancelled, which anybody can do.
        """
        ...

    # --- ownership --------------------------------------------------------------------------
    def register(self, owner: Owner, lease_s: float) -> None:
        """Insert the coordinator's heartbeat row. Its lease stands for ``lease_s`` from now."""
        ...

    def renew(self, owner: Owner, lease_s: float, workers: Sequence[ProcessId] = ()) -> bool:
        """Extend the lease and record the coordinator's worker processes.

        Returns False if the heartbeat row is gone. May be called from another thread.
        A late renewal is legal: runs that nobody took meanwhile are still held.
        """
        ...

    def unregister(self, owner: Owner) -> None:
        """Remove the heartbeat row; its runs are then claimable at once. Idempotent."""
        ...

    def coordinators(self) -> list[tuple[Owner, bool]]:
        """Return the registered coordinators, each with whether its lease stands."""
        ...

    def workers_of(self, token: str) -> tuple[ProcessId, ...]:
        """Return the worker processes that the coordinator of this token recorded last."""
        ...

    def claim_run(
        self,
        run_id: RunId,
        owner: Owner,
        *,
        seen_dead: str | None = None,
        epoch: int | None = None,
        built: BuiltPlan | None = None,
    ) -> RunRecord | None:
        """Take a live, unowned run: set the owner, epoch + 1, RUNNING.

        A run without a plan gets that of ``built``, with its inputs, in the same transaction; it
        is not to be had without. One that has a plan keeps it. Raises BlobsCondemned.

        A PAUSED run stays PAUSED while its pause request stands (it is taken to be cancelled).

        Guard: status is live, and there is no owner, or the owner's lease is over, or the owner
        is ``seen_dead`` (the token of an owner that the caller saw dead on this host); its epoch
        is the ``epoch`` that the caller saw, if that is given: a claim that was on its way for
        long takes nothing from who has had the run since; and its queue has a slot for it, if it
        has none and is not to be cancelled. A takeover (there was another owner) adds one to
        ``takeovers``. Returns the row after the claim, or None if the guard failed. If the
        claimer dies, its lease runs out or it is seen dead.
        """
        ...

    def claim_runs(
        self,
        run_ids: Collection[RunId],
        owner: Owner,
        *,
        seen_dead: Collection[str] = (),
        epochs: Mapping[RunId, int] = NOTHING_SEEN,
        built: Mapping[RunId, BuiltPlan] = NOTHING_BUILT,
    ) -> list[RunRecord]:
        """Take those of these runs that ``claim_run`` would take, in one transaction.

        Returns their rows, by id. A run on which somebody else's transaction works now is left
        out, not waited for: coordinators that look at the same time share what is there.
        ``seen_dead`` are the tokens of owners that the caller saw dead on this host, ``epochs``
        those of the runs as it saw them, where it did.
        """
        ...

    def release_run(
        self, run: RunRecord, *, to: RunStatus, wake_at: datetime | None = None, heard: int = 0
    ) -> bool:
        """Give the run back: owner none, status ``to``, a live one, next wake-up.

        As RUNNING it is INTERRUPTED: given up where it stood, and free for anyone.
        As WAITING it is due at once if a message newer than ``heard``, the newest one that the
        caller has looked at, is there for one of its open waits: nothing is missed in between.
        Guard: owner and epoch of ``run`` stand, not terminal. Returns whether it did.
        """
        ...

    def release_runs(self, releases: Sequence[Release]) -> list[RunId]:
        """Give runs back as ``release_run`` does, each by its own guard, in one transaction.

        Returns the ids of those that it gave back. A run is given at most once.
        """
        ...

    def next_wake(self, offer: Mapping[str, float] | None = None) -> datetime | None:
        """Return when the next WAITING run is due, or None. One look into an index.

        With an ``offer`` runs are left out as ``claimable`` leaves them out.
        """
        ...

    # --- checkpoints ------------------------------------------------------------------------
    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        """Make results true: one transaction for all runs of the batch, guarded per run.

        Guard, per run: owner token and epoch stand, the run is not terminal. Per step: no row of
        that (run, step, generation); ``lost`` and ``superseded`` rows are current. No referenced
        blob is condemned. A run whose guard fails is left out and reported; the rest commits. A
        row that the database itself refuses, or whose key or current generation is there
        already, is found by bisecting and reported as ``rejected``, and so are ``lost`` and
        ``superseded`` rows that are not current, expansions and waits whose key is there, and
        deliveries of a message that the run has had. A batch holds a run at most once.
        Writes: step rows (with the run's next sequence number), attempts, events, expansions with
        their plans (which the run refers to until it is deleted), waits, deliveries, blob
        references, ``wake_at``, the terminal transition, which clears the owner; saves of
        ``spent`` steps go, with their references; a batch with a step row resets ``takeovers``
        to 0. Once a run has a terminal status nothing more of it
        commits. Reports the run's newest sequence number.
        """
        ...

    def save(
        self, save: SaveRecord, *, owner: str, epoch: int, keep_last: int = 1
    ) -> Refusal | None:
        """Keep what a step has saved while it runs, with the next number; prune older ones.

        Guard: owner token and epoch stand, the run is not terminal; the attempt is current: that
        generation of the step has no row, the attempt has not ended, and no later attempt or
        generation has begun or saved. No blob that the value names is condemned. Returns why it
        was refused (``stale``, ``terminal``, ``gone``, ``condemned``), or None: it is durable, and
        of the step's (and item's) saves the newest ``keep_last`` stand. ``takeovers`` becomes 0.
        Raises StoreError if it cannot be stored.
        """
        ...

    def list_saves(self, run_id: RunId) -> list[SaveRecord]:
        """Return what steps of the run have saved, ordered by (step, number).

        Signed rows are verified before they are returned.
        """
        ...

    def list_steps(
        self,
        run_id: RunId,
        *,
        current_only: bool = True,
        among: Collection[StepId] | None = None,
    ) -> list[StepRecord]:
        """Return step rows in commit order; with ``among`` those of these steps, by an index.

        Signed rows are verified before they are returned.
        """
        ...

    def list_attempts(self, run_id: RunId, step_id: StepId | None = None) -> list[AttemptRecord]:
        """Return attempts, ordered by (step, generation, attempt)."""
        ...

    def list_expansions(self, run_id: RunId) -> list[ExpansionRecord]:
        """Return the graphs that steps of the run gave, ordered by (step, generation, link).

        Signed rows, and their plans, are verified before they are returned.
        """
        ...

    def list_waits(self, run_id: RunId) -> list[WaitRecord]:
        """Return what steps of the run wait or waited for, ordered by (step, generation).

        Signed rows are verified before they are returned.
        """
        ...

    def list_events(self, run_id: RunId, *, after: int = 0) -> list[EventRecord]:
        """Return events with a sequence number above ``after``, in order."""
        ...

    def histories(self, run_ids: Collection[RunId]) -> dict[RunId, History]:
        """Return what these runs did: what the lists above give for each, in a few queries.

        A run that is not there has an empty one. Signed rows are verified before any is returned.
        """
        ...

    # --- messages ------------------------------------------------------------------------------
    def send(self, message: MessageRecord) -> MessageRecord | None:
        """Keep a signal or an event; wake the WAITING run, or runs, that it may be for.

        Guard: no message of this ``dedup_key`` is there, to the same run (or for any) under the
        same name; else None is returned and nothing is written. A signal's run has to be there
        (RunNotFound) and live (RunConflict); its story tells ``signalled``. Returns the message
        with its id. Raises BlobsCondemned: put its value again.
        """
        ...

    def messages(self, run_id: RunId, names: Collection[str]) -> list[MessageRecord]:
        """Return the messages of these names that the run may have and has not had, oldest first.

        Signals to it, and events sent since it was created. Each is delivered to a run at most
        once. Signed rows are verified before they are returned.
        """
        ...

    def forget_events(self, before: datetime) -> int:
        """Remove events sent before a time, and before the oldest live run; return how many.

        One of which a trigger wants to know, and has not been told, stays.
        """
        ...

    # --- requests from anyone ----------------------------------------------------------------
    def request_cancel(self, run_id: RunId) -> RunRecord:
        """Mark the intent; the owner, or the next claimer, ends the run.

        A run without a plan has nothing under way: it is CANCELLED at once.

        Raises RunNotFound; RunConflict if the run is terminal (it says as what).
        """
        ...

    def request_pause(self, run_id: RunId, paused: bool) -> RunRecord:
        """Mark or clear the wish to pause. An unowned live run changes its status at once.

        An owner whose lease is over counts as none, and loses the run: PAUSED, or QUEUED again.
        Raises RunNotFound; RunConflict if the run is terminal.
        """
        ...

    def note_unplanned(self, run_id: RunId, why: str) -> bool:
        """Note why a run that was made without a plan has none yet, as an event.

        Guard: it is QUEUED and has no plan, and its newest event does not say the same. Returns
        whether it was noted. Raises RunNotFound.
        """
        ...

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
        """Open a terminal or PAUSED run again: QUEUED; FAILED and CANCELLED rows become history,
        but for failures that a step around them has caught.

        ``plan`` replaces the plan (changed code; the event's detail names the one before as
        ``plan_before``), ``inputs`` with their digest the inputs, ``policy`` the policy. Clears
        error, deadline marks, cancel and pause requests, ``finished_at``, the owner. Takeovers
        become 0, or one more if it was cut off from its owner, as in a claim. Earlier plans stay
        until the run is deleted. Guard: terminal or PAUSED, or live without an owner whose lease
        stands; otherwise RunConflict; DuplicateRun, if another live run of its queue has its
        ``dedup_key``. Raises RunNotFound, BlobsCondemned.
        """
        ...

    def delete_run(self, run_id: RunId) -> None:
        """Remove run, steps, attempts, events and blob references, in one transaction.

        Guard: terminal, and no live run has it as parent or takes its steps over (``reuse_from``);
        else RunConflict. Raises RunNotFound.
        Leaves a tombstone, so that no new run takes the id before logs and spool are gone too;
        ``free_id`` lifts it. Blobs are removed later by gc.
        """
        ...

    def whole_run(self, run_id: RunId) -> WholeRun:
        """Return every row of a run. Raises RunNotFound. Signed rows are verified.

        Of a run that goes on meanwhile the rows are of different moments: the caller looks before
        and after whether it did.
        """
        ...

    def import_run(self, whole: WholeRun, told: Mapping[str, Any]) -> RunRecord | None:
        """Insert a run of another store with all its rows, signed anew.

        Guard: no run, and no tombstone, has its id; else None. Nothing goes on by itself: nobody
        owns it, and one that is live is PAUSED. It is no schedule's and no trigger's, and nobody is
        told of its end. Its messages get numbers of this store, by which its waits and its story
        name them; an event that it has consumed is one to it alone. All generations keep their
        blobs, but LOST ones. Its story tells ``imported``, with ``told``. Raises StoreError if the
        rows do not fit together or cannot be stored; BlobsCondemned.
        """
        ...

    def free_id(self, run_id: RunId) -> None:
        """Remove the tombstone of a deleted run: all that it left is gone. Idempotent."""
        ...

    def list_tombstones(self, before: datetime) -> list[RunId]:
        """Return the runs deleted before a time whose ids are not free yet, by id."""
        ...

    def requests(self, token: str) -> list[RunRecord]:
        """Return the runs that this coordinator owns, to be looked through for requests.

        Also those without one, because a pause request may just have been cleared. By id;
        ``inputs`` are left empty. Cheap: an indexed look-up, asked whenever ``changes`` says that
        something may be new.
        """
        ...

    # --- blobs' references -------------------------------------------------------------------
    def unreferenced(
        self, digests: Iterable[Digest], *, besides: Collection[RunId] = ()
    ) -> list[Digest]:
        """Return those of ``digests`` that nothing refers to, or that only the runs ``besides``
        and their plans do: what gc could take now, or once they are deleted. By digest.
        """
        ...

    def condemn(self, digests: Iterable[Digest]) -> list[Digest]:
        """Mark those of ``digests`` that nothing refers to; whoever names one is refused.

        Returns the ones marked, by digest; their files may then be deleted. The mark stays when
        the file is gone: a reference to it may be under way since before. One that is marked
        already gets the time of this mark.
        """
        ...

    def list_condemned(self, digests: Iterable[Digest] | None = None) -> dict[Digest, datetime]:
        """Return the marked ones of ``digests``, or of all, with the times of their marks."""
        ...

    def absolve(self, marks: Mapping[Digest, datetime]) -> None:
        """Remove marks: the blobs are there, and so young that no gc takes them now.

        A mark that was made anew since it was listed stays: list it, make the blob young, and
        only then absolve it.
        """
        ...

    def forget_condemned(self, before: datetime) -> int:
        """Remove the marks made before a time; return how many.

        To be asked with a time so long ago that no reference is under way since then.
        """
        ...

    def pin(self, pin: PinRecord) -> None:
        """Keep every blob that is referred to now from gc, until ``unpin``.

        Raises StoreError if there is a pin of that id.
        """
        ...

    def unpin(self, pin_id: str) -> bool:
        """Remove a pin with its references; return whether it was there."""
        ...

    def list_pins(self) -> list[PinRecord]:
        """Return the pins, oldest first."""
        ...

    def check_blobs(self, url: str) -> bool:
        """Check that the store is bound to no other blob root.

        Returns whether the root may be fresh: no run was ever made, so nothing is missing if its
        marker is not there yet. Raises StoreError if the store is bound to another root.
        """
        ...

    def bind_blobs(self, url: str) -> None:
        """Bind the store to a blob root that bears its marker; the first one stays.

        Called once the root has answered: a place that does not work is never bound. A process
        that dies before leaves a marker that binds nothing. Raises StoreError if the store is
        bound to another root. Credentials in ``url`` are not kept. Idempotent.
        """
        ...

    # --- looking out -------------------------------------------------------------------------
    def changes(self) -> object:
        """Return a token that differs if another connection may have changed the store.

        Costs microseconds (SQLite: ``PRAGMA data_version``); compare for equality only.
        """
        ...

    def close(self) -> None:
        """Release every connection. Idempotent."""
        ...


class BlobStore(Protocol):
    """Bytes by their integrity digest. Safe to use from many threads and processes at once.

    Every method may raise ValueUnavailable when storage does not answer; that says nothing about
    whether the bytes exist.
    """

    @property
    def url(self) -> str:
        """Return where the blobs are, without credentials, for messages."""
        ...

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers`` and return its digest, durably.

        In chunks, holding no second copy, in one pass; where the name must be known before the
        first byte goes, in one more, which hashes. Order in a folder: temporary name, flush,
        fsync, rename, fsync of the folder. If the name is there already, file and folder are
        still fsynced before it returns, unless this very store object has done so and the file is
        the same. A crash leaves at most a temporary file. ``digest``, if the caller knows it, is
        trusted and saves the hashing pass.
        """
        ...

    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return verified bytes, writable copy-on-write; locally a private map, never a copy.

        Raises ValueDamaged: nothing is there, or, confirmed by a second read, other bytes are.
        """
        ...

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write verified bytes to an empty file that is open for reading and writing.

        In pieces, holding none but the one under way; locally a clone where the filesystem has
        them. The file is the caller's: to change it changes no blob. Raises ValueDamaged as
        ``open``, OSError if the file takes no bytes; what it holds then means nothing.
        """
        ...

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        """Say whether a blob of that name and size is there, without reading it."""
        ...

    def quarantine(self, digest: Digest) -> None:
        """Move a damaged blob out of the way, so that a rebuilt one can take its name."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Idempotent."""
        ...

    def list_digests(self) -> Iterator[Digest]:
        """Yield the names of all blobs, in no order."""
        ...


class LogStore(Protocol):
    """What attempts printed: append-only segments per (run, step, generation, attempt)."""

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        """Add a segment. Not fsynced: logs are a help, not a truth."""
        ...

    def read(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        """Return what was printed so far, from byte ``offset`` on; empty if nothing was.

        A negative ``offset`` counts from the end, as in a slice. What lies before it is not
        read, as far as segments allow: whoever follows a log, or wants its last line, pays for
        what is new only.
        """
        ...

    def pieces(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int
    ) -> Iterator[bytes]:
        """Yield what was printed so far, a segment at a time; nothing if nothing was."""
        ...

    def delete(self, run_id: RunId) -> None:
        """Remove all of a run's segments. Idempotent."""
        ...
