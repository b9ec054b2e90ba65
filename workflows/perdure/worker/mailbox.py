"""Where workers on Ray leave news for their coordinator, and ask it something.

A Ray actor, which the coordinator owns: it is gone when that is. Workers need no way to the
coordinator itself, which may be outside of the cluster. Ray is not imported here.
"""

from __future__ import annotations

import asyncio


class Mailbox:
    """Keeps what is said until the coordinator takes it. Owned by one event loop."""

    def __init__(self) -> None:
        self._news: list[bytes] = []
        self._questions: list[tuple[int, bytes]] = []
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._wishes: set[bytes] = set()
        self._hearing: dict[bytes, asyncio.Future[bool]] = {}
        self._come = asyncio.Event()
        self._asked = 0

    async def post(self, *news: bytes) -> None:
        """Leave news; what one process leaves is kept in order."""
        self._news += news
        self._come.set()

    async def ask(self, question: bytes) -> bytes:
        """Ask the coordinator, and wait for its answer."""
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._questions.append((number, question))
        self._come.set()
        return await answer

    async def look(self, call: bytes) -> bool:
        """Say whether a call may hand over, or is to end."""
        return call in self._wishes

    async def hear(self, call: bytes) -> bool:
        """Wait until a call is to end: True; or until it is over: False."""
        heard = self._hearing.setdefault(call, asyncio.get_running_loop().create_future())
        return await heard

    async def take(self) -> tuple[list[bytes], list[tuple[int, bytes]]]:
        """Wait until there is something, and give it away: news and questions."""
        await self._come.wait()
        self._come.clear()
        taken = self._news, self._questions
        self._news, self._questions = [], []
        return taken

    async def answer(self, number: int, answer: bytes) -> None:
        """Answer the question of that number."""
        waiting = self._answers.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def wish(self, call: bytes) -> None:
        """Wish that a call ends early, if it looks for that."""
        self._wishes.add(call)

    async def interrupt(self, call: bytes) -> None:
        """Have a call end."""
        self._wishes.add(call)
        self._hear(call, True)

    async def forget(self, calls: list[bytes]) -> None:
        """Forget what was wished of calls that are over."""
        self._wishes.difference_update(calls)
        for call in calls:
            self._hear(call, False)
            self._hearing.pop(call, None)

    def _hear(self, call: bytes, is_asked: bool) -> None:
        heard = self._hearing.setdefault(call, asyncio.get_running_loop().create_future())
        if not heard.done():
            heard.set_result(is_asked)
