"""The contract of Source as tests: subclass, and provide the fixture.

class TestMySource(SourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SourceWorld: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
import pytest

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.sources import (
    LONGEST_CURSOR,
    Acknowledging,
    Batch,
    Source,
    batch_of,
)

PATIENCE_S = 30.0
"""How long a test waits for what has happened to be given."""
SOON_S = 5.0
"""How long a source that is cancelled may take to end."""
_A_MOMENT_S = 0.1


class SourceWorld(Protocol):
    """What the source listens to, and the powers over it that only a test has."""

    def source(self) -> Source:
        """Return a source that listens to it, as a new process would have it."""
        ...

    def happen(self) -> None:
        """Let one thing happen, unlike all before it, that is one arrival."""
        ...


@asynccontextmanager
async def listening(source: Source, cursor: str | None) -> AsyncIterator[AsyncIterator[Batch]]:
    """Listen, and let go at the end as the listener does: cancelled where it waits."""
    given = source.listen(cursor)

    async def batches() -> AsyncIterator[Batch]:
        async for each in given:
            yield batch_of(each)

    iterator = batches()
    try:
        yield iterator
    finally:
        for each in (iterator, given):
            close = getattr(each, "aclose", None)
            if close is not None:
                await close()


class Heard:
    """What one listening gave, and the cursor after it: as if all of it had been committed."""

    def __init__(self, cursor: str | None) -> None:
        self.arrivals: list[Arrival] = []
        self.cursor = cursor

    def note(self, batch: Batch) -> None:
        """Take a batch as committed."""
        self.arrivals += batch.arrivals
        self.cursor = batch.cursor if batch.cursor is not None else self.cursor

    @property
    def keys(self) -> list[str]:
        """Return the keys, in their order."""
        return [each.key for each in self.arrivals]


def hear(source: Source, cursor: str | None, count: int, *known: str) -> Heard:
    """Return what a listening gives until it has given ``count`` keys that are not known."""

    async def run() -> Heard:
        heard = Heard(cursor)
        async with listening(source, cursor) as batches:
            while len(set(heard.keys) - set(known)) < count:
                heard.note(await asyncio.wait_for(anext(batches), PATIENCE_S))
        return heard

    return asyncio.run(run())


class SourceContract:
    """What every source does."""

    @pytest.fixture
    def world(self) -> SourceWorld:
        """Return a world in which nothing has happened yet."""
        raise NotImplementedError("provide the fixture `world` in the subclass")

    def test_what_happens_arrives_once_each(self, world: SourceWorld) -> None:
        for _ in range(3):
            world.happen()

        heard = hear(world.source(), None, 3)

        assert len(heard.keys) == len(set(heard.keys)) == 3

    def test_what_happens_while_it_listens_arrives(self, world: SourceWorld) -> None:
        source = world.source()

        async def run() -> list[str]:
            async with listening(source, None) as batches:
                waiting = asyncio.ensure_future(_next_arrivals(batches))
                await asyncio.wait({waiting}, timeout=_A_MOMENT_S)
                assert not waiting.done()
                world.happen()
                return [each.key for each in await asyncio.wait_for(waiting, PATIENCE_S)]

        assert len(asyncio.run(run())) == 1

    def test_what_happened_while_nobody_listened_arrives(self, world: SourceWorld) -> None:
        world.happen()
        first = hear(world.source(), None, 1)
        world.happen()
        world.happen()

        second = hear(world.source(), first.cursor, 2, *first.keys)

        assert len(set(second.keys) - set(first.keys)) == 2

    def test_what_was_not_committed_is_given_again_with_the_same_keys(
        self, world: SourceWorld
    ) -> None:
        world.happen()
        committed = hear(world.source(), None, 1)
        world.happen()
        world.happen()
        lost = _first_batch(world.source(), committed)

        again = hear(world.source(), committed.cursor, 2, *committed.keys)

        assert set(lost) <= set(again.keys)

    def test_order_is_the_same_each_time(self, world: SourceWorld) -> None:
        for _ in range(4):
            world.happen()

        first, second = hear(world.source(), None, 4), hear(world.source(), None, 4)

        assert first.keys == second.keys

    def test_keys_name_one_thing_for_ever(self, world: SourceWorld) -> None:
        world.happen()
        first = hear(world.source(), None, 1)
        world.happen()
        second = hear(world.source(), first.cursor, 1, *first.keys)

        all_of_it = hear(world.source(), None, 2)

        assert set(all_of_it.keys) == set(first.keys) | set(second.keys)

    def test_facts_are_json(self, world: SourceWorld) -> None:
        world.happen()

        for arrival in hear(world.source(), None, 1).arrivals:
            as_text = msgspec.json.encode(arrival.facts)
            assert msgspec.json.decode(as_text) == arrival.facts

    def test_cursor_is_text_that_can_be_stored(self, world: SourceWorld) -> None:
        world.happen()

        cursor = hear(world.source(), None, 1).cursor

        assert cursor is None or 0 < len(cursor.encode()) <= LONGEST_CURSOR

    def test_two_listen_at_once_and_both_hear_all(self, world: SourceWorld) -> None:
        source = world.source()
        world.happen()

        async def run() -> tuple[list[str], list[str]]:
            return await asyncio.gather(_keys(source), _keys(source))

        one, other = asyncio.run(run())

        assert one == other

    def test_cancelled_while_it_waits_it_ends_soon(self, world: SourceWorld) -> None:
        source = world.source()
        world.happen()

        async def run() -> None:
            async with listening(source, None) as batches:
                await asyncio.wait_for(_next_arrivals(batches), PATIENCE_S)
                waiting = asyncio.ensure_future(_next_arrivals(batches))
                await asyncio.wait({waiting}, timeout=_A_MOMENT_S)
                waiting.cancel()
                done, _ = await asyncio.wait({waiting}, timeout=SOON_S)
                assert done, f"it has not ended {SOON_S:g} s after it was cancelled"
                assert waiting.cancelled(), "it has swallowed asyncio.CancelledError"

        asyncio.run(run())

    def test_it_lets_others_run(self, world: SourceWorld) -> None:
        source = world.source()
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            loop = asyncio.get_running_loop()
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                longest = max(longest, loop.time() - before)

        async def run() -> None:
            watching = asyncio.ensure_future(watch())
            async with listening(source, None) as batches:
                waiting = asyncio.ensure_future(_next_arrivals(batches))
                await asyncio.wait({waiting}, timeout=_A_MOMENT_S)
                world.happen()
                await asyncio.wait_for(waiting, PATIENCE_S)
            watching.cancel()

        asyncio.run(run())

        assert longest < SOON_S, "it blocks: let what waits run in a thread (asyncio.to_thread)"

    def test_committed_may_be_told_twice(self, world: SourceWorld) -> None:
        source = world.source()
        if not isinstance(source, Acknowledging):
            pytest.skip("it does not ask what has been committed")
        world.happen()
        first = hear(source, None, 1)

        for _ in range(2):
            asyncio.run(_tell(source, first.arrivals))
        world.happen()

        assert hear(world.source(), first.cursor, 1, *first.keys).keys


async def _tell(source: Acknowledging, arrivals: list[Arrival]) -> None:
    await source.committed(arrivals)


async def _next_arrivals(batches: AsyncIterator[Batch]) -> tuple[Arrival, ...]:
    """Return the arrivals of the next batch that has any."""
    while not (batch := await anext(batches)).arrivals:
        pass
    return batch.arrivals


async def _keys(source: Source) -> list[str]:
    async with listening(source, None) as batches:
        arrivals = await asyncio.wait_for(_next_arrivals(batches), PATIENCE_S)
        return [each.key for each in arrivals]


def _first_batch(source: Source, committed: Heard) -> list[str]:
    """Return new keys of a batch that is never committed: who listened died."""

    async def run() -> list[str]:
        async with listening(source, committed.cursor) as batches:
            while True:
                given = await asyncio.wait_for(_next_arrivals(batches), PATIENCE_S)
                if new := [each.key for each in given if each.key not in committed.keys]:
                    return new

    return asyncio.run(run())
