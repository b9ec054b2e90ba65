"""The keeper: a worker's parent, which runs no user code and therefore always answers.

    coordinator -- life line --> keeper (adopts orphans) -- fork --> worker --> whatever it starts

The keeper ends with the whole tree below it gone, always: when the worker ends for whatever
reason, when the coordinator asks, closes the life line, or dies in whatever way. A worker that is
busy in native code, ignores SIGTERM, or has left double-forked children behind makes no
difference: its orphans become the keeper's children.

On the life line come ``TERM`` (pass SIGTERM to the worker) and ``KILL``; back goes, once, the
worker's exit status as ``subprocess`` writes it, when nothing is left alive.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from collections.abc import Iterable
from types import FrameType

from perdure.worker.kinship import (
    adopt_orphans,
    child_pids,
    descendant_pids,
    die_with_parent,
    send_group_signal,
    send_signal,
)
from perdure.worker.readiness import wait_readable

TERM = b"T"
KILL = b"K"
STATUS = struct.Struct("!i")

_LOOK_AT_PARENT_S = None if sys.platform == "linux" else 1.0
"""Where the kernel does not tell of the coordinator's death, the keeper looks once a second, in
case a process that it forked holds the other end of the life line open."""

_ORPHANS_GRACE_S = 0.3
"""Descendants that outlive their worker get SIGTERM, this much time, and SIGKILL."""

_STUCK_S = 5.0
"""Who is there yet so long after SIGKILL, and has started nobody since, hangs in the kernel."""


def fork_worker(coordinator: int, life: int, lines: Iterable[int]) -> None:
    """Fork. Returns in the worker; the keeper, which is the parent, never returns.

    Args:
        coordinator: pid of the process that started this one.
        life: descriptor of the life line; closed in the worker.
        lines: descriptors of the worker's own; closed in the keeper.
    """
    adopt_orphans()
    # SIGUSR1, not SIGKILL: the keeper has to outlive the coordinator long enough to clean up. Its
    # effect is only to wake the loop, which looks for itself who its parent is.
    signal.signal(signal.SIGUSR1, _noted)
    die_with_parent(coordinator, signal.SIGUSR1)
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.close(life)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        # A group of its own: one call then reaches the worker and all children that stayed in it.
        os.setpgid(0, 0)
        if not die_with_parent(keeper):
            os._exit(1)
        return
    try:
        for line in lines:
            os.close(line)
        _silence()
        Keeper(coordinator, worker, life).keep()
    finally:
        # Never into the caller's code, which is the worker's; whatever is left dies with us.
        os._exit(0)


class Keeper:
    """Watches one worker until it, and everything below it, is gone."""

    def __init__(self, coordinator: int, worker: int, life: int) -> None:
        self._coordinator = coordinator
        self._worker = worker
        self._life = life
        self._status: int | None = None
        self._woken = _wake_on_signals()

    def keep(self) -> None:
        """Wait for the worker's end or cause it; clean up; report."""
        try:
            os.setpgid(self._worker, self._worker)  # as the worker does: whoever comes first
        except OSError:
            pass  # It came first and has ended, or has moved on to a session of its own.
        self._reap()  # Of a worker that ended before signals woke us, no signal will come.
        while self._status is None:
            if os.getppid() != self._coordinator:
                self._kill_worker()
            elif self._life in self._wait_for_news(_LOOK_AT_PARENT_S):
                self._obey(os.read(self._life, 64))
            self._reap()
        self._end_orphans()
        self._report()

    def _wait_for_news(self, timeout_s: float | None) -> list[int]:
        ready = wait_readable([self._life, self._woken], timeout_s)
        if self._woken in ready:
            os.read(self._woken, 4096)
        return ready

    def _obey(self, orders: bytes) -> None:
        if not orders or KILL in orders:
            self._kill_worker()
        elif TERM in orders:
            send_signal(self._worker, signal.SIGTERM)

    def _kill_worker(self) -> None:
        """SIGKILL the worker alone, at once: it must commit to nothing any more."""
        send_signal(self._worker, signal.SIGKILL)
        while self._status is None and self._reap_one(0):
            pass

    def _reap(self) -> None:
        while self._reap_one(os.WNOHANG):
            pass

    def _reap_one(self, flags: int) -> bool:
        """Reap one child, the worker or an orphan; say whether there was one."""
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            return False
        if pid == self._worker:
            self._status = os.waitstatus_to_exitcode(status)
        return pid != 0

    def _end_orphans(self) -> None:
        """End what the worker has left behind: nothing may outlive its step's process."""
        me = os.getpid()
        # The group first, here and below: the kernel reaches all of a group at once, so that not
        # even processes that fork as fast as they can get away.
        send_group_signal(self._worker, signal.SIGTERM)
        for pid in descendant_pids(me):
            send_signal(pid, signal.SIGTERM)
        until = time.monotonic() + _ORPHANS_GRACE_S
        self._reap()
        while child_pids(me) and time.monotonic() < until:
            wait_readable([self._woken], 0.02)
            self._reap()
        # What we may not signal (setuid) is left, and what hangs in the kernel too: with SIGKILL
        # before it, it does nothing more of the step's.
        dying: set[int] = set()
        since = time.monotonic()
        while child_pids(me):
            send_group_signal(self._worker, signal.SIGKILL)
            killed = {pid for pid in descendant_pids(me) if send_signal(pid, signal.SIGKILL)}
            if not killed <= dying:
                since = time.monotonic()
            if not killed or time.monotonic() >= since + _STUCK_S:
                break
            dying |= killed
            wait_readable([self._woken], 0.02)
            self._reap()

    def _report(self) -> None:
        try:
            os.write(self._life, STATUS.pack(self._status or 0))
        except OSError:
            pass  # The coordinator is gone: nobody is left to tell.


def _wake_on_signals() -> int:
    """Return a descriptor that becomes readable at each signal that the keeper cares for."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    for signum in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, _noted)
    # Not ours to act on: the coordinator decides, and a terminal's Ctrl-C is meant for it.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _noted(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor has the news."""


def _silence() -> None:
    """Let go of the standard streams, which are the worker's."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    sys.stdout = sys.stderr = None
