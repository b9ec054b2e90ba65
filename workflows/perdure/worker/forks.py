"""Children that a step forks without exec: copies of the worker, which must never answer for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable


def leave_if_forked(worker: int, error: BaseException | None = None) -> None:
    """End this process if it is a child that the step has forked: here its function is over.

    Args:
        worker: pid of the process that runs the step.
        error: what the function raised here.
    """
    if os.getpid() != worker:
        status = 0 if error is None else _tell(error)
        _flush()
        os._exit(status)


def cut_off_children(*lines: int) -> None:
    """Have every child that is forked from now on lose descriptors, so that it cannot send.

    It would otherwise be a second reader of what comes, too: a child of a coroutine goes on in
    the copy of the worker's loop.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.register_at_fork(after_in_child=lambda: _replace(lines, null))


def _replace(lines: Iterable[int], null: int) -> None:
    for line in lines:
        os.dup2(null, line, inheritable=False)


def _tell(error: BaseException) -> int:
    """Say what ended a process, as Python does at its end; return the exit status."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    # Not a library's hook: Ray's would ask its cluster, over a connection that is not the child's.
    sys.__excepthook__(type(error), error, error.__traceback__)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a step's own object, or a stream it closed
            continue
