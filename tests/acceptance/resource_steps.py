"""Steps that tell what they see and take, imported by name in workers."""

from __future__ import annotations

import multiprocessing
import os
import threading

SEEN_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")
MIB = 1 << 20
_kept: list[bytearray] = []


def _hold(mib: int) -> bytearray:
    held = bytearray(mib * MIB)
    held[::4096] = b"x" * len(range(0, len(held), 4096))  # else the pages are not there
    return held


def see_gpus() -> tuple[str | None, str | None, int]:
    return SEEN_AT_IMPORT, os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


async def see_gpus_async() -> tuple[str | None, int]:
    return SEEN_AT_IMPORT, os.getpid()


def take_memory(mib: int) -> int:
    held = _hold(mib)
    threading.Event().wait(20)
    return len(held)


def take_memory_briefly(mib: int) -> int:
    return len(_hold(mib)) // MIB


def keep_memory(mib: int) -> int:
    _kept.append(_hold(mib))
    return os.getpid()


def take_memory_below(mib: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=take_memory, args=(mib,))
    child.start()
    child.join()


def share_memory_with_children(mib: int, seconds: float) -> int:
    held = _hold(mib)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=threading.Event().wait, args=(seconds,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return len(held) // MIB
