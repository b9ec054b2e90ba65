"""Which ready steps start now: resources as numbers, no processes.

Deterministic: higher priority first, then the runs in turn, within a run the order of the plan.
Steps of one line (the same request) wait in one queue, so that a wide fan-out costs one look,
not thousands. A request that does not fit lets others pass, but only for ``PATIENCE``: after
that what it lacks is kept for it until it fits, so small steps never starve it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count

import msgspec

from perdure import words
from perdure.calls import Instance
from perdure.errors import did_you_mean
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions
from perdure_storage.guards import fits
from perdure_storage.records import AMOUNT_SLACK

PATIENCE = timedelta(seconds=5)


class Shape(msgspec.Struct, frozen=True, cache_hash=True):
    """What one attempt, or one process, holds.

    Attributes:
        gpus: whole ones, or a fraction of one.
        slots: how many of the executor's places it takes: none for a process that is not called.
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


def process_part(shape: Shape) -> Shape:
    """Return of a call's request what its actor's process holds, also between calls."""
    return msgspec.structs.replace(shape, cpus=0.0, slots=0)


def call_part(shape: Shape) -> Shape:
    """Return of a call's request what it holds itself, beside what its actor's process does."""
    return Shape(shape.cpus, 0.0, 0, (), False)


class Seat(msgspec.Struct, frozen=True, cache_hash=True):
    """In which processes of its actor a call may be made: in those numbered below ``most``."""

    run_id: str
    actor: str
    most: int


class Line(msgspec.Struct, frozen=True, cache_hash=True):
    """What ready steps have in common that wait in one queue.

    Attributes:
        shape: what each asks for.
        seat: of calls of an actor, where they may be made.
        stage: of items of a map that takes those of another one, or whose items another one takes:
            the function, and the how many-th of such maps it is.
    """

    shape: Shape
    seat: Seat | None = None
    stage: tuple[str, int] | None = None


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

    def change(self, before: Capacity, after: Capacity) -> None:
        """Have more or less than there was; what is held beyond that is owed until it is given."""
        self.cpus += after.cpus - before.cpus
        self.memory_bytes += after.memory_bytes - before.memory_bytes
        self.slots += after.slots - before.slots
        self.async_slots += after.async_slots - before.async_slots
        for name in {*before.resources, *after.resources}:
            more = after.resources.get(name, 0.0) - before.resources.get(name, 0.0)
            self.resources[name] = self.resources.get(name, 0.0) + more
        had, has = len(before.gpu_ids), len(after.gpu_ids)
        self.gpus += [0.0] * (has - len(self.gpus))
        for number in range(min(had, has), max(had, has)):  # they come and go at the end
            self.gpus[number] += 1.0 if has > had else -1.0

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

    __slots__ = ("gpus", "is_idle", "leaves", "shape")

    def __init__(self, shape: Shape, gpus: tuple[int, ...]) -> None:
        self.shape = shape
        self.gpus = gpus
        self.is_idle = False
        self.leaves = False  # as soon as it is idle


