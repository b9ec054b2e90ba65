"""Room on disks, and how fast a folder makes writes durable."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from perdure.doctor.finding import Finding, ok, problem, warning
from perdure.words import size
from perdure_storage.clock import Clock

LITTLE_BYTES = 1 << 30
"""Less free room than this is warned of."""
NONE_BYTES = 64 << 20
"""Less than this and the next commits are likely to fail."""
SLOW_S = 0.1
"""A commit waits for one such write: ten a second are few."""
_PROBE_BYTES = 64 << 10


def check_room(check: str, folder: Path) -> Finding:
    """Say how much room a folder's disk has."""
    there = _nearest(folder)
    try:
        return judge_room(check, folder, shutil.disk_usage(there).free)
    except OSError as error:
        return problem(check, f"{folder} cannot be looked at: {error.strerror}", f"ls -ld {there}")


def judge_room(check: str, folder: Path, free_bytes: int) -> Finding:
    """Say whether so much room is enough."""
    said = f"{size(free_bytes)} free at {folder}"
    if free_bytes < NONE_BYTES:
        return problem(check, said, f"make room: `df -h {folder}`; what was committed is safe")
    if free_bytes < LITTLE_BYTES:
        return warning(check, said, "make room before long runs: `perdure gc`")
    return ok(check, said)


def check_writing(check: str, folder: Path, clock: Clock) -> Finding:
    """Write a file, see it on the disk, read it, remove it; say how long the disk took."""
    probe = folder / f"probe-{secrets.token_hex(8)}"
    began = clock.monotonic()
    try:
        same = _written_and_read(probe)
    except OSError as error:
        return problem(check, f"{folder} cannot be written: {error.strerror}", f"ls -ld {folder}")
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            probe.unlink()
    took_s = clock.monotonic() - began
    if not same:
        return problem(check, f"{folder} gave back other bytes than were written", "check the disk")
    return judge_writing(check, folder, took_s)


def judge_writing(check: str, folder: Path, took_s: float) -> Finding:
    """Say whether a durable write may take so long."""
    said = f"a write to {folder} is durable after {took_s * 1000:.1f} ms"
    if took_s > SLOW_S:
        remedy = "every commit waits that long: keep the store on a faster, local disk"
        return warning(check, said, remedy)
    return ok(check, said)


def _written_and_read(probe: Path) -> bool:
    data = os.urandom(_PROBE_BYTES)
    with probe.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return probe.read_bytes() == data


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())
