"""Which ready steps start now: resources as numbers, no processes.

Deterministic: higher priority first, then the runs in turn, within a run the order of the plan.
Steps of one shape (the same request) wait in one queue, so that a wide fan-out costs one look,
not thousands. A request that does not fit lets others pass, but only for ``PATIENCE_S``: after
that nothing of its run or of lower rank starts until it fits, so small steps never starve it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from perdure.errors import did_you_mean
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions

PATIENCE_S = 5.0
_SLACK = 1e-9


class Shape(msgspec.Struct, frozen=True):
    """What one attempt holds while it runs; the key of a ready queue."""

    cpus: float
    gpus: float
    memory_bytes: int
    resources: tuple[tuple[str, float], ...]
    is_async: bool


def shape_of(options: StepOptions, *, is_async: bool) -> Shape:
    """Return the request of a step."""
    return Shape(
        options.cpus,
        options.gpus,
        options.memory_bytes or 0,
        tuple(sorted(options.resources.items())),
        is_async,
    )


class Pool:
    """What is free on one executor. Owned by the engine; changed by ``take`` and ``give`` only."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.cpus = capacity.cpus
        self.gpus = capacity.gpus
        self.memory_bytes = capacity.memory_bytes
        self.resources = dict(capacity.resources)
        self.slots = capacity.slots
        self.async_slots = capacity.async_slots
        self._holders: dict[Shape, int] = {}
        self._ahead: dict[Shape, int] = {}

    def fits(self, shape: Shape) -> bool:
        """Say whether the request fits into what is free now."""
        if (self.async_slots if shape.is_async else self.slots) <= 0:
            return False
        return self.capacity.is_serial or (
            shape.cpus <= self.cpus + _SLACK
            and shape.gpus <= self.gpus + _SLACK
            and shape.memory_bytes <= self.memory_bytes
            and all(self.resources.get(name, 0.0) + _SLACK >= n for name, n in shape.resources)
        )

    def take(self, shape: Shape) -> None:
        """Hold the request."""
        self._holders[shape] = self._holders.get(shape, 0) + 1
        self._add(shape, -1)

    def may_wait(self, shape: Shape, most: float) -> bool:
        """Say whether one more may be sent ahead, to wait there for the end of its like.

        Args:
            shape: its request.
            most: so many may wait behind each of those that hold such a request.
        """
        if shape.is_async or self.capacity.is_serial:
            return False
        return self._ahead.get(shape, 0) < most * self._holders.get(shape, 0)

    def send_ahead(self, shape: Shape) -> None:
        """Note one that waits there; it holds nothing until another one of its shape ends."""
        self._ahead[shape] = self._ahead.get(shape, 0) + 1

    def give(self, shape: Shape) -> None:
        """Free the request, or leave it to one that was sent ahead."""
        if self._ahead.get(shape, 0):
            self._ahead[shape] -= 1
            return
        self._holders[shape] -= 1
        self._add(shape, 1)

    def _add(self, shape: Shape, sign: int) -> None:
        self.cpus += sign * shape.cpus
        self.gpus += sign * shape.gpus
        self.memory_bytes += sign * shape.memory_bytes
        for name, amount in shape.resources:
            self.resources[name] = self.resources.get(name, 0.0) + sign * amount
        if shape.is_async:
            self.async_slots += sign
        else:
            self.slots += sign


def shortage(options: StepOptions, capacity: Capacity) -> str | None:
    """Return why the request can never fit on an executor of this capacity, or None."""
    asked = {"cpus": options.cpus, "gpus": options.gpus, "memory": options.memory_bytes or 0}
    has = {"cpus": capacity.cpus, "gpus": capacity.gpus, "memory": capacity.memory_bytes}
    asked |= options.resources
    has |= capacity.resources
    for name, amount in asked.items():
        if amount > has.get(name, 0.0) + _SLACK:
            unit = " bytes" if name == "memory" else ""
            near = "" if name in has else did_you_mean(name, has)
            return f"{name}={amount:g}{unit} asked, {has.get(name, 0.0):g}{unit} here{near}"
    return None


def is_impatient(ready_since: datetime, now: datetime) -> bool:
    """Say whether a request has been passed over for so long that it blocks the others."""
    return now - ready_since > timedelta(seconds=PATIENCE_S)
