"""Which ready steps start now: resources as numbers, no processes.

Deterministic: higher priority first, then the runs in turn, within a run the order of the plan.
Steps of one shape (the same request) wait in one queue, so that a wide fan-out costs one look,
not thousands. A request that does not fit lets others pass, but only for ``PATIENCE_S``: after
that what it lacks is kept for it until it fits, so small steps never starve it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from perdure import words
from perdure.errors import did_you_mean
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions
from perdure_storage.guards import fits
from perdure_storage.records import AMOUNT_SLACK

PATIENCE_S = 5.0


class Shape(msgspec.Struct, frozen=True):
    """What one attempt, or one process, holds; the key of a ready queue.

    Attributes:
        gpus: whole ones, or a fraction of one.
        slots: how many of the executor's places for processes it takes: none if it runs in a
            process that is there, and has one.
    """

    cpus: float
    gpus: float
    memory_bytes: int
    resources: tuple[tuple[str, float], ...]
    is_async: bool
    slots: int = 1

    @property
    def names(self) -> list[str]:
        """Return the names of all that it takes some of."""
        own = {
            "cpus": self.cpus,
            "gpus": self.gpus,
            "memory": self.memory_bytes,
            "async slots" if self.is_async else "slots": self.slots,
        }
        return [name for name, amount in (*own.items(), *self.resources) if amount]


def shape_of(options: StepOptions, *, is_async: bool) -> Shape:
    """Return the request of a step."""
    return Shape(
        options.cpus,
        options.gpus,
        options.memory_bytes or 0,
        tuple(sorted(options.resources.items())),
        is_async,
    )


def process_shape(options: StepOptions) -> Shape:
    """Return what an actor's process holds while it lives, whether or not it is called."""
    return msgspec.structs.replace(shape_of(options, is_async=False), cpus=0.0)


def call_shape(options: StepOptions) -> Shape:
    """Return what one call of an actor holds beside what its process does."""
    return Shape(options.cpus, 0.0, 0, (), False, slots=0)


class Free:
    """What is free of everything. Mutable."""

    __slots__ = ("async_slots", "cpus", "gpus", "memory_bytes", "resources", "slots")

    def __init__(self, capacity: Capacity) -> None:
        self.cpus = capacity.cpus
        self.gpus = [1.0] * len(capacity.gpu_ids)  # of each one, how much
        self.memory_bytes = capacity.memory_bytes
        self.resources = dict(capacity.resources)
        self.slots = capacity.slots
        self.async_slots = capacity.async_slots

    def copy(self) -> Free:
        """Return another one, to try things with."""
        made = Free.__new__(Free)
        made.cpus, made.memory_bytes = self.cpus, self.memory_bytes
        made.slots, made.async_slots = self.slots, self.async_slots
        made.gpus, made.resources = list(self.gpus), dict(self.resources)
        return made

    def has_slot(self, shape: Shape) -> bool:
        """Say whether there is a place for it, whatever it asks for."""
        return self.async_slots > 0 if shape.is_async else self.slots >= shape.slots

    def fits(self, shape: Shape) -> bool:
        """Say whether the request fits."""
        return (
            self.has_slot(shape)
            and shape.cpus <= self.cpus + AMOUNT_SLACK
            and shape.memory_bytes <= self.memory_bytes
            and (not shape.gpus or self._choose_gpus(shape.gpus) is not None)
            and all(self._has(name, amount) for name, amount in shape.resources)
        )

    def lacks(self, shape: Shape) -> frozenset[str]:
        """Return the names of what there is too little of for the request."""
        missing = {
            "cpus": shape.cpus > self.cpus + AMOUNT_SLACK,
            "gpus": bool(shape.gpus) and self._choose_gpus(shape.gpus) is None,
            "memory": shape.memory_bytes > self.memory_bytes,
            "async slots" if shape.is_async else "slots": not self.has_slot(shape),
        }
        missing |= {name: not self._has(name, amount) for name, amount in shape.resources}
        return frozenset(name for name, is_missing in missing.items() if is_missing)

    def _has(self, name: str, amount: float) -> bool:
        return amount <= self.resources.get(name, 0.0) + AMOUNT_SLACK

    def _choose_gpus(self, asked: float) -> list[int] | None:
        """Return which GPUs to give: the first that are free, or the fullest with room.

        Fractions go where others are, so that whole ones stay whole as long as possible.
        """
        if asked >= 1:
            whole = [number for number, free in enumerate(self.gpus) if free >= 1 - AMOUNT_SLACK]
            return whole[: int(asked)] if len(whole) >= asked else None
        roomy = [(free, n) for n, free in enumerate(self.gpus) if free + AMOUNT_SLACK >= asked]
        return [min(roomy)[1]] if roomy else None

    def take(self, shape: Shape) -> tuple[int, ...]:
        """Hold the request; return the numbers of its GPUs."""
        gpus = tuple(self._choose_gpus(shape.gpus) or ()) if shape.gpus else ()
        self._add(shape, gpus, -1)
        return gpus

    def give(self, shape: Shape, gpus: Sequence[int]) -> None:
        """Free the request, and these GPUs of it."""
        self._add(shape, gpus, 1)

    def take_back(self, shape: Shape, gpus: Sequence[int]) -> None:
        """Hold a request again that was freed, with the GPUs that it had."""
        self._add(shape, gpus, -1)

    def _add(self, shape: Shape, gpus: Sequence[int], sign: int) -> None:
        self.cpus += sign * shape.cpus
        self.memory_bytes += sign * shape.memory_bytes
        for number in gpus:
            self.gpus[number] += sign * min(shape.gpus, 1.0)
        for name, amount in shape.resources:
            self.resources[name] = self.resources.get(name, 0.0) + sign * amount
        if shape.is_async:
            self.async_slots += sign
        else:
            self.slots += sign * shape.slots


