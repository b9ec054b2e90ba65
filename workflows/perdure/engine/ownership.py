"""Who drives runs: naming this process so that nobody is ever mistaken for it, or for alive."""

from __future__ import annotations

import functools
import os
import platform
import secrets
from collections.abc import Mapping
from pathlib import Path

import psutil

from perdure_storage.records import Owner, RunRecord

_living: set[str] = set()
"""Tokens of the coordinators of this process that have not been closed."""


@functools.cache
def _host() -> tuple[str, str, str]:
    return platform.node(), _boot_id(), _pid_namespace()


def _boot_id() -> str:
    linux = Path("/proc/sys/kernel/random/boot_id")
    return linux.read_text().strip() if linux.exists() else f"{psutil.boot_time():.0f}"


def _pid_namespace() -> str:
    linux = Path("/proc/self/ns/pid")
    return os.readlink(linux) if linux.exists() else ""


def this_owner(*, offer: Mapping[str, float] | None = None) -> Owner:
    """Return a new coordinator identity of this process.

    Args:
        offer: how much steps may have here in all, of one that serves; None: it does not.
    """
    host, boot_id, pid_ns = _host()
    token = secrets.token_hex(8)
    _living.add(token)
    return Owner(
        token=token,
        host=host,
        boot_id=boot_id,
        pid_ns=pid_ns,
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        serves=offer is not None,
        offer=tuple(sorted((offer or {}).items())),
    )


def retire(owner: Owner) -> None:
    """Say that this coordinator of this process drives nothing any more. Idempotent."""
    _living.discard(owner.token)


def is_neighbour(owner: Owner) -> bool:
    """Say whether the owner's process, if it lives, is one that we could see."""
    return (owner.host, owner.boot_id, owner.pid_ns) == _host()


def is_seen_dead(owner: Owner) -> bool:
    """Say whether we can be sure that the owner's process is gone. False when in doubt."""
    if not is_neighbour(owner):
        return False
    if owner.pid == os.getpid() and owner.token not in _living:
        return True
    try:
        process = psutil.Process(owner.pid)
        return (
            abs(process.create_time() - owner.started) > 0.05
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def is_driven(record: RunRecord) -> bool:
    """Say whether somebody alive drives the run, as far as can be seen from here."""
    return record.owner is not None and record.lease_live and not is_seen_dead(record.owner)


def driver_of(record: RunRecord) -> str:
    """Return who drives the run, for people: ``"process 4711 on host"``."""
    owner = record.owner
    return owner.place if owner is not None else "nobody"
