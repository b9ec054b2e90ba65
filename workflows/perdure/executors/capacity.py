"""What this host offers to steps: what the process may really use, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from perdure.executors.protocol import Capacity

MEMORY_SHARE = 0.9
"""Share of the memory that steps may ask for; the rest is the coordinator's and the system's."""

_CGROUP = Path("/sys/fs/cgroup")


def detect_capacity(
    workers: int | None = None,
    *,
    cpus: float | None = None,
    gpus: float = 0.0,
    memory: int | None = None,
    resources: Mapping[str, float] | None = None,
) -> Capacity:
    """Return this host's capacity.

    Args:
        workers: how many ordinary attempts may run at once; None: as the CPUs allow, at least 64
            so that steps which ask for less than a CPU find room.
        cpus: CPUs to offer; None: those of the process's affinity and its cgroup's quota, but no
            fewer than ``workers``, so that so many plain steps fit.
        gpus: GPUs to offer.
        memory: bytes to offer; None: 90 % of the machine's or the cgroup's limit.
        resources: amounts of whatever the user's steps name.
    """
    if cpus is None:
        cpus = float(workers) if workers is not None else usable_cpus()
    return Capacity(
        cpus=cpus,
        gpus=gpus,
        memory_bytes=memory if memory is not None else int(usable_memory_bytes() * MEMORY_SHARE),
        resources=dict(resources or {}),
        slots=workers if workers is not None else max(64, math.ceil(cpus)),
    )


def usable_cpus() -> float:
    """Return the CPUs that this process may use: affinity, then the cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
    quota = _cpu_quota()
    return count if quota is None else max(min(count, quota), 0.01)


def usable_memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its cgroup's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_first(_CGROUP / "memory.max", _CGROUP / "memory/memory.limit_in_bytes")
    # Both versions write "no limit" as something that is not a smaller number.
    return min(machine, int(limit)) if limit is not None and limit.isdigit() else machine


def _cpu_quota() -> float | None:
    new = _read_first(_CGROUP / "cpu.max")
    if new is not None:
        quota, _, period = new.partition(" ")
        return float(quota) / float(period) if quota.isdigit() and period else None
    quota_us = _read_first(_CGROUP / "cpu/cpu.cfs_quota_us")
    period_us = _read_first(_CGROUP / "cpu/cpu.cfs_period_us")
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def _read_first(*paths: Path) -> str | None:
    """Return the first of these files that can be read, stripped."""
    for path in paths:
        try:
            return path.read_text().strip()
        except OSError:
            continue
    return None
