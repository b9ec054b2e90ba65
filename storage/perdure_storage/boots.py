"""Which boot of which machine this is: what a lease on a local store is worth is bound to it."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

_LINUX = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """Return an id that changes with each boot of this machine and is the same for all processes.

    Linux tells one; macOS tells the second in which it booted.
    """
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return parse_boottime(said)
    return _LINUX.read_text(encoding="ascii").strip()


def parse_boottime(said: str) -> str:
    """Return the boot id in what ``sysctl kern.boottime`` said: ``{ sec = 17, usec = 4 } ...``."""
    found = re.search(r"sec = (\d+)", said)
    if found is None:
        raise ValueError(f"no boot time in {said!r}")
    return f"boottime-{found.group(1)}"