class Pool:
    """What is free on one executor. Owned by the engine, which tells it who takes and gives.

    Calls hold something while they run, residents, the processes of actors, while they live. One
    that is idle may be ended for the sake of what fits no other way. A resident is a promise: that
    its process may be there. Should it die, the next call has it started again.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.free = Free(capacity)
        self._holders: dict[Shape, int] = {}
        self._ahead: dict[Shape, int] = {}
        self._gpus: dict[Hashable, tuple[int, ...]] = {}
        self._homes: dict[Hashable, Instance] = {}  # of calls of actors
        self._residents: dict[Instance, _Resident] = {}  # those that are idle: longest first
        self._numbers: dict[tuple[str, str], set[int]] = {}  # of the residents, by run and actor
        self._left: list[Instance] = []

    def resize(self, capacity: Capacity) -> None:
        """Have what an executor has by now: nodes of a cluster come and go."""
        self.free.change(self.capacity, capacity)
        self.capacity = capacity

    def fits(self, shape: Shape) -> bool:
        """Say whether the request fits into what is free now."""
        if self.capacity.is_serial:
            return self.free.has_slot(shape)
        return self.free.fits(shape) and self.has_place(shape)

    def has_place(self, shape: Shape) -> bool:
        """Say whether some machine is large enough for the request, be it free or not."""
        places = self.capacity.places
        return not places or any(fits(_amounts(shape), place) for place in places)

    def lacks(self, shape: Shape) -> frozenset[str]:
        """Return the names of what there is too little of now."""
        if self.capacity.is_serial:
            return NOTHING if self.free.has_slot(shape) else frozenset({"slots", "async slots"})
        return self.free.lacks(shape)

    def share(self, shape: Shape) -> float:
        """Return how much of all that there is the request takes, of what it takes most of."""
        offer = self.capacity.offer
        asked = _amounts(shape).items()
        return max(amount / offer[name] if offer.get(name) else 0.0 for name, amount in asked)

    # --- calls ------------------------------------------------------------------------------
    def request(self, line: Line) -> Shape | None:
        """Return what a step of this line would take now; None if no process is free for it."""
        if line.seat is None or self.capacity.is_serial:
            return line.shape
        if self._idle(line.seat) is not None:
            return call_part(line.shape)
        return line.shape if self._unused(line.seat) is not None else None

    def take(self, line: Line, holder: Hashable) -> tuple[str, ...]:
        """Hold what a step of this line asks for; return the ids of the GPUs that it has."""
        if line.seat is not None and not self.capacity.is_serial:
            return self._take_seat(line.shape, line.seat, holder)
        shape = line.shape
        self._holders[shape] = self._holders.get(shape, 0) + 1
        if shape.gpus and self.capacity.is_serial:
            shape = _without_gpus(shape)  # nothing can be hidden from a thread of this process
        gpus = self.free.take(shape)
        if not gpus:
            return ()
        self._gpus[holder] = gpus
        return self._ids(gpus)

    def _ids(self, gpus: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.capacity.gpu_ids[number] for number in gpus)

    def home(self, holder: Hashable) -> int:
        """Return in which of its actor's processes a call is made."""
        instance = self._homes.get(holder)
        return 0 if instance is None else instance.number

    def has_idle(self, seat: Seat) -> bool:
        """Say whether a process of the actor has nothing to do."""
        return self._idle(seat) is not None

    def next_number(self, seat: Seat) -> int | None:
        """Return which process would come beside those that an actor has; None: no other may."""
        numbers = self._numbers.get((seat.run_id, seat.actor))
        instance = self._unused(seat) if numbers else None
        return None if instance is None else instance.number

    def may_wait(self, line: Line, most: float) -> bool:
        """Say whether one more may be sent ahead, to wait there for the end of its like.

        Only what asks for no more than a CPU: whichever worker is free takes it, also beside those
        that hold what it asks for. No call of an actor: it would wait for one of its processes,
        while another may be free sooner.

        Args:
            line: where it waits now.
            most: so many may wait behind each of those that hold such a request.
        """
        shape = line.shape
        if shape.is_async or line.seat is not None or self.capacity.is_serial:
            return False
        if shape.cpus > 1 or shape.gpus or shape.memory_bytes or shape.resources:
            return False
        return self._ahead.get(shape, 0) < most * self._holders.get(shape, 0)

    def send_ahead(self, shape: Shape) -> None:
        """Note one that waits there; it holds nothing until another one of its shape ends."""
        self._ahead[shape] = self._ahead.get(shape, 0) + 1

    def give(self, shape: Shape, holder: Hashable, *, is_gone: bool = False) -> None:
        """Free what the holder has, or leave it to one that was sent ahead.

        Args:
            shape: what it had asked for.
            holder: as it was taken; or one that was sent ahead.
            is_gone: its process was lost with it: an actor's holds nothing any more.
        """
        if holder in self._homes:
            self.free.give(call_part(shape), ())
            instance = self._homes.pop(holder)
            self._residents[instance].leaves |= is_gone
            self._rest(instance)
            return
        if self._ahead.get(shape, 0):
            self._ahead[shape] -= 1
            return
        self._holders[shape] -= 1
        if shape.gpus and self.capacity.is_serial:
            shape = _without_gpus(shape)
        self.free.give(shape, self._gpus.pop(holder, ()))

    # --- residents --------------------------------------------------------------------------
    def _take_seat(self, shape: Shape, seat: Seat, holder: Hashable) -> tuple[str, ...]:
        """Hold a call, and, where no process of its actor is idle, another process."""
        instance = self._idle(seat)
        if instance is None:
            instance = self._unused(seat)
            assert instance is not None
            part = process_part(shape)
            self._residents[instance] = _Resident(part, self.free.take(part))
            self._numbers.setdefault((seat.run_id, seat.actor), set()).add(instance.number)
        resident = self._residents[instance]
        resident.is_idle = False
        self._homes[holder] = instance
        self.free.take(call_part(shape))
        return self._ids(resident.gpus)

    def _idle(self, seat: Seat) -> Instance | None:
        """Return the first process of an actor that has nothing to do, so that the last rest."""
        numbers = self._numbers.get((seat.run_id, seat.actor), ())
        found = (Instance(seat.run_id, seat.actor, n) for n in sorted(numbers) if n < seat.most)
        return next((each for each in found if self._residents[each].is_idle), None)

    def _unused(self, seat: Seat) -> Instance | None:
        """Return the first process that the actor may have and has not."""
        numbers = self._numbers.get((seat.run_id, seat.actor), ())
        number = next(n for n in count() if n not in numbers)
        return Instance(seat.run_id, seat.actor, number) if number < seat.most else None

    def _rest(self, instance: Instance) -> None:
        """Note that a resident is idle from now on."""
        resident = self._residents.pop(instance)
        resident.is_idle = True
        self._residents[instance] = resident
        if resident.leaves:
            self._leave(instance)
            self._left.append(instance)

    def _leave(self, instance: Instance) -> None:
        resident = self._residents.pop(instance)
        self.free.give(resident.shape, resident.gpus)
        numbers = self._numbers[instance.run_id, instance.actor]
        numbers.remove(instance.number)
        if not numbers:
            del self._numbers[instance.run_id, instance.actor]

    def end_run(self, run_id: str) -> None:
        """Free what the residents of a run hold, of those that are busy when they no longer are."""
        for instance in [each for each in self._residents if each.run_id == run_id]:
            self._residents[instance].leaves = True
            if self._residents[instance].is_idle:
                self._leave(instance)
                self._left.append(instance)

    def take_left(self) -> tuple[Instance, ...]:
        """Return those whose run has ended, and that are idle, once: they are to be ended."""
        left, self._left = tuple(self._left), []
        return left

    def make_room(self, shape: Shape, *, at_once: bool = True) -> tuple[Instance, ...]:
        """Free what idle residents hold, so that the request fits; return those.

        They are as few as need be, those first that have been idle for longest. None, if it fits
        already, or would not even fit without all that are idle.

        Args:
            shape: the request.
            at_once: or only if it would not fit either when all calls that run have ended.
        """
        if not at_once and self._fits_later(shape):
            return ()
        free = self.free.copy()
        chosen: list[Instance] = []
        for instance, resident in self._residents.items():
            if free.fits(shape):
                break
            if resident.is_idle:
                free.give(resident.shape, resident.gpus)
                chosen.append(instance)
        if not free.fits(shape):
            return ()
        for instance in list(chosen):
            resident = self._residents[instance]
            without = free.copy()
            without.take_back(resident.shape, resident.gpus)
            if without.fits(shape):
                free = without
                chosen.remove(instance)
        for instance in chosen:
            self._leave(instance)
        return tuple(chosen)

    def _fits_later(self, shape: Shape) -> bool:
        """Say whether the request fits beside the residents alone."""
        free = Free(self.capacity)
        free.gpus += [0.0] * (len(self.free.gpus) - len(free.gpus))  # those that are gone
        for resident in self._residents.values():
            free.take_back(resident.shape, resident.gpus)
        return free.fits(shape)


