"""Queues in a store: how a declared one gets there, and why a run waits in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Unpack

import msgspec

from perdure import words
from perdure.errors import DefinitionError, InternalError, known_names
from perdure.queues import Limits, Queue
from perdure_scheduler.registered import TRIES, Registered
from perdure_storage.admission import needs_slot
from perdure_storage.guards import is_due
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.queue_records import QueueRecord, QueueStanding
from perdure_storage.records import RunRecord

_NAMED = 5
_LIMITS = ("limit", "limit_per_key", "rate", "window")


def register(
    store: RunStore, queue: Queue, now: datetime, *, module: str | None = None
) -> Registered:
    """Make a queue in the store, or let the one of its name have these limits.

    Limits that somebody has set since stand, until what is declared is another thing than before.
    """
    limits = {name: getattr(queue, name) for name in _LIMITS}
    declared = msgspec.json.encode(limits).decode()
    for _ in range(TRIES):
        there = store.queues.find_queue(queue.name)
        if there is not None and there.declared == declared:
            return Registered.UNCHANGED
        base = there or _new(queue.name, now)
        put = store.queues.put_queue(msgspec.structs.replace(base, declared=declared, **limits))
        if put is not None:
            return Registered.NEW if there is None else Registered.CHANGED
    raise InternalError(f"queue {queue.name!r} changed {TRIES} times while it was registered")


def prepared(store: RunStore, queues: Sequence[Queue], now: datetime) -> list[Any]:
    """Return what registers each of some queues, and takes ``module=``."""
    return [partial(register, store, queue, now) for queue in queues]


def set_limits(
    store: RunStore, name: str, changes: Mapping[str, Any], now: datetime
) -> QueueRecord:
    """Change some limits of a queue, or make it with them; what is not named stays."""
    for _ in range(TRIES):
        base = store.queues.find_queue(name) or _new(name, now)
        put = store.queues.put_queue(msgspec.structs.replace(base, **changes))
        if put is not None:
            return put
    raise InternalError(f"queue {name!r} changed {TRIES} times while its limits were set")


def set_declared(
    store: RunStore, name: str, now: datetime, **limits: Unpack[Limits]
) -> QueueRecord:
    """Change limits as ``Queue`` takes them. Raises DefinitionError as it does."""
    queue = Queue(name, **limits)
    named = {"rate", "window"} if "rate" in limits else set[str]()
    named |= limits.keys()
    return set_limits(store, name, {each: getattr(queue, each) for each in named}, now)


class QueueHandle:
    """A queue in a store: its limits, who has its slots, and who waits."""

    def __init__(self, store: RunStore, name: str) -> None:
        self._store = store
        self.name = name

    def __repr__(self) -> str:
        return f"<queue {self.name}: {said_limits(self.record)}>"

    @property
    def record(self) -> QueueRecord:
        """Return its row, which has its limits. Raises DefinitionError once it is removed."""
        return get_queue(self._store, self.name)

    @property
    def standing(self) -> QueueStanding:
        """Return how many runs go on and wait, by key too, and whose they are."""
        return self._store.queues.standing(self.name)

    def remove(self) -> bool:
        """Remove its limits; its runs stay, and begin without them. Say whether it was there."""
        return self._store.queues.remove_queue(self.name)


def _new(name: str, now: datetime) -> QueueRecord:
    return QueueRecord(name=name, created_at=now, updated_at=now)


def require_queue(store: RunStore, queue: str | Queue, now: datetime, *, what: str = "") -> str:
    """Return the name of a queue that is there; one that is given as a value is made.

    Args:
        store: where it is to be.
        queue: its name, or the value.
        now: the time.
        what: names it; for messages: ``"schedule 'nightly': "``.

    Raises:
        DefinitionError: there is none of that name: a misspelt one would have no limits.
    """
    if isinstance(queue, Queue):
        register(store, queue, now)
        return queue.name
    return get_queue(store, queue, what=what).name


def get_queue(store: RunStore, name: str, *, what: str = "") -> QueueRecord:
    """Return the queue of that name; arguments and errors as of ``require_queue``."""
    found = store.queues.find_queue(name)
    if found is None:
        known = [each.name for each in store.queues.list_queues()]
        raise DefinitionError(
            f"{what}queue={name!r}{known_names(name, known)}. There is none of that name in "
            f"{store.url}: make it with `perdure queue set {name} --limit 2`, or declare "
            f"perdure.Queue({name!r}, limit=2)"
        )
    return found


def said_limits(queue: QueueRecord) -> str:
    """Return the limits of a queue in words."""
    told = []
    if queue.limit is not None:
        told.append(f"{queue.limit} at a time")
    if queue.limit_per_key is not None:
        told.append(f"{queue.limit_per_key} at a time with one key")
    if queue.rate is not None and queue.window is not None:
        told.append(f"{queue.rate} begin in {words.duration(queue.window.total_seconds())}")
    return ", ".join(told) or "no limits"


def waits_in_line(store: RunStore, run: RunRecord, now: datetime) -> str:
    """Return why a run does not begin, or go on, because of its queue or its delay; "" if not."""
    if run.owner is not None or run.cancel_requested:
        return ""
    if run.status is RunStatus.QUEUED and run.not_before is not None and run.not_before > now:
        return f"begins at {run.not_before:%Y-%m-%d %H:%M:%S} UTC, not before"
    if run.status not in (RunStatus.QUEUED, RunStatus.WAITING) or not is_due(run, now):
        return ""
    queue = store.queues.find_queue(run.queue) if run.queue is not None else None
    if queue is None or not needs_slot(run):
        return ""
    return _held_up(store, queue, store.queues.standing(queue.name), run)


def _held_up(store: RunStore, queue: QueueRecord, standing: QueueStanding, run: RunRecord) -> str:
    where = f"waits in queue {queue.name}: "
    if queue.limit is not None and standing.running >= queue.limit:
        holders = _told(store, standing)
        return f"{where}{standing.running} of {queue.limit} running{holders}"
    of_key = next((key.running for key in standing.keys if key.key == run.limit_key), 0)
    if run.limit_key and queue.limit_per_key is not None and of_key >= queue.limit_per_key:
        holders = _told(store, standing, run.limit_key)
        running = f"{of_key} of {queue.limit_per_key} running with key {run.limit_key!r}"
        return f"{where}{running}{holders}"
    if run.started_at is None and standing.opens_at is not None:
        window = words.duration((queue.window or timedelta()).total_seconds())
        begun = f"{standing.starts} of {queue.rate} have begun within {window}"
        return f"{where}{begun}; the next begins at {standing.opens_at:%H:%M:%S} UTC"
    return ""


def _told(store: RunStore, standing: QueueStanding, key: str | None = None) -> str:
    """Return who has the slots, for people: those whose owner has died are what to look at."""
    runs = [run for run in store.find_runs(standing.holders) if key in (None, run.limit_key)]
    named = [run.id if run.lease_live else f"{run.id} (interrupted)" for run in runs[:_NAMED]]
    more = ["..."] if len(runs) > _NAMED or (key is None and standing.running > _NAMED) else []
    return ": " + ", ".join([*named, *more]) if named else ""
