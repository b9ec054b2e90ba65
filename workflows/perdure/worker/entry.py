"""The worker process: started as a fresh interpreter, it serves calls until its line closes.

The coordinator starts ``python -c "...; from perdure.worker.entry import main; main(...)"``, so
that the user's ``__main__`` is nowhere near: a script never runs twice.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from perdure.worker.keeper import fork_worker

_OOM_SCORE = b"500"
"""If the kernel has to choose, it takes the worker before the coordinator."""


def main(coordinator: int, socket_fd: int, life_fd: int, tickets_fd: int, kind: str) -> None:
    """Be a worker.

    Args:
        coordinator: pid of the process that started this one.
        socket_fd: the line for calls and outcomes.
        life_fd: the keeper's line.
        tickets_fd: tickets of calls that may begin.
        kind: ``"sync"`` or ``"async"``.
    """
    fork_worker(coordinator, life_fd, (socket_fd, tickets_fd))
    # In the worker from here on. Ctrl-C in a terminal is the coordinator's affair; a handler, not
    # SIG_IGN, which the step's own child processes would inherit.
    signal.signal(signal.SIGINT, _ignore)
    _prefer_as_oom_victim()
    _prepare_streams()
    for fd in (socket_fd, tickets_fd):
        os.set_inheritable(fd, False)  # It was, to come here; programs of steps get no part.
    line = socket.socket(fileno=socket_fd)
    # Imported after the fork, and one of the two only: the keeper stays small, the start short.
    if kind == "async":
        from perdure.worker.serve_async import serve_async

        serve_async(line)
    else:
        from perdure.worker.serve import serve

        serve(line, tickets_fd)
    _leave()


def _ignore(_signum: int, _frame: object) -> None:
    """Do nothing."""


def _prefer_as_oom_victim() -> None:
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass  # Not Linux, or not allowed: the kernel's own choice will do.


def _prepare_streams() -> None:
    """Make what a step prints reach its file line by line, and say where a crash happened."""
    import faulthandler

    from perdure.worker.streams import log_to_stderr, prepare_stream

    for stream in (sys.stdout, sys.stderr):
        prepare_stream(stream)
    faulthandler.enable()
    log_to_stderr()


def _leave() -> None:
    """End at once: threads that steps have left behind must not hold the process."""
    from perdure.tracing import flush_spans

    flush_spans()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
