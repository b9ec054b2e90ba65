"""The GPUs of this machine, as far as NVIDIA's library tells of them. Having none is fine."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own variable, not one of perdure's settings: which GPUs a process sees, by number or UUID,
read once, when the process first touches CUDA."""

_DRIVER = Path("/dev/nvidiactl")


class Gpu(msgspec.Struct, frozen=True):
    """One GPU that steps may have.

    Attributes:
        id: its word in ``CUDA_VISIBLE_DEVICES``.
        name: of the model; "" where only the variable tells of it.
        memory_bytes: all of its memory; 0 where that is not known.
    """

    id: str
    name: str = ""
    memory_bytes: int = 0


class Gpus(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        found: the GPUs, in the order of their ids.
        why_none: why none could be looked for, though the machine seems to have some; else "".
    """

    found: tuple[Gpu, ...] = ()
    why_none: str = ""


def gpu_ids(count: int | None) -> tuple[str, ...]:
    """Return the ids of the GPUs to offer.

    Args:
        count: so many, whatever is found: fewer, or more for tests; None: what is found.
    """
    if count == 0:
        return ()
    found = [gpu.id for gpu in usable_gpus().found]
    if count is None:
        return tuple(found)
    pretended = (str(n) for n in range(count) if str(n) not in found)
    return (*found, *pretended)[:count]


@cache
def usable_gpus() -> Gpus:
    """Return the GPUs that this process may use, as they were when this was first asked."""
    visible = os.environ.get(VISIBLE)
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        is_there = _DRIVER.exists() and visible != ""
        return Gpus(why_none="nvidia-ml-py is not installed" if is_there else "")
    return read_gpus(nvml, visible)


def read_gpus(nvml: Any, visible: str | None) -> Gpus:
    """Return the GPUs that NVML tells of and this process may see.

    Args:
        nvml: the module ``pynvml`` of nvidia-ml-py.
        visible: what ``CUDA_VISIBLE_DEVICES`` says here; None if it is not set.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        # Without a driver that is the answer; with one it is broken, or another version.
        return Gpus(why_none=f"NVIDIA's driver does not answer: {error}" if _has_driver() else "")
    try:
        return Gpus(_chosen(_read_all(nvml), visible))
    except nvml.NVMLError as error:
        return Gpus(why_none=f"NVIDIA's driver does not answer: {error}")
    finally:
        nvml.nvmlShutdown()


def _has_driver() -> bool:
    return _DRIVER.exists()


def _read_all(nvml: Any) -> dict[str, Gpu]:
    """Return all GPUs by UUID, numbered as CUDA does with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``."""
    found: dict[str, Gpu] = {}
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
        gpu = Gpu(str(number), _text(nvml.nvmlDeviceGetName(handle)), memory)
        found[_text(nvml.nvmlDeviceGetUUID(handle))] = gpu
    return found


def _chosen(by_uuid: dict[str, Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Return those that ``CUDA_VISIBLE_DEVICES`` lets this process see, under its words for them.

    As in CUDA, a word that names none ends the list.
    """
    if visible is None:
        return tuple(by_uuid.values())
    found: list[Gpu] = []
    for word in (word.strip() for word in visible.split(",")):
        by_number = [gpu for gpu in by_uuid.values() if gpu.id == word]
        # UUIDs may be cut short; an instance of a divided GPU has one that NVML's list has not.
        by_name = [gpu for uuid, gpu in by_uuid.items() if word and uuid.startswith(word)]
        named = by_number or by_name or ([Gpu(word)] if word.startswith("MIG-") else [])
        if len(named) != 1:
            break
        found.append(msgspec.structs.replace(named[0], id=word))
    return tuple(found)


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said


def visible_gpus(ids: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of a process that may see these GPUs, and no other."""
    found = {VISIBLE: ",".join(ids)}
    if VISIBLE not in os.environ:
        # NVML's numbers; by itself CUDA sorts by speed. Where the user's variable has chosen, its
        # numbers are in the user's order.
        found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return found
