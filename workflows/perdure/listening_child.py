"""The process that listens to sources of triggers, from outside: kept alive by ``perdure up``.

It is not ours alone: a source may end it, by a fault in native code, or hold its interpreter, as a
regular expression does that comes to no end. Then the sources that may have done it are told of
and rest, later and later, while the next child listens to all others.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection

import msgspec
import psutil

from perdure.child import PATIENCE_S, Place
from perdure.listening import GRACE_S, Orders, Sign
from perdure.runtime import Runtime
from perdure_scheduler.conditions import Files, Listen
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.hearing import every_trigger
from perdure_scheduler.intake import Intake
from perdure_scheduler.listener import Rest
from perdure_storage.errors import PerdureError, StoreUnavailable
from perdure_storage.trigger_records import TriggerQuery

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How soon a child is missed that has died, or is needed for the first time."""
SILENT_S = 60.0
"""A child that has given no sign of life for so long is killed."""
BRIEF_S = 10.0
"""A child that dies sooner is followed by the next one later and later."""
REST_S = 1.0
LONGEST_REST_S = 300.0
FORGIVEN_S = 600.0
"""A source that was listened to for so long without harm begins with short rests again."""


class _Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What a source is taken to have done, so often in a row, and until when it rests."""

    message: str
    times: int
    until: float


class ListeningChild:
    """The process that listens, while there is something to listen to.

    Args:
        runtime: what is listened for, and where troubles are noted.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._place = Place.of(runtime.settings)
        self._store = runtime.store
        self._intake = Intake(runtime.store.triggers, runtime.values, runtime.clock)
        self._clock = runtime.clock
        self._life: _Life | None = None
        self._troubles: dict[str, _Trouble] = {}
        self._starts_at = 0.0
        self._brief = 0  # how many in a row died soon after their start
        self._seen: object = None
        self._is_needed = False

    def serve(self, stop: threading.Event) -> None:
        """Keep a child alive whenever it is needed, until ``stop`` is set."""
        try:
            while not stop.is_set():
                try:
                    self.look()
                except StoreUnavailable as error:
                    log.debug("the store is away, trying again: %s", error)
                except (OSError, PerdureError) as error:
                    log.error("nobody listens for triggers: %s", error)
                stop.wait(LOOK_EVERY_S)
        finally:
            self.close()

    def look(self) -> None:
        """Start a child, or a new one, or end it: as it is needed."""
        self._bury()  # first: it is due while the store is away, too
        changes = self._store.changes()
        if changes != self._seen:
            self._is_needed = self._has_sources()
            self._seen = changes
        now = self._clock.monotonic()
        if not self._is_needed:
            self.close()
        elif self._life is None and now >= self._starts_at:
            rests = {
                key: Rest(message=each.message, rest_s=each.until - now)
                for key, each in self._troubles.items()
                if each.until > now
            }
            self._life = _Life(Orders(place=self._place, rests=rests), now)

    def _has_sources(self) -> bool:
        query = TriggerQuery(listens=True, paused=False, limit=1)
        return bool(self._store.triggers.list_triggers(query))

    # --- the end of one -------------------------------------------------------------------------
    def _bury(self) -> None:
        """Let go of a child that has ended, or might as well have."""
        life, now = self._life, self._clock.monotonic()
        if life is None:
            return
        life.hear(now)
        ended = life.process.poll()
        if ended is None and not life.is_silent(now):
            return
        suspects = life.busiest() if ended is None else list(life.ears)
        self.close()
        self._starts_at = now + REST_S
        if ended == 0:  # its code has changed: whatever it had done, it is another one now
            self._troubles.clear()
            self._brief = 0
        elif ended is None:
            silent = f"the process that listens gave no sign of life for {life.patience_s:g} s"
            log.error("%s, and is killed", silent)
            long = "what takes long belongs into a process of its own"
            self._set_aside(life, suspects, f"it seems to hold the interpreter: {silent}; {long}")
        else:
            died = f"the process that listens has died ({_how(ended)})"
            log.error("%s", died)
            self._set_aside(life, suspects, f"{died} while it listened to this")
            self._note_brief(life, died)

    def _set_aside(self, life: _Life, suspects: Collection[str], message: str) -> None:
        """Let sources rest which may be the reason why a child is no more."""
        now = self._clock.monotonic()
        for key in suspects:
            known = self._troubles.get(key)
            is_first = known is None or now - life.ears[key].since > FORGIVEN_S
            times = 1 if known is None or is_first else known.times + 1
            until = now + REST_S + _rest_s(times)
            self._troubles[key] = _Trouble(message=message, times=times, until=until)

    def _note_brief(self, life: _Life, died: str) -> None:
        """Start the next one later, if this one died of itself and soon after its start."""
        now = self._clock.monotonic()
        self._brief = self._brief + 1 if now - life.started_at < BRIEF_S and not life.ears else 0
        if self._brief:
            self._starts_at = now + _rest_s(self._brief)
        if self._brief > 1:
            often = f"{died} {self._brief} times in a row, soon after its start"
            self._tell_all(f"{often}; `perdure up` has printed what it said")

    def _tell_all(self, message: str) -> None:
        """Note with every trigger that is to be listened for why nobody does."""
        query = TriggerQuery(listens=True, paused=False)
        for record in every_trigger(self._store.triggers, query):
            try:
                parts = self._intake.definition(record).parts
            except TriggerError:  # of a newer perdure, which tells it
                continue
            for condition, part in parts.items():
                if isinstance(part, Files | Listen):
                    self._intake.note_trouble(record.name, condition, message)

    def close(self) -> None:
        """End the child. Idempotent."""
        life, self._life = self._life, None
        if life is not None:
            life.end()


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """In which thread a source is listened to, and since when."""

    thread: int
    since: float