class _Resident:
    """A process that holds something for as long as it lives."""

    __slots__ = ("gpus", "is_ending", "is_idle", "shape")

    def __init__(self, shape: Shape, gpus: tuple[int, ...]) -> None:
        self.shape = shape
        self.gpus = gpus
        self.is_idle = False
        self.is_ending = False


class Pool:
    """What is free on one executor. Owned by the engine, which tells it who takes and gives.

    Attempts hold something while they run, residents, the processes of actors, while they live. A
    resident that is idle may be ended for the sake of what fits no other way.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.free = Free(capacity)
        self._holders: dict[Shape, int] = {}
        self._ahead: dict[Shape, int] = {}
        self._gpus: dict[Hashable, tuple[int, ...]] = {}
        self._residents: dict[Hashable, _Resident] = {}  # those that are idle: longest first

    # --- attempts ---------------------------------------------------------------------------
    def fits(self, shape: Shape) -> bool:
        """Say whether the request fits into what is free now."""
        return self.free.has_slot(shape) if self.capacity.is_serial else self.free.fits(shape)

    def lacks(self, shape: Shape) -> frozenset[str]:
        """Return the names of what there is too little of now."""
        if self.capacity.is_serial:
            return NOTHING if self.free.has_slot(shape) else frozenset({"slots", "async slots"})
        return self.free.lacks(shape)

    def share(self, shape: Shape) -> float:
        """Return how much of all that there is the request takes, of what it takes most of."""
        offer = self.capacity.offer
        asked = {"cpus": shape.cpus, "gpus": shape.gpus, "memory": shape.memory_bytes}
        asked |= dict(shape.resources)
        return max(
            amount / offer[name] if offer.get(name) else 0.0 for name, amount in asked.items()
        )

    def take(self, shape: Shape, holder: Hashable) -> tuple[str, ...]:
        """Hold the request; return the ids of the GPUs that the holder has until it gives them."""
        self._holders[shape] = self._holders.get(shape, 0) + 1
        if self.capacity.is_serial:
            shape = _without_gpus(shape)  # nothing can be hidden from a thread of this process
        gpus = self.free.take(shape)
        if gpus:
            self._gpus[holder] = gpus
        return tuple(self.capacity.gpu_ids[number] for number in gpus)

    def may_wait(self, shape: Shape, most: float) -> bool:
        """Say whether one more may be sent ahead, to wait there for the end of its like.

        None that has GPUs of its own: its like may end on another one.

        Args:
            shape: its request.
            most: so many may wait behind each of those that hold such a request.
        """
        if shape.is_async or shape.gpus or self.capacity.is_serial:
            return False
        return self._ahead.get(shape, 0) < most * self._holders.get(shape, 0)

    def send_ahead(self, shape: Shape) -> None:
        """Note one that waits there; it holds nothing until another one of its shape ends."""
        self._ahead[shape] = self._ahead.get(shape, 0) + 1

    def give(self, shape: Shape, holder: Hashable) -> None:
        """Free what the holder has, or leave it to one that was sent ahead."""
        if self._ahead.get(shape, 0):
            self._ahead[shape] -= 1
            return
        self._holders[shape] -= 1
        if self.capacity.is_serial:
            shape = _without_gpus(shape)
        self.free.give(shape, self._gpus.pop(holder, ()))

    # --- residents --------------------------------------------------------------------------
    def settle(self, holder: Hashable, shape: Shape) -> tuple[str, ...]:
        """Hold a request for as long as a process lives, which is busy now; return its GPUs."""
        gpus = self.free.take(shape)
        self._residents[holder] = _Resident(shape, gpus)
        return tuple(self.capacity.gpu_ids[number] for number in gpus)

    def rest(self, holder: Hashable) -> None:
        """Note that a resident is idle from now on."""
        resident = self._residents.pop(holder)
        resident.is_idle = True
        self._residents[holder] = resident

    def rouse(self, holder: Hashable) -> bool:
        """Note that a resident is busy from now on; False: it is gone, or about to end."""
        resident = self._residents.get(holder)
        if resident is None or resident.is_ending:
            return False
        resident.is_idle = False
        return True

    def leave(self, holder: Hashable) -> None:
        """Free what a resident held: its process is gone."""
        resident = self._residents.pop(holder)
        self.free.give(resident.shape, resident.gpus)

    def make_room(self, shape: Shape) -> tuple[Hashable, ...]:
        """Return the idle residents that are to be ended so that the request fits.

        They are as few as need be, those first that have been idle for longest, and they count as
        ending from now on. Empty if it fits already, or will when those are gone that are ending,
        or would not even fit without all that are idle.
        """
        free = self.free.copy()
        for resident in self._residents.values():
            if resident.is_ending:
                free.give(resident.shape, resident.gpus)
        chosen: dict[Hashable, _Resident] = {}
        for holder, resident in self._residents.items():
            if free.fits(shape):
                break
            if resident.is_idle and not resident.is_ending:
                free.give(resident.shape, resident.gpus)
                chosen[holder] = resident
        if not free.fits(shape):
            return ()
        for holder, resident in list(chosen.items()):
            without = free.copy()
            without.take_back(resident.shape, resident.gpus)
            if without.fits(shape):
                free = without
                del chosen[holder]
        for resident in chosen.values():
            resident.is_ending = True
        return tuple(chosen)


def _without_gpus(shape: Shape) -> Shape:
    return msgspec.structs.replace(shape, gpus=0.0) if shape.gpus else shape


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """The first of the ready steps of one shape.

    Attributes:
        position: its place in the plan.
        ready_at: since when it waits to be started.
        most_ahead: how many like it may wait behind one that runs.
    """

    shape: Shape
    position: int
    ready_at: datetime | None
    most_ahead: float = 0


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What is to start next.

    Attributes:
        start: None if there is nothing that may.
        kept: names of what is kept for requests that have been passed over for long enough.
    """

    start: Waiting | None
    kept: frozenset[str]


