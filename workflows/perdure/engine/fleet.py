"""The executors of one coordinator, as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from perdure.calls import Desk, Outcome, StepCall
from perdure.engine.commands import Dispatch, Extend, HandOver, Kill, Retire
from perdure.engine.placement import Pool
from perdure.executors.protocol import Executor
from perdure_storage.faults import crash_point
from perdure_storage.records import ProcessId

KILL_GRACE_S = 5.0
"""How long an attempt that is to end may clean up before it is killed."""


class Fleet:
    """Executors by name, made when first needed, with what is free on each.

    Owned by the driving thread, but for ``wake``.
    """

    def __init__(self, make: Callable[[str], Executor]) -> None:
        self._make = make
        self._executors: dict[str, Executor] = {}
        self._woken = threading.Event()
        self._desk: Desk | None = None
        self.pools: dict[str, Pool] = {}

    def attend(self, desk: Desk) -> None:
        """Have a desk keep what attempts save on executors that are made from now on."""
        self._desk = desk

    def get(self, name: str) -> Executor:
        """Return the executor of that name."""
        if name not in self._executors:
            executor = self._make(name)
            if self._desk is not None:
                executor.attend(self._desk)
            self.pools[name] = Pool(executor.capacity)
            self._executors[name] = executor
        return self._executors[name]

    def poll(self, wait_s: float) -> list[Outcome]:
        """Return outcomes, waiting up to ``wait_s`` seconds for the first."""
        executors = list(self._executors.values())
        if not executors:
            self.pause(wait_s)
            return []
        outcomes: list[Outcome] = []
        for executor in executors[:-1]:
            outcomes += executor.poll(0)
        outcomes += executors[-1].poll(0 if outcomes else wait_s)
        return outcomes

    def measure(self) -> list[str]:
        """Take notice of executors that have more or less by now than they had; return which."""
        changed = [
            name
            for name, executor in self._executors.items()
            if executor.capacity is not self.pools[name].capacity
        ]
        for name in changed:
            self.pools[name].resize(self._executors[name].capacity)
        return changed

    def pause(self, seconds: float) -> None:
        """Wait without hearing anybody, until woken."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """End the wait of ``poll`` or ``pause``, from any thread."""
        self._woken.set()
        for executor in tuple(self._executors.values()):
            executor.wake()

    def dispatch(self, commands: Iterable[Dispatch]) -> None:
        """Start attempts."""
        by_executor: dict[str, list[StepCall]] = {}
        for command in commands:
            by_executor.setdefault(command.executor, []).append(command.call)
        for name, calls in by_executor.items():
            crash_point("dispatch.before")
            self._executors[name].submit(calls)
            crash_point("dispatch.after")

    def extend(self, command: Extend) -> None:
        """Make more functions and constants of a run known."""
        self._executors[command.executor].extend_run(
            command.run_id, command.functions, command.constants
        )

    def retire(self, command: Retire) -> None:
        """End idle processes of actors."""
        self._executors[command.executor].retire(command.instances)

    def kill(self, command: Kill) -> None:
        """End attempts; their outcomes come later."""
        self._executors[command.executor].kill(
            command.calls, grace_s=KILL_GRACE_S, cause=command.cause
        )

    def hand_over(self, command: HandOver) -> None:
        """Tell attempts that they may end early."""
        self._executors[command.executor].hand_over(command.calls)

    def close_run(self, run_id: str) -> None:
        """Forget a run everywhere."""
        for executor in self._executors.values():
            executor.close_run(run_id)

    @property
    def runs_here(self) -> bool:
        """Say whether user code runs now in the driving thread."""
        return any(executor.runs_here for executor in self._executors.values())

    def workers(self) -> tuple[ProcessId, ...]:
        """Return all worker processes."""
        return tuple(w for executor in self._executors.values() for w in executor.workers())

    def close(self) -> None:
        """End every worker. Idempotent."""
        for executor in self._executors.values():
            executor.close()