class _Life:
    """One child, from its start to its end.

    Attributes:
        process: the child.
        started_at: when.
        ears: sources of the user's that it listens to, by their keys.
    """

    def __init__(self, orders: Orders, now: float) -> None:
        self.started_at = self._heard_at = now
        self.ears: dict[str, _Heard] = {}
        self._is_up = False
        self._rest = b""
        self._used: dict[int, float] | None = None  # the CPU of its threads, since it is silent
        # In a session of its own: a Ctrl-C at the terminal is for who drives.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perdure.listening"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.process.stdin.write(msgspec.json.encode(orders) + b"\n")
        self.process.stdin.flush()

    @property
    def patience_s(self) -> float:
        """Return for how long it may be silent: at first it has to import itself."""
        return SILENT_S if self._is_up else PATIENCE_S

    def is_silent(self, now: float) -> bool:
        """Say whether it has given no sign of life for too long."""
        silent_s = now - self._heard_at
        if silent_s > self.patience_s / 2 and self._used is None:
            self._used = _cpu_of_threads(self.process.pid)
        return silent_s > self.patience_s

    def hear(self, now: float) -> None:
        """Take note of signs of life."""
        assert self.process.stdout is not None
        try:
            given = os.read(self.process.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            return
        if not given:
            return
        *lines, self._rest = (self._rest + given).split(b"\n")
        self._heard_at, self._is_up, self._used = now, True, None
        for line in lines:
            sign = msgspec.json.decode(line, type=Sign)
            if sign.ear:
                self.ears[sign.ear] = _Heard(thread=sign.thread, since=now)

    def busiest(self) -> list[str]:
        """Return the source whose thread has used the CPU since the child fell silent.

        All of them if there is no telling: a thread may hold the interpreter and sleep. None if it
        is another thread: no source is to be blamed for a machine that hangs.
        """
        before, after = self._used or {}, _cpu_of_threads(self.process.pid)
        used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
        most = max(used.values(), default=0.0)
        if most <= 0:
            return list(self.ears)
        return [key for key, heard in self.ears.items() if used.get(heard.thread) == most]

    def end(self) -> None:
        """End it; at once if it has been silent for long."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self._used is not None:
            self.process.kill()
        try:
            self.process.stdin.close()
        except OSError:  # it is dead: what it has not read is lost with it
            pass
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def _cpu_of_threads(pid: int) -> dict[int, float]:
    """Return the seconds of CPU that each thread of a process has used; empty if unknown."""
    try:
        threads = psutil.Process(pid).threads()
    except psutil.Error:  # it is gone, or the system does not tell (macOS)
        return {}
    return {each.id: each.user_time + each.system_time for each in threads}


def _rest_s(times: int) -> float:
    return min(REST_S * 2.0 ** min(times, 20), LONGEST_REST_S)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
