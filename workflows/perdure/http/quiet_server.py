"""A uvicorn that does next to nothing while nobody asks."""

from __future__ import annotations

import asyncio
import contextlib

import uvicorn

TICK_S = 1.0
"""How often the date of answers is moved on. uvicorn's own loop ticks ten times as often, to see
that it is to end; that was a third of what ``perdure up`` used while nothing was due."""


class QuietServer(uvicorn.Server):
    """Ticks once a second, and is told when to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Tick until it is over."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), TICK_S)

    def end(self) -> None:
        """End it soon, from any thread. Idempotent."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._told.set)