NOTHING: frozenset[str] = frozenset()


def choose(
    pool: Pool, waiting: Iterable[Waiting], now: datetime, kept: frozenset[str] = NOTHING
) -> Choice:
    """Return which of these starts next: the first in the plan that fits.

    Those come first that have been passed over for long, the largest of them before all: else
    smaller ones would take each time what was just kept for it. Only what such a request lacks is
    kept: one that waits for a GPU does not hold up those that want CPUs alone.

    Args:
        pool: what is free.
        waiting: the first ready step of each shape.
        now: the time.
        kept: what is kept for others already.
    """
    for each in sorted(waiting, key=lambda each: _rank(pool, each, now)):
        can_start = pool.fits(each.shape) or pool.may_wait(each.shape, each.most_ahead)
        if can_start and kept.isdisjoint(each.shape.names):
            return Choice(each, kept)
        if not can_start and _is_impatient(each, now):
            kept |= pool.lacks(each.shape)
    return Choice(None, kept)


def make_room(pool: Pool, waiting: Iterable[Waiting], now: datetime) -> tuple[Hashable, ...]:
    """Return the idle residents to end now, when nothing that waits can start.

    It is for the sake of one request, in the order of ``choose``: each that is ended lets one
    start, so that they do not end each other in turn without anything being done.
    """
    stuck = [each for each in waiting if not pool.fits(each.shape)]
    for each in sorted(stuck, key=lambda each: _rank(pool, each, now)):
        if ended := pool.make_room(each.shape):
            return ended
    return ()


def _rank(pool: Pool, each: Waiting, now: datetime) -> tuple[float, int]:
    return (-pool.share(each.shape) if _is_impatient(each, now) else 1.0, each.position)


def _is_impatient(each: Waiting, now: datetime) -> bool:
    """Say whether a request has been passed over for so long that the others wait for it."""
    return each.ready_at is not None and now - each.ready_at > timedelta(seconds=PATIENCE_S)


def lacking(request: Mapping[str, float], offer: Mapping[str, float]) -> str | None:
    """Return the name of something of which more is asked than offered in all, or None."""
    return next((n for n, amount in request.items() if not fits({n: amount}, offer)), None)


def shortage(request: Mapping[str, float], offer: Mapping[str, float]) -> str | None:
    """Return why the request can never fit where so much is offered in all, or None."""
    name = lacking(request, offer)
    if name is None:
        return None
    near = "" if name in offer else did_you_mean(name, offer)
    has = words.had(name, offer.get(name, 0.0))
    return f"{words.amount(name, request[name])} asked, {has} here{near}"
