"""The peak of a worker's resident memory, call by call."""

from __future__ import annotations

import os
import resource
import sys

_UNIT = 1024 if sys.platform == "linux" else 1
_RESET_PEAK = b"5"
"""See proc(5), ``/proc/pid/clear_refs``: resets the peak resident set size."""


class PeakMemory:
    """Measures this process's peak since the last reset; since its start where none can be made."""

    def __init__(self) -> None:
        try:
            self._resets = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self._resets = -1

    def reset(self) -> None:
        """Begin anew at what is resident now."""
        if self._resets >= 0:
            os.write(self._resets, _RESET_PEAK)

    def read_bytes(self) -> int:
        """Return the peak."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
