"""``async def`` attempts on one event loop, for the inline executor."""

from __future__ import annotations

import asyncio
import threading

from perdure.calls import Outcome
from perdure.worker.steps import Attempt


def run_together(attempts: list[Attempt]) -> list[Outcome]:
    """Run attempts on one event loop; on a thread of its own where this one has a loop running."""

    async def together() -> list[Outcome]:
        return list(await asyncio.gather(*(attempt.run_async() for attempt in attempts)))

    if not _has_running_loop():
        return asyncio.run(together())
    done: list[list[Outcome]] = []
    thread = threading.Thread(target=lambda: done.append(asyncio.run(together())))
    thread.start()
    thread.join()
    return done[0]


def _has_running_loop() -> bool:
    """Say whether an event loop runs in this thread, as it does in a notebook."""
    # In a function of its own: the RuntimeError must not become the context of users' errors.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
