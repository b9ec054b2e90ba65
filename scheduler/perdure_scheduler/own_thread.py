"""Work that may never come back, beside an event loop that must go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Return the result of ``work`` when it is there.

    ``asyncio.to_thread`` has a few threads for all: work that hangs, as a look at a share that is
    gone does, would take one from the others for ever, and hold the process when it ends.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():  # cancelled: nobody waits for it
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failed: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            failed = error
        except BaseException as error:  # noqa: BLE001 - it is for this thread, and ends no other
            failed = RuntimeError(f"{type(error).__name__}: {error}")
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:  # the loop is closed: nobody waits for it
            pass

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def in_own_loop(make: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> T:
    """Return what a coroutine returns that has a thread and an event loop of its own.

    Code of others may block where it should await: here it holds up nobody but itself. Cancelled,
    it is cancelled there; it is not waited for then, since it may be one of those that block.
    """
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None
        begun.append((asyncio.get_running_loop(), task))
        return await make()

    try:
        return await in_own_thread(lambda: asyncio.run(run()), name=name)
    except asyncio.CancelledError:
        for loop, task in begun:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(task.cancel)
        raise
