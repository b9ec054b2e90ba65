"""The process that listens to sources of triggers: a child of ``perdure up``, from within.

Sources are the user's code, or file systems that may hang: neither belongs into the process that
drives runs. The child registers as a coordinator that takes no runs, so that its triggers go to
another when it dies. It ends with its parent, whatever becomes of that. From time to time it gives
a sign of life: a source may hold the interpreter, and then only its parent can help.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING

import msgspec

from perdure.child import Imported, Place
from perdure.errors import DefinitionError
from perdure.retention import ledger_of
from perdure.worker.kinship import die_with_parent
from perdure_scheduler.listener import Ear, Listener, Rest
from perdure_storage.protocols import RunStore

if TYPE_CHECKING:
    from perdure.runtime import Runtime
    from perdure_scheduler.sources import Source

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long it may take to end."""
SIGN_EVERY_S = 1.0
CODE_EVERY_S = 2.0
"""How soon code of sources is seen to have changed."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told when it starts.

    Attributes:
        place: where the stores are.
        rests: for sources that are to be left alone for a while, by the key of their ear.
    """

    place: Place
    rests: dict[str, Rest] = {}


class Sign(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That the child is alive, or that from now on code of a source runs in one of its threads.

    Attributes:
        ear: the key of the ear that listens to that source.
        thread: of that code, as the system counts threads.
    """

    ear: str = ""
    thread: int = 0


def main(requests: IO[bytes], signs: int) -> None:
    """Listen until ``requests`` is closed, or SIGTERM comes, or code has changed.

    Args:
        requests: gives the orders, and then nothing.
        signs: a descriptor that takes a sign a line.
    """
    from perdure.runtime import Runtime

    # Where code of sources holds the interpreter nobody here sees that the parent is gone.
    die_with_parent(os.getppid())
    orders = msgspec.json.decode(requests.readline(), type=Orders)
    os.set_blocking(signs, False)
    asyncio.run(_listen(Runtime(orders.place.settings()), requests, orders.rests, signs))


async def _listen(
    runtime: Runtime, requests: IO[bytes], rests: dict[str, Rest], signs: int
) -> None:
    from perdure.engine.heartbeat import Heartbeat
    from perdure.engine.ownership import this_owner
    from perdure_scheduler.intake import Intake

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    _stop_at_end(requests, loop, stop)
    imported = Imported()

    def load(entry: str) -> Source:
        try:
            return load_source(entry)
        finally:
            imported.note()

    def begins(ear: Ear) -> None:
        _give(signs, Sign(ear=ear.key, thread=threading.get_native_id()))

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
        begins=begins,
        rests=rests,
        ledger=ledger_of(runtime),
    )
    beside = [
        asyncio.create_task(_give_signs(signs)),
        asyncio.create_task(_stop_when_changed(imported, stop)),
    ]
    try:
        await listener.serve(stop)
    finally:
        for task in beside:
            task.cancel()
        heartbeat.stop()


async def _give_signs(signs: int) -> None:
    while True:
        _give(signs, Sign())
        await asyncio.sleep(SIGN_EVERY_S)


def _give(signs: int, sign: Sign) -> None:
    try:
        os.write(signs, msgspec.json.encode(sign) + b"\n")
    except (BlockingIOError, BrokenPipeError):
        pass  # nobody reads: the parent is halted, or gone


def _stop_at_end(requests: IO[bytes], loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the parent says so by closing its end, as it does when it dies."""

    def wait() -> None:
        requests.read()
        loop.call_soon_threadsafe(stop.set)
        threading.Event().wait(GRACE_S)
        os._exit(1)  # the loop does not get there: nobody is left who would wait for it

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


if __name__ == "__main__":
    # What the user's modules print is no sign of life.
    signs = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.stdin.buffer, signs)
    # Threads that hang in file systems or in sources of the user's are not waited for.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)
