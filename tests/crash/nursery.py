"""Starts ``perdure up`` again and again: a fork has its imports already, which are most of a start.

    python -m tests.crash.nursery WORDS...

forks a coordinator, ``perdure WORDS...``, for each line on stdin and answers with its pid. Its
workers are interpreters of their own, as always. When stdin ends, so does the nursery.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from perdure.cli import main

LOG = "coordinators.log"
"""What the coordinators say, in the folder that they are started in."""

IMPORTED = (
    "alembic",
    "perdure.cli.app",
    "perdure.client",
    "perdure.engine.coordinator",
    "perdure.executors.processes",
    "perdure.serving",
    "perdure_storage.connect",
    "psycopg",
)


def rear(words: Sequence[str]) -> int:
    """Fork until stdin ends; return twice or more: in the nursery, and in each coordinator."""
    for name in IMPORTED:
        importlib.import_module(name)
    alone = list(Path("/proc/self/task").iterdir())
    assert len(alone) == 1, "a thread of the nursery would be missing in its children"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried by the kernel
    while sys.stdin.readline():
        if (child := os.fork()) == 0:
            _leave_home()
            return main(words)
        print(child, flush=True)
    return 0


def _leave_home() -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null, log = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    )
    for ours, theirs in ((null, 0), (log, 1), (log, 2)):
        os.dup2(ours, theirs)


if __name__ == "__main__":
    sys.exit(rear(sys.argv[1:]))
