"""Named places at which a test may make the process die, raise, hang or wait.

Outside tests a crash point is one comparison. It is switched on by the environment variable
``PERDURE_CRASH_POINTS``, read once when this module is imported, so that it reaches every
process that the product starts::

    PERDURE_CRASH_POINTS="blob.after-rename:1:kill;commit.before:3:raise@/tmp/hits"

Each entry is ``name:hit:action``: at the ``hit``-th pass (``*``: at each) do ``action``, which is
``kill`` (SIGKILL to this process), ``raise`` (InjectedCrash), ``hang`` (for ever) or
``sleep=SECONDS``. Hits are counted per process; ``@FILE`` counts them in a file, under a lock, over
all processes that name it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from perdure_storage.errors import InternalError

VARIABLE = "PERDURE_CRASH_POINTS"

CRASH_POINTS: Mapping[str, str] = {
    # another key
    "rotation.key-kept": "a new key is at hand, nothing is signed with it",
    "rotation.begun": "what is written is signed with the new key, old rows are not",
    "rotation.mid": "some old rows are signed anew",
    "rotation.before-end": "all rows are signed anew, the old key still counts",
    "rotation.after-end": "the old key counts no more, it is still in the file",
    # definition and submission
    "plan.stored": "constants and functions of a plan are in the blob store, no row names them",
    "run.before-insert": "before the transaction that makes a run exist",
    "run.after-insert": "the run exists, the caller has not been told",
    # ownership
    "claim.before": "before a coordinator takes a run",
    "claim.after": "the run is owned, the coordinator has not read it yet",
    "renew.before": "before a lease is extended",
    "renew.after": "after a lease was extended",
    "release.before": "before a run is given back",
    "release.after": "the run has no owner, its coordinator has not forgotten it",
    # attempts
    "dispatch.before": "a step is ready, no worker has it",
    "dispatch.after": "a worker has been told to run a step",
    "worker.start": "a worker process is up and has read nothing",
    "worker.before-user-code": "inputs are loaded, the user's function has not been called",
    "worker.after-user-code": "the user's function has returned, nothing is stored",
    "worker.after-encode": "the result is stored, its outcome is not made",
    "worker.before-outcome": "the outcome is made and not sent",
    "worker.after-outcome": "the outcome is sent",
    # blobs
    "blob.opened": "the temporary file of a blob exists and is empty",
    "blob.first-byte": "the first piece of a blob is written",
    "blob.mid-write": "a later piece of a blob is written",
    "blob.before-close": "a blob is written whole, not synced",
    "blob.after-fsync": "a blob's bytes are on the disk under a temporary name",
    "blob.after-rename": "a blob has its name, its folder is not synced",
    "blob.after-folder-fsync": "a blob is durable, its writer has not said so",
    "blob.already-there": "a put found its name taken and has synced it again",
    "blob.before-quarantine": "a damaged blob is about to be moved away",
    "blob.after-quarantine": "a damaged blob has been moved away",
    "blob.before-delete": "an unreferenced blob is about to be removed",
    "blob.after-delete": "an unreferenced blob has been removed",
    "actor.snapshot-stored": "the state of an actor after a call is stored, no row names it",
    "actor.before-replay": "a call of an actor is about to be made again, to restore its state",
    "directory.before-manifest": "a folder's files are stored, its manifest is not",
    "spool.after-put": "a value of an unsynced step is in the spool",
    "log.after-append": "a segment of a log is written",
    # checkpoints
    "commit.before": "outcomes are gathered, the transaction has not begun",
    "commit.in-transaction": "rows are written, not committed",
    "commit.after": "the rows are durable",
    "commit.before-telling": "the rows are durable, the engine has not been told",
    "lost.before": "before a committed value is marked as lost",
    "lost.after": "a committed value is marked as lost, nothing is rebuilt",
    "expansion.before": "a step has given a graph in place of its value, no row says so",
    "expansion.after": "the graph that a step gave is durable, none of it has begun",
    "wait.before": "a step has begun to wait, no row says so",
    "wait.after": "what a step waits for is durable",
    "deliver.before": "a message is taken for a step that waits, no row says so",
    "deliver.after": "a message is delivered, the step has its value",
    "save.before-blob": "a step saves, nothing of it is stored",
    "save.after-blob": "what a step saves is stored, no row names it",
    "save.before": "before the transaction that keeps what a step saved",
    "save.in-transaction": "what a step saved has its row, not committed",
    "save.after": "what a step saved is durable, its coordinator has not been told",
    "save.before-telling": "what a step saved is durable, the step has not been told",
    "terminal.before": "before the commit that ends a run",
    "terminal.after": "the run has ended, nobody has been told",
    # schedules
    "queue.before-put": "before the limits of a queue are written",
    "queue.after-put": "the limits of a queue stand, the caller has not been told",
    "queue.before-remove": "before the limits of a queue go",
    "queue.after-remove": "the limits of a queue are gone",
    "schedule.before-register": "before a schedule and its definition are written",
    "schedule.after-register": "a schedule is registered, nobody has been told",
    "fire.before": "what was decided about schedules is not written",
    "fire.in-transaction": "ticks, runs and states are written, not committed",
    "fire.after": "the runs of ticks exist, their dispatcher has not been told",
    "schedule.before-remove": "before a schedule and its ticks are removed",
    "schedule.after-remove": "a schedule and its ticks are gone",
    "tick.before-forget": "before old ticks are removed",
    "tick.after-forget": "old ticks are removed, who does so has not gone on",
    "unplanned.before": "a run has no plan, and no row says why",
    "unplanned.after": "why a run has no plan is recorded, nobody has tried again",
    # triggers
    "trigger.before-register": "before a trigger and its definition are written",
    "trigger.after-register": "a trigger is registered, nobody has been told",
    "accept.before": "what was decided about arrivals is not written",
    "accept.in-transaction": "arrivals, runs and cursors are written, not committed",
    "accept.after": "the runs of arrivals exist, who brought them has not been told",
    "trigger.before-remove": "before a trigger and its arrivals are removed",
    "trigger.after-remove": "a trigger and its arrivals are gone",
    "arrival.before-forget": "before old arrivals are removed",
    "arrival.after-forget": "old arrivals are removed, gc has not gone on",
    "listen.before-take": "sources are free, nobody listens to them",
    "listen.after-take": "sources have a listener, who has not been told",
    "listen.before-leave": "before sources are left to others",
    "listen.after-leave": "sources are left, nobody listens to them",
    # requests and upkeep
    "reset.before": "before a finished run is opened again",
    "reset.after": "a finished run is open again and has no owner",
    "send.before": "before a signal or an event is recorded",
    "send.after": "a signal or an event is recorded, nobody has taken it",
    "cancel.before": "before the wish to cancel is recorded",
    "cancel.after": "the wish to cancel is recorded, nobody has acted on it",
    "pause.before": "before the wish to pause is recorded or cleared",
    "pause.after": "the wish to pause is recorded or cleared",
    "delete.before": "before a run's rows are removed",
    "delete.after": "a run's rows are gone, its blobs are not",
    "import.before": "the blobs of an imported run are stored, no row names them",
    "import.in-transaction": "the rows of an imported run are written, not committed",
    "import.after": "an imported run exists, its logs are not there and nobody has been told",
    "export.before-rename": "a run is in a file under a temporary name",
    "free.before": "what a deleted run left is gone, its id is not free",
    "free.after": "the id of a deleted run is free",
    "leftover.before-remove": "before the log or spool of a run that is not there is removed",
    "leftover.after-remove": "the log or spool of a run that is not there has been removed",
    "condemn.before": "before unreferenced blobs are marked",
    "condemn.after": "unreferenced blobs are marked, their files are there",
    "absolve.before": "a condemned blob is there and young, its mark stands",
    "absolve.after": "a condemned blob is absolved, nothing refers to it yet",
    "forget.before": "before old marks of condemned blobs are removed",
    "forget.after": "old marks of condemned blobs are removed",
    "expire.before": "before old events are removed",
    "expire.after": "old events are removed, their values are not",
    "pin.before": "before the blobs of a backup are pinned",
    "pin.after": "the blobs of a backup are pinned, the copy of the rows is not made",
    "backup.before-rename": "the copy of the rows is on the disk under a temporary name",
    "unpin.before": "before a pin is removed",
    "unpin.after": "a pin is removed, gc has not run",
    "migration.before": "before a revision of the schema is applied",
    "migration.in-transaction": "a revision is applied, not committed",
    "migration.after": "a revision is committed",
    "store.creating": "a fresh store's tables are made, not committed",
    "store.created": "a fresh store is made, its blob root is not bound",
    "marker.before-rename": "a blob root's marker is written under a temporary name",
    "bind.before": "a blob root bears the store's marker, the store is not bound to it",
    "bind.after": "the store is bound to its blob root, nothing is in it",
}


class InjectedCrash(BaseException):
    """What the action ``raise`` throws: like a kill, not to be handled by any ``except``."""


@dataclass(slots=True)
class _Trigger:
    """One armed entry; counts its own passes."""

    name: str
    hit: int | None  # None: every pass
    action: str
    seconds: float = 0.0
    shared: Path | None = None
    passed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self) -> bool:
        """Count one pass; say whether it is the one to act on."""
        with self.lock:
            self.passed = self.passed + 1 if self.shared is None else _count(self.shared)
            return self.hit is None or self.passed == self.hit

    def act(self) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "raise":
            raise InjectedCrash(self.name)
        # An event that nobody sets waits without the ban on sleeping in product code.
        threading.Event().wait(self.seconds if self.action == "sleep" else None)


def crash_point(name: str) -> None:
    """Do what the environment asks for at this place; normally nothing.

    Args:
        name: a name of ``CRASH_POINTS``.

    Raises:
        InjectedCrash: the action is ``raise``.
        InternalError: crash points are active and ``name`` is not registered.
    """
    if _PLAN is None:
        return
    if name not in CRASH_POINTS:
        raise InternalError(f"crash point {name!r} is not registered in perdure_storage.faults")
    for trigger in _PLAN.get(name, ()):
        if trigger.due():
            trigger.act()


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm crash points in this process for the length of a ``with`` block.

    Args:
        text: entries as in the environment variable.
    """
    global _PLAN
    before = _PLAN
    _PLAN = _parse(text)
    try:
        yield
    finally:
        _PLAN = before


def _parse(text: str) -> dict[str, list[_Trigger]]:
    plan: dict[str, list[_Trigger]] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        trigger = _parse_entry(entry)
        plan.setdefault(trigger.name, []).append(trigger)
    return plan


def _parse_entry(entry: str) -> _Trigger:
    head, _, shared = entry.partition("@")
    name, _, rest = head.partition(":")
    hit, _, action = rest.partition(":")
    action, _, seconds = action.partition("=")
    if name not in CRASH_POINTS:
        raise InternalError(f"{VARIABLE}: no crash point is named {name!r}")
    if action not in ("kill", "raise", "hang", "sleep") or not (hit == "*" or hit.isdigit()):
        raise InternalError(f"{VARIABLE}: {entry!r} is not name:hit:action")
    return _Trigger(
        name=name,
        hit=None if hit == "*" else int(hit),
        action=action,
        seconds=float(seconds or 0),
        shared=Path(shared) if shared else None,
    )


def _count(path: Path) -> int:
    """Add one to the number of passes that the file holds, one byte each; return the number."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, b".")
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


# A value of the environment outside perdure.settings: crash points must be known before any of
# our code runs, in every process, workers included.
_PLAN: dict[str, list[_Trigger]] | None = (
    _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
)
