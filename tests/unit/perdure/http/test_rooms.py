"""What waits for a slow store, or a slow import, holds up nothing else."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from perdure.http import app
from perdure.http.app import Rooms
from perdure.http.operations import Room, Said
from perdure.http.problems import Refused


@asynccontextmanager
async def crowded(rooms: Rooms, room: Room, number: int) -> AsyncIterator[None]:
    """Let so many requests wait in a room for what takes as long as the block."""
    gate = threading.Event()

    def wait() -> Said:
        gate.wait(30)
        return Said(value="late")

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(rooms.run, room, wait)
        await anyio.wait_all_tasks_blocked()
        try:
            yield
        finally:
            gate.set()


def at_once() -> Said:
    return Said(value="now")


@pytest.mark.parametrize("slow", [Room.STORE, Room.CHILD])
def test_slow_room_holds_up_no_other(slow: Room) -> None:
    async def main() -> None:
        rooms = Rooms()
        async with crowded(rooms, slow, 20):
            for room in {Room.NOTHING, Room.STORE, Room.CHILD} - {slow}:
                with anyio.fail_after(10):
                    assert (await rooms.run(room, at_once)).value == "now"

    anyio.run(main)


def test_crowded_room_sends_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_WAITING", 5)

    async def main() -> None:
        rooms = Rooms()
        async with crowded(rooms, Room.STORE, 20):
            with pytest.raises(Refused, match="wait already") as refused:
                await rooms.run(Room.STORE, at_once)
        assert refused.value.problem.status == 503
        assert (await rooms.run(Room.STORE, at_once)).value == "now"

    anyio.run(main)


def test_readiness_is_told_in_time_though_the_store_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "READY_WITHIN_S", 0.05)
    gate = threading.Event()

    def hang() -> Said:
        gate.wait(30)
        return Said(value="late")

    async def main() -> None:
        rooms = Rooms()
        for _ in range(3):
            with pytest.raises(Refused, match="does not answer"):
                await rooms.run(Room.READINESS, hang)
        gate.set()

    anyio.run(main)
