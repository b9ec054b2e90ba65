"""What this host offers to steps: what the process may really use, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cache

from perdure.executors.cgroups import read_limits
from perdure.executors.gpus import gpu_ids
from perdure.executors.protocol import Capacity
from perdure.settings import Settings

ENOUGH = 1e12
"""So much there is of a label. A number, and finite: it travels as JSON."""
MEMORY_SHARE = 0.9
"""Share of the memory that steps may ask for; the rest is the coordinator's and the system's."""


def detect_capacity(
    workers: int | None = None,
    *,
    cpus: float | None = None,
    gpus: int | None = None,
    memory: int | None = None,
    resources: Mapping[str, float] | None = None,
) -> Capacity:
    """Return this host's capacity.

    Args:
        workers: how many ordinary attempts may run at once; None: as the CPUs allow, at least 64
            so that steps which ask for less than a CPU find room.
        cpus: CPUs to offer; None: those of the process's affinity and its cgroup's quota, but no
            fewer than ``workers``, so that so many plain steps fit.
        gpus: GPUs to offer; None: those that are found. More than those are pretended ones.
        memory: bytes to offer; None: 90 % of the machine's or the cgroup's limit.
        resources: amounts of whatever the user's steps name.
    """
    if cpus is None:
        cpus = float(workers) if workers is not None else usable_cpus()
    return Capacity(
        cpus=cpus,
        gpu_ids=gpu_ids(gpus),
        memory_bytes=memory if memory is not None else int(usable_memory_bytes() * MEMORY_SHARE),
        resources=dict(resources or {}),
        slots=workers if workers is not None else max(64, math.ceil(cpus)),
    )


def capacity_of(settings: Settings) -> Capacity:
    """Return what steps may have here, as the settings say it."""
    return detect_capacity(
        settings.workers,
        cpus=settings.cpus,
        gpus=settings.gpus,
        memory=settings.memory,
        resources={**settings.resources, **labels_as_resources(settings.labels)},
    )


def labels_as_resources(labels: Mapping[str, str]) -> dict[str, float]:
    """Return labels as what they are to steps: ``zone=a``, of which there is always enough."""
    return {f"{name}={value}": ENOUGH for name, value in labels.items()}


@cache
def usable_cpus() -> float:
    """Return the CPUs that this process may use, as they were when this was first asked.

    They are those of its affinity, then of its cgroup's quota.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
    quota = _cpu_quota()
    return count if quota is None else max(min(count, quota), 0.01)


@cache
def usable_memory_bytes() -> int:
    """Return the memory that this process may use, as it was when this was first asked.

    It is the machine's, or a group's smaller limit.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = read_limits("memory", "memory.max", "memory.limit_in_bytes")
    # "No limit" is written as "max" in one version, as an enormous number in the other.
    return min(machine, *(int(limit) for limit in limits if limit.isdigit()), machine)


def _cpu_quota() -> float | None:
    """Return the smallest CPU quota of the process's groups, in CPUs; None without one."""
    quotas = [
        int(quota) / int(period)
        for quota, _, period in (text.partition(" ") for text in read_limits("cpu", "cpu.max", ""))
        if quota.isdigit() and period.isdigit()
    ]
    old = zip(
        read_limits("cpu", "", "cpu.cfs_quota_us"),
        read_limits("cpu", "", "cpu.cfs_period_us"),
    )
    quotas += [int(quota) / int(period) for quota, period in old if quota.isdigit()]
    return min(quotas, default=None)
