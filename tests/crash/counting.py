"""Wrappers around stores, blobs and executors that die at the n-th call, by composition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from perdure.engine.coordinator import Coordinator
from perdure.executors.inline import InlineExecutor
from perdure.executors.ray_executor import RayExecutor
from perdure.runtime import Runtime
from perdure.submission import Submission, Wishes
from perdure_storage.blobs import open_blobs
from perdure_storage.faults import InjectedCrash
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import Owner, ProcessId, RunId

_MAX_TURNS = 5_000
_GONE_WITHIN_S = 30.0
_UNCOUNTED = frozenset({"changes", "workers", "wake", "url", "store_id"})
"""Looks that change nothing; how often they come depends on the time of day."""


@dataclass
class Tripwire:
    """Counts calls; at the ``at``-th one it dies, before or after the call is made."""

    at: int
    when: str
    calls: int = 0
    fell_at: str = ""
    names: list[str] = field(default_factory=list)

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls += 1
        self.names.append(name)
        is_due = self.calls == self.at
        if is_due and self.when == "before":
            self._fall(f"before {name}")
        result = call()
        if is_due:
            self._fall(f"after {name}")
        return result

    def _fall(self, where: str) -> None:
        self.fell_at = where
        raise InjectedCrash(where)


class Counted:
    """Anything, with its calls counted by a wire; attributes that are no methods pass through."""

    def __init__(self, below: Any, wire: Tripwire, label: str) -> None:
        self._below = below
        self._wire = wire
        self._label = label

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._below, name)
        if not callable(found) or name in _UNCOUNTED:
            return found
        if name == "spool":
            return lambda run_id: Counted(found(run_id), self._wire, "spool")

        if name == "poll" and not self._below.runs_here:
            return self._poll

        def counted(*args: Any, **kwargs: Any) -> Any:
            return self._wire.around(f"{self._label}.{name}", lambda: found(*args, **kwargs))

        return counted

    def _poll(self, timeout_s: float | None) -> Any:
        """Ask for outcomes elsewhere: how often there are none depends on the time of day."""
        outcomes = self._below.poll(timeout_s)
        if not outcomes:
            return outcomes
        return self._wire.around(f"{self._label}.poll", lambda: outcomes)


class SilentHeartbeat:
    """Registers and says no more: nothing happens beside the thread that is to die."""

    steady_s = math.inf

    def __init__(self, store: Any, owner: Owner) -> None:
        self._store = store
        self._owner = owner
        self._is_started = False

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._store.register(self._owner, 10.0)

    def beat_now(self, workers: tuple[ProcessId, ...]) -> None: ...

    def take_late(self) -> None: ...

    def stop(self) -> None: ...


class MortalExecutor(InlineExecutor):
    """Runs steps here, and can be dropped as a death drops it."""

    def die(self) -> None:
        """Release what the kernel takes back from the dead, and nothing else."""
        self._wake.close()


class MortalRayExecutor(RayExecutor):
    """Runs steps on the cluster that this process is connected to, and can be dropped."""

    def die(self) -> None:
        """Have ended what Ray ends when a driver is gone."""
        under_way = [lot.ref for lot in self._lots.values()]
        self.close()
        if under_way:
            self._ray.wait(under_way, num_returns=len(under_way), timeout=_GONE_WITHIN_S)


class Life:
    """One coordinator, from its first call to its death; the store outlives it."""

    def __init__(
        self,
        runtime: Runtime,
        wire: Tripwire,
        owner: Owner,
        make_executor: Callable[[], Any] = MortalExecutor,
    ) -> None:
        self.runtime = runtime
        self.wire = wire
        self.owner = owner
        self._make_executor = make_executor
        self._executors: list[Any] = []
        runtime.store = Counted(runtime.store, wire, "store")  # type: ignore[assignment]
        runtime.blobs = Counted(runtime.blobs, wire, "blobs")  # type: ignore[assignment]
        runtime.values.blobs = runtime.blobs

    def open_worker_blobs(self, *args: Any, **kwargs: Any) -> Any:
        """Open blobs as a worker does; its calls count too."""
        return Counted(open_blobs(*args, **kwargs), self.wire, "blobs")

    def _executor(self, name: str) -> Any:
        self._executors.append(self._make_executor())
        return Counted(self._executors[-1], self.wire, "executor")

    def end(self) -> None:
        """Leave everything as it is."""
        for executor in self._executors:
            executor.die()
        self.runtime.store.close()

    def run(self, definition: Any, run_id: str, **options: Any) -> None:
        """Submit or find the run, and drive it to its end in this thread."""
        self.submit(definition, run_id, **options)
        self.drive(run_id)

    def submit(self, definition: Any, run_id: str, **options: Any) -> None:
        """Make the run, or find it."""
        wishes = Wishes.from_options({"run_id": run_id, **options}, find_last=lambda name: ())
        submission = Submission(self.runtime, self.runtime.settings, definition, wishes)
        submission.submit()

    def drive(self, run_id: str) -> None:
        """Drive the run to its end in this thread."""
        coordinator = Coordinator(
            store=self.runtime.store,
            blobs=self.runtime.blobs,
            values=self.runtime.values,
            executors=self._executor,
            owner=self.owner,
            clock=self.runtime.clock,
            default_executor=self.runtime.settings.executor,
            heartbeat=SilentHeartbeat(self.runtime.store, self.owner),  # type: ignore[arg-type]
        )
        coordinator.submit(run_id)
        for _ in range(_MAX_TURNS):
            coordinator.turn(0.01)
            if self.runtime.store.get_run(RunId(run_id)).status not in RUN_LIVE:
                break


def dead_owner(number: int) -> Owner:
    """Return the identity of a coordinator of this host whose process is gone."""
    import subprocess

    import msgspec

    from perdure.engine.ownership import this_owner

    process = subprocess.Popen(["true"])
    started = psutil.Process(process.pid).create_time()
    process.wait()
    return msgspec.structs.replace(
        this_owner(), token=f"life-{number}", pid=process.pid, started=started
    )