def _without_gpus(shape: Shape) -> Shape:
    return msgspec.structs.replace(shape, gpus=0.0)


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """The first of the ready steps of one line.

    Attributes:
        rank: its place in the order in which steps are to start.
        ready_at: since when it waits to be started.
        most_ahead: how many like it may wait behind one that runs.
    """

    line: Line
    rank: tuple[int, ...]
    ready_at: datetime | None
    most_ahead: float = 0


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What is to start next.

    Attributes:
        start: None if there is nothing that may.
        is_ahead: it does not fit yet: it is sent to wait behind one of its like.
        kept: names of what is kept for requests that have been passed over for long enough.
    """

    start: Waiting | None
    kept: frozenset[str]
    is_ahead: bool = False


NOTHING: frozenset[str] = frozenset()


def choose(
    pool: Pool, waiting: Sequence[Waiting], now: datetime, kept: frozenset[str] = NOTHING
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
    for each in _in_turn(pool, waiting, now):
        request = pool.request(each.line)
        if request is None:
            continue
        does_fit = pool.fits(request)
        can_start = does_fit or pool.may_wait(each.line, each.most_ahead)
        # A process of an actor that is idle could be ended for the one that all is kept for.
        if can_start and (not kept or kept.isdisjoint(each.line.shape.names)):
            return Choice(each, kept, is_ahead=not does_fit)
        if not can_start and is_impatient(each.ready_at, now):
            kept |= pool.lacks(request)
    return Choice(None, kept)


def make_room(
    pool: Pool, waiting: Sequence[Waiting], now: datetime, kept: frozenset[str] = NOTHING
) -> tuple[Instance, ...]:
    """Return the processes of actors to end now, when nothing that waits can start.

    It is for the sake of one request, in the order of ``choose``: each that is ended lets one
    start, so that they do not end each other in turn without anything being done. One that fits
    as soon as calls that run have ended waits for that, if it has not waited for long already:
    what is costly to make is not ended for what is over soon.
    """
    for each in _in_turn(pool, waiting, now):
        request = pool.request(each.line)
        at_once = is_impatient(each.ready_at, now)
        if request is None or pool.fits(request) or not pool.has_place(request):
            continue
        may_ask = at_once or kept.isdisjoint(request.names)
        if may_ask and (ended := pool.make_room(request, at_once=at_once)):
            return ended
    return ()


def _in_turn(pool: Pool, waiting: Sequence[Waiting], now: datetime) -> Sequence[Waiting]:
    if len(waiting) < 2:  # as a rule: steps of one kind wait in one line
        return waiting
    return sorted(waiting, key=lambda each: _rank(pool, each, now))


def _rank(pool: Pool, each: Waiting, now: datetime) -> tuple[float, tuple[int, ...]]:
    return (-pool.share(each.line.shape) if is_impatient(each.ready_at, now) else 1.0, each.rank)


def is_impatient(ready_at: datetime | None, now: datetime) -> bool:
    """Say whether what is ready has been passed over for so long that the others wait for it."""
    return ready_at is not None and now - ready_at > PATIENCE


def lacking(request: Mapping[str, float], offer: Mapping[str, float]) -> str | None:
    """Return the name of something of which more is asked than offered in all, or None."""
    return next((n for n, amount in request.items() if not fits({n: amount}, offer)), None)


def shortage(
    request: Mapping[str, float],
    offer: Mapping[str, float],
    places: Sequence[Mapping[str, float]] = (),
) -> str | None:
    """Return why the request can never fit where so much is offered in all, or None.

    Args:
        request: what is asked for, by name.
        offer: what there is in all.
        places: what each machine has, if it is several.
    """
    name = lacking(request, offer)
    if name is None:
        return _too_much_for_one(request, places)
    near = "" if name in offer else did_you_mean(name, offer)
    has = words.had(name, offer.get(name, 0.0))
    return f"{words.amount(name, request[name])} asked, {has} here{near}"


def _too_much_for_one(
    request: Mapping[str, float], places: Sequence[Mapping[str, float]]
) -> str | None:
    if not places or any(fits(request, place) for place in places):
        return None
    for name, asked in request.items():
        most = max(place.get(name, 0.0) for place in places)
        if not fits({name: asked}, {name: most}):
            return f"{words.amount(name, asked)} asked, and one node has {words.had(name, most)}"
    together = " ".join(words.amount(name, asked) for name, asked in request.items() if asked)
    return f"{together} asked, and no node has all of that"


def _amounts(shape: Shape) -> dict[str, float]:
    """Return what a request takes of what is offered, by name."""
    own = {"cpus": shape.cpus, "gpus": shape.gpus, "memory": shape.memory_bytes}
    return {**dict(shape.resources), **own}
