"""Ties between processes: who dies with whom, who adopts whose children.

Linux has two calls for this, both in ``prctl``. Elsewhere nothing happens here, and the keeper's
watch over its life line has to do alone.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> bool:
    """Have the kernel send ``signum`` here when the parent dies; say whether it lives yet.

    The parent may have died before the call: a False must be acted on.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    return os.getppid() == parent


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, however it was forked."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def child_pids(pid: int) -> list[int]:
    """Return the children of a process; empty if it is gone."""
    if not _tells_children():
        return _child_pids_by_psutil(pid)
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it is gone
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):  # that thread of it is
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


@cache
def _tells_children() -> bool:
    """Say whether the kernel has a file that names the children of a process: not all have."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def _child_pids_by_psutil(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def descendant_pids(pid: int) -> list[int]:
    """Return all descendants of a process, parents before children."""
    found = child_pids(pid)
    for child in found:  # grows while it is walked
        found += child_pids(child)
    return found


def send_signal(pid: int, signum: int) -> bool:
    """Send a signal to a process; say whether it is there and ours to signal."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def send_group_signal(group: int, signum: int) -> bool:
    """Send a signal to a process group; say whether it is there and ours to signal."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
        return False
    return True
