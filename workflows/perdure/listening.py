"""Sources of triggers, listened to in a process of their own, which ``perdure up`` keeps alive.

They are the user's code, or file systems that may hang: neither belongs into the process that
drives runs. The child registers as a coordinator that takes no runs, so that its triggers go to
another when it dies. It ends with its parent, whatever becomes of that: it sees its standard input
close.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

import msgspec

from perdure.child import Imported, Place
from perdure.errors import DefinitionError
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreUnavailable
from perdure_storage.protocols import RunStore
from perdure_storage.trigger_records import TriggerQuery

if TYPE_CHECKING:
    from perdure.runtime import Runtime
    from perdure.settings import Settings
    from perdure_scheduler.sources import Source

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How soon a child is missed that has died, or is needed for the first time."""
BRIEF_S = 2.0
"""A child that lived for less is started again only after this."""
GRACE_S = 5.0
"""How long a child may take to end."""
CODE_EVERY_S = 2.0
"""How soon code of sources is seen to have changed."""


# --- within the child ---------------------------------------------------------------------------
def main(requests: IO[bytes]) -> None:
    """Listen until ``requests`` is closed, or SIGTERM comes, or code has changed."""
    from perdure.runtime import Runtime

    settings = msgspec.json.decode(requests.readline(), type=Place).settings()
    asyncio.run(_listen(Runtime(settings), requests))


async def _listen(runtime: Runtime, requests: IO[bytes]) -> None:
    from perdure.engine.heartbeat import Heartbeat
    from perdure.engine.ownership import this_owner
    from perdure_scheduler.intake import Intake
    from perdure_scheduler.listener import Listener

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    _stop_at_end(requests, loop, stop)
    imported = Imported()

    def load(entry: str) -> Source:
        try:
            return load_source(entry)
        finally:
            imported.note()

    owner = this_owner()
    heartbeat = Heartbeat(runtime.store, owner, runtime.clock)
    heartbeat.start()
    listener = Listener(
        runtime.store,
        Intake(runtime.store.triggers, runtime.values, runtime.clock),
        owner.token,
        load,
        runtime.clock,
        seen_dead=lambda: _seen_dead(runtime.store),
    )
    watching = asyncio.create_task(_stop_when_changed(imported, stop))
    try:
        await listener.serve(stop)
    finally:
        watching.cancel()
        heartbeat.stop()


def _stop_at_end(requests: IO[bytes], loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the parent says so by closing its end, as it does when it dies."""

    def wait() -> None:
        requests.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, name="perdure-parent", daemon=True).start()


async def _stop_when_changed(imported: Imported, stop: asyncio.Event) -> None:
    """Stop when a file that a source is made of has changed: the next child imports it anew."""
    while not imported.has_changed():
        await asyncio.sleep(CODE_EVERY_S)
    log.info("code of sources has changed: it is imported again")
    stop.set()


def _seen_dead(store: RunStore) -> list[str]:
    from perdure.engine.ownership import is_seen_dead

    return [owner.token for owner, alive in store.coordinators() if alive and is_seen_dead(owner)]


def load_source(entry: str) -> Source:
    """Return the source that an entry point names: ``"package.module:NAME"``, ``"FILE.py:NAME"``.

    Raises:
        DefinitionError: there is no such module, or it has no source of that name.
    """
    from perdure.target import load_module

    place, _, name = entry.partition(":")
    found: object = load_module(place)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(getattr(found, "listen", None)):
        raise DefinitionError(f"{place} has no source {name!r}: an object with a method `listen`")
    return found  # type: ignore[return-value]


# --- seen from outside --------------------------------------------------------------------------
class ListeningChild:
    """The process that listens, while there is something to listen to.

    Args:
        settings: where the stores are.
        store: says whether there is.
        clock: how long a child has lived.
    """

    def __init__(self, settings: Settings, store: RunStore, clock: Clock) -> None:
        self._place = Place.of(settings)
        self._store = store
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at: float | None = None
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
        changes = self._store.changes()
        if changes != self._seen:
            self._is_needed = self._has_sources()
            self._seen = changes
        self._bury()
        if not self._is_needed:
            self.close()
        elif self._process is None and self._has_rested():
            self._start()

    def _has_sources(self) -> bool:
        query = TriggerQuery(listens=True, paused=False, limit=1)
        return bool(self._store.triggers.list_triggers(query))

    def _bury(self) -> None:
        """Let go of a child that has ended."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.returncode:
                log.warning("the process that listens has died (%d)", self._process.returncode)
            self.close()

    def _has_rested(self) -> bool:
        """Say whether the last child was started long ago enough, if there was one."""
        return self._started_at is None or self._clock.monotonic() - self._started_at > BRIEF_S

    def _start(self) -> None:
        self._started_at = self._clock.monotonic()
        # In a session of its own: a Ctrl-C at the terminal is for who drives.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perdure.listening"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._place) + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the child. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        try:
            process.stdin.close()
        except OSError:  # it is dead: what it has not read is lost with it
            pass
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    # What the user's modules print is not for who reads what `perdure up` says.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.stdin.buffer)
    # Threads that hang in file systems or in sources of the user's are not waited for.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)
