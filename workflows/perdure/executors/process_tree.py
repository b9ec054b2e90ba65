"""Processes by identity, and the end of whole trees of them."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterable, Sequence

from perdure.worker.kinship import descendant_pids, send_signal
from perdure_storage.records import ProcessId

_SAME_START_S = 1.5
"""Start times are derived from the boot time, which some kernels let drift with the wall clock."""


def process_id(pid: int) -> ProcessId | None:
    """Return the identity of a process, or None if there is no such process."""
    import psutil

    try:
        return ProcessId(pid=pid, started=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(process: ProcessId) -> bool:
    """Say whether this very process runs; a zombie does not, nor does a later one of its number."""
    import psutil

    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.started) < _SAME_START_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_processes(processes: Sequence[ProcessId], *, within_s: float = 5.0) -> list[ProcessId]:
    """SIGKILL the worker processes of a dead coordinator, with everything below them.

    A number that belongs to another process by now is left alone. Normally their keepers have done
    this already, within milliseconds of the coordinator's death.

    Args:
        processes: what ``Executor.workers`` returned, as recorded.
        within_s: how long to wait until they are gone.

    Returns:
        Those that could not be ended: not ours to signal, or stuck in the kernel.
    """
    until = time.monotonic() + within_s
    while True:
        left = [process for process in processes if _kill_tree(process)]
        if not left or time.monotonic() >= until:
            return left
        select.select([], [], [], 0.005)


def _kill_tree(process: ProcessId) -> bool:
    """Signal a worker's tree once, children first; say whether anything of it was alive.

    While its keeper lives, no orphan can leave the tree: so the keeper goes last.
    """
    below = _alive([*_members(process), *_below(process)])
    for pid in below:
        send_signal(pid, signal.SIGKILL)
    if below:
        return True
    alive = is_alive(process)
    if alive:
        send_signal(process.pid, signal.SIGKILL)
    return alive


def _below(process: ProcessId) -> list[int]:
    return descendant_pids(process.pid) if is_alive(process) else []


def _members(process: ProcessId) -> list[int]:
    """Return the processes of the session that this process founded.

    As long as a session has a member, the kernel gives its number to no other process: if the
    number's holder is another process now, the session is not ours.
    """
    import os

    import psutil

    now = process_id(process.pid)
    if now is not None and abs(now.started - process.started) >= _SAME_START_S:
        return []
    found: list[int] = []
    for pid in psutil.pids():
        try:
            if pid != process.pid and os.getsid(pid) == process.pid:
                found.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def _alive(pids: Iterable[int]) -> list[int]:
    import psutil

    found: list[int] = []
    for pid in dict.fromkeys(pids):
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found
