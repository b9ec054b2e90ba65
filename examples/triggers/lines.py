"""A source of one's own: each line that is appended to a file makes a run.

Run it:

    echo '{"item": "tea", "count": 2}' >> orders.jsonl
    perdure up examples/triggers/lines.py
    perdure trigger arrivals ordered
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from perdure import Arrival, Batch, Listen, Trigger, event, task, workflow

AT_ONCE = 200
EVERY_S = 0.5


class Lines:
    """The lines of a file to which others append JSON. Its cursor is a position in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def listen(self, cursor: str | None) -> AsyncIterator[Batch]:
        """Give the lines after the cursor, then wait for more."""
        at = int(cursor or 0)
        while True:
            # To read a file blocks: in a thread it can be left alone when the listening ends.
            lines = await asyncio.to_thread(self.read, at)
            if lines:
                at = lines[-1][1]
                yield Batch(arrivals=tuple(self.arrival(*each) for each in lines), cursor=str(at))
            else:
                await asyncio.sleep(EVERY_S)

    def read(self, at: int) -> list[tuple[int, int, bytes]]:
        """Return whole lines from a position on, each with where it begins and ends."""
        if not self.path.exists():
            return []
        found = []
        with self.path.open("rb") as file:
            file.seek(at)
            while len(found) < AT_ONCE and (line := file.readline()).endswith(b"\n"):
                found.append((at, at + len(line), line))
                at += len(line)
        return found

    def arrival(self, begin: int, end: int, line: bytes) -> Arrival:
        """Return a line as an arrival: it stays where it is, so its place names it for ever."""
        try:
            facts = {"order": json.loads(line)}
        except ValueError:  # to raise would stop all lines after it: it is let in, and filtered
            facts = {"text": line.decode(errors="replace")}
        return Arrival(key=f"line at {begin}", facts=facts)


orders = Lines(Path(os.environ.get("ORDERS", "orders.jsonl")))


@task
def pack(item: str, count: int) -> str:
    """Stand for work."""
    return f"{count} x {item}"


@workflow
def ship(item: str, count: int) -> str:
    """Pack one order."""
    return pack.bind(item, count)


ordered = Trigger(
    "ordered",
    ship,
    on=Listen(orders),
    where=event.order.count > 0,
    inputs={"item": event.order.item, "count": event.order.count},
)
