"""What the engine asks of a place where steps run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from perdure.calls import CallContext, CallId, Desk, Instance, Outcome, StepCall
from perdure.plan import Function
from perdure_storage.records import Cause, ProcessId, StoredValue


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a host offers to the steps that run on it at one time.

    Attributes:
        gpu_ids: its GPUs, by their words in ``CUDA_VISIBLE_DEVICES``.
        slots: how many ordinary attempts may run at once, whatever they ask for.
        async_slots: how many ``async def`` attempts may.
        is_serial: attempts run one after the other, so what they ask for is not added up; each
            must fit by itself.
        places: what each of its machines has of what a step may ask for, where it is several and
            an attempt has to fit into one of them.
    """

    cpus: float
    gpu_ids: tuple[str, ...] = ()
    memory_bytes: int = 0
    resources: dict[str, float] = {}
    slots: int = 64
    async_slots: int = 1000
    is_serial: bool = False
    places: tuple[dict[str, float], ...] = ()

    @property
    def offer(self) -> dict[str, float]:
        """Return how much there is of everything that a step may ask for, by name."""
        own = {"cpus": self.cpus, "gpus": len(self.gpu_ids), "memory": self.memory_bytes}
        return {**self.resources, **own}


class Executor(Protocol):
    """Runs attempts. Used by one thread, the coordinator's; only ``wake`` is for any thread.

    For each submitted call exactly one outcome is returned by ``poll``, whatever happens to the
    worker. The executor knows no graph, no store and no retry rule.
    """

    @property
    def name(self) -> str:
        """Return the name under which settings choose it."""
        ...

    @property
    def can_kill(self) -> bool:
        """Say whether it can end a running attempt: without that no ``timeout`` is enforced."""
        ...

    @property
    def runs_here(self) -> bool:
        """Say whether user code runs now in the thread that calls ``poll``: signal handlers ask."""
        ...

    @property
    def capacity(self) -> Capacity:
        """Return what it offers; placement is the engine's business and never exceeds it."""
        ...

    def attend(self, desk: Desk) -> None:
        """Have a desk, which is asked in the thread that polls, keep what running attempts save.

        Before the first call; without one nothing is kept.
        """
        ...

    def hand_over(self, calls: Sequence[CallId]) -> None:
        """Tell attempts that their run is paused, or given to somebody else: they may end early.

        Nobody ends those that have begun. Those that have not, and can be had back, end as
        ABANDONED.
        """
        ...

    def open_run(self, context: CallContext) -> None:
        """Make a run's functions and constants known before its first call.

        What an earlier owner of the run has left in its spool goes, if that is cheap.
        """
        ...

    def extend_run(
        self, run_id: str, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None:
        """Make more functions and constants of an open run known: a step has grown a graph.

        Names and indices that are known already mean the same as before.
        """
        ...

    def close_run(self, run_id: str) -> None:
        """Forget a run: caches and spool go.

        No call of it is in flight, but for those that make instances of its pools: they have been
        killed, and their outcomes may come later.
        """
        ...

    def submit(self, calls: Sequence[StepCall]) -> None:
        """Start attempts; returns at once. (``inline`` runs them inside the next ``poll``.)"""
        ...

    def retire(self, instances: Sequence[Instance]) -> None:
        """End processes of actors in which no call is in flight; unknown ones are ignored.

        Calls that are submitted afterwards and are to have what those held do not begin before
        they are gone.
        """
        ...

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        """End attempts: ask, SIGTERM, after ``grace_s`` SIGKILL, descendants too; returns at once.

        Their outcomes, with ``cause``, come when their processes are gone. A call that ended by
        itself meanwhile keeps its own outcome. Unknown calls are ignored.
        """
        ...

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        """Return the outcomes that have come, waiting up to ``timeout_s`` for the first.

        0 does not wait; None waits for ever. Returns empty when woken or timed out.
        """
        ...

    def wake(self) -> None:
        """Make a ``poll`` that waits return now. Safe from any thread and from signal handlers."""
        ...

    def workers(self) -> tuple[ProcessId, ...]:
        """Return the processes that must be dead before another coordinator takes over."""
        ...

    def close(self) -> None:
        """End every worker with its descendants and release everything. Idempotent."""
        ...
