"""The server's loop while nobody asks."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn

from perdure.http import quiet_server
from perdure.http.quiet_server import QuietServer


def test_server_that_waits_for_its_next_tick_ends_when_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet_server, "TICK_S", 3600.0)
    server = _server()

    async def told_while_it_waits() -> None:
        serving = asyncio.create_task(server.main_loop())
        await asyncio.sleep(0)
        await asyncio.to_thread(server.end)
        await serving

    asyncio.run(asyncio.wait_for(told_while_it_waits(), 60))


def test_server_that_has_ended_may_be_told_again() -> None:
    server = _server()
    server.end()
    asyncio.run(server.main_loop())

    server.end()

    assert server.should_exit


def _server() -> QuietServer:
    config = uvicorn.Config(lambda scope: None, log_config=None)
    config.load()
    return QuietServer(config)
