"""How many workflows run and wait at a time: a queue of the store, under ``init``'s numbers."""

from __future__ import annotations

import queue
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from perdure.client import Perdure
from perdure.queues import Queue

QUEUE = "ray-workflow"
"""The queue that limited workflows are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ``init`` was given; -1: any number.

    Attributes:
        running: how many workflows run at a time.
        pending: how many may wait then.
        executor: where their tasks run; None: what the settings say.
    """

    running: int = -1
    pending: int = -1
    executor: str | None = None

    @property
    def queue(self) -> Queue | None:
        """Return the queue that workflows are put into, if their number is limited."""
        return None if self.running == -1 else Queue(QUEUE, limit=self.running)


_limits: WeakKeyDictionary[Perdure, Limits] = WeakKeyDictionary()


def limits_of(client: Perdure) -> Limits:
    """Return the limits that hold for a store in this process; none, if nobody set any."""
    return _limits.setdefault(client, Limits())


def set_limits(
    client: Perdure, running: int | None, pending: int | None, executor: str | None
) -> None:
    """Set limits, once: None keeps what is there.

    Raises:
        TypeError: a limit is no int.
        ValueError: it is no limit, or there are other limits already.
    """
    _check("max_running_workflows", running, least=1)
    _check("max_pending_workflows", pending, least=0)
    named = {"running": running, "pending": pending, "executor": executor}
    given = {name: value for name, value in named.items() if value is not None}
    there = _limits.get(client)
    if there is None:
        _limits[client] = Limits(**given)  # type: ignore[arg-type]  # checked above
    elif replace(there, **given) != there:  # type: ignore[arg-type]
        raise ValueError(
            f"workflow.init() was called before, with {there}: another {given} is refused. Give "
            "the limits once, before the first workflow"
        )


def _check(name: str, value: object, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"'{name}' must be None or an integer, not {value!r:.80}")
    if value < least and value != -1:
        raise ValueError(f"'{name}' is {value}: write -1 for any number, or at least {least}")


def admit(client: Perdure) -> Queue | None:
    """Return the queue that the next workflow goes into, if any.

    Raises:
        queue.Full: as many run and wait as may.
    """
    limits = limits_of(client)
    if limits.queue is None:
        return None
    # One that was just admitted waits for a moment, also where a place is free for it.
    if limits.pending != -1 and _admitted(client) >= limits.running + limits.pending:
        raise queue.Full("Workflow queue has been full")
    return limits.queue


def has_place(client: Perdure) -> bool:
    """Say whether there is a place for all that were admitted, and so for those about to begin."""
    limits = limits_of(client)
    return limits.running != -1 and _admitted(client) <= limits.running


def _admitted(client: Perdure) -> int:
    standing = client.runtime.store.queues.standing(QUEUE)
    return standing.running + standing.waiting
