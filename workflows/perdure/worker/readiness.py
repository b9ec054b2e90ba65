"""Waiting for descriptors, whatever their numbers."""

from __future__ import annotations

import select
from collections.abc import Sequence


def wait_readable(fds: Sequence[int], timeout_s: float | None) -> list[int]:
    """Return those of ``fds`` that can be read or have hung up, waiting for the first.

    Not by ``select``, which refuses descriptors above 1023: a program with that many open files
    would not get its workers.

    Args:
        fds: open descriptors.
        timeout_s: how long to wait; None waits for ever.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    # Rounded up: a wait of less than a millisecond is still a wait.
    timeout_ms = None if timeout_s is None else -(-timeout_s * 1000 // 1)
    return [fd for fd, _ in poll.poll(timeout_ms)]
