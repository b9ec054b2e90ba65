"""What this machine and this Python give to runs."""

from __future__ import annotations

import platform
import resource
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perdure.doctor.disks import check_room
from perdure.doctor.finding import Finding, ok, warning
from perdure.executors.capacity import usable_cpus, usable_memory_bytes
from perdure.executors.gpus import Gpus, usable_gpus
from perdure.words import size
from perdure_storage.temporary_folders import left_folders

FEW_DESCRIPTORS = 1024
LITTLE_MEMORY_BYTES = 512 << 20
SMALL_SHM_BYTES = 64 << 20
"""What a container gets if nobody says more; libraries that share arrays by it need more."""

_LIBRARIES = ("sqlalchemy", "alembic", "msgspec", "cloudpickle", "fsspec", "pyarrow", "psutil")


def check_machine() -> Iterator[Finding]:
    """Yield versions, and limits of the machine that runs meet."""
    yield check_versions()
    yield judge_cores(usable_cpus())
    yield judge_memory(usable_memory_bytes())
    yield judge_gpus(usable_gpus())
    yield judge_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield from _check_shm(Path("/dev/shm"))
    yield check_room("temporary files", Path(tempfile.gettempdir()))
    yield from check_left_folders()


def check_left_folders() -> Iterator[Finding]:
    """Yield what steps that were killed have left in the folder for temporary files, if any."""
    if left := left_folders():
        taken = sum(
            file.stat().st_size for folder in left for file in folder.rglob("*") if file.is_file()
        )
        whose = "a dead process" if len(left) == 1 else "dead processes"
        said = f"{len(left)} of {whose}, {size(taken)}, in {left[0].parent}"
        yield warning("folders left", said, "`perdure gc` removes them, as do steps to come")


def check_versions() -> Finding:
    """Say which versions are at work."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    python = f"Python {platform.python_version()} ({sys.executable})"
    sqlite = f"SQLite {sqlite3.sqlite_version}"
    return ok(
        "versions",
        f"perdure {_version('perdure')}, {python}, {platform.system()}, {sqlite}, {libraries}",
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def judge_cores(cores: float) -> Finding:
    """Say how many CPUs steps may use."""
    said = f"{cores:g} usable by this process"
    if cores < 1:
        return warning("cores", said, "steps ask for one each: raise the container's CPU limit")
    return ok("cores", said)


def judge_memory(usable_bytes: int) -> Finding:
    """Say how much memory steps may use."""
    said = f"{size(usable_bytes)} usable by this process"
    if usable_bytes < LITTLE_MEMORY_BYTES:
        return warning("memory", said, "each worker needs some 100 MB: raise the container's limit")
    return ok("memory", said)


def judge_gpus(gpus: Gpus) -> Finding:
    """Say which GPUs steps may have."""
    if gpus.why_none:
        remedy = "pip install 'perdure[gpu]', or say how many there are with the setting gpus"
        return warning("GPUs", f"none is counted: {gpus.why_none}", remedy)
    if not gpus.found:
        return ok("GPUs", "none that this process may use")
    named = (f"{gpu.id}: {gpu.name} ({size(gpu.memory_bytes)})" for gpu in gpus.found)
    return ok("GPUs", ", ".join(named))


def judge_descriptors(limit: int) -> Finding:
    """Say how many files may be open at a time."""
    unlimited = limit == resource.RLIM_INFINITY
    said = "as many as one likes" if unlimited else f"{limit} may be open at a time"
    if not unlimited and limit < FEW_DESCRIPTORS:
        return warning("open files", said, f"type `ulimit -n {4 * FEW_DESCRIPTORS}` first")
    return ok("open files", said)


def _check_shm(folder: Path) -> Iterator[Finding]:
    if folder.is_dir():
        usage = shutil.disk_usage(folder)
        yield judge_shm(folder, usage.free)


def judge_shm(folder: Path, free_bytes: int) -> Finding:
    """Say how much shared memory is free."""
    said = f"{size(free_bytes)} free at {folder}"
    if free_bytes < SMALL_SHM_BYTES:
        remedy = "libraries that share arrays between processes die of it: `docker run --shm-size`"
        return warning("shared memory", said, remedy)
    return ok("shared memory", said)
