"""How much memory an attempt takes, with all processes below it, and how much is too much."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import psutil

from perdure.worker.kinship import descendant_pids

TOLERANCE = 0.1
"""An attempt may hold so much more than its ``memory``, as a share of that ..."""
INTERPRETER_BYTES = 64 << 20
"""... and what Python and perdure take themselves before it has done anything."""


def most_bytes(memory_bytes: int) -> int:
    """Return what an attempt that asked for so much may hold before it is ended."""
    return int(memory_bytes * (1 + TOLERANCE)) + INTERPRETER_BYTES


def is_beyond(keeper: int, most: int) -> int:
    """Return how much is held below a keeper if that is more than ``most``, else 0.

    The quick look counts memory twice that processes share since a fork; only who is beyond by
    that is looked at closely, which takes milliseconds with much memory.
    """
    pids = descendant_pids(keeper)
    if sum(_own_bytes(pids)) <= most:
        return 0
    held = sum(_fair_bytes(pids))
    return held if held > most else 0


def _own_bytes(pids: Iterable[int]) -> Iterable[int]:
    """Yield what each process holds beside files that it has mapped, which can be dropped."""
    for pid in pids:
        try:
            info = psutil.Process(pid).memory_info()
        except psutil.NoSuchProcess:
            continue
        yield info.rss - getattr(info, "shared", 0)


def _fair_bytes(pids: Iterable[int]) -> Iterable[int]:
    """Yield the same with pages that several processes share divided among them."""
    if sys.platform != "linux":
        yield from _own_bytes(pids)
        return
    for pid in pids:
        try:
            info = psutil.Process(pid).memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone, or a program of another user: not ours to judge
        yield min(info.rss - info.shared, info.pss)
