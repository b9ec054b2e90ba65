"""Functions that the executors' contract runs: plain ones, which any worker can import."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import threading
from typing import Any

from perdure.worker.context import current


def add(left: float, right: float = 1) -> float:
    """Return the sum."""
    return left + right


def pack(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments as they came."""
    return args, kwargs


def grow(items: list[int]) -> list[int]:
    """Change the argument in place and return it."""
    items.append(len(items))
    return items


async def grow_later(items: list[int]) -> list[int]:
    """Change the argument in place and return it, in a coroutine."""
    return grow(items)


def is_same(left: object, right: object) -> bool:
    """Say whether two arguments are one object."""
    return left is right


def fail(message: str = "no luck") -> None:
    """Raise ValueError."""
    raise ValueError(message)


def need(module: str) -> None:
    """Import a module; without a name raise what an import of one raises, as a program may."""
    if not module:
        raise ModuleNotFoundError("what is not there is for me to say")
    importlib.import_module(module)


def leave() -> None:
    """Raise SystemExit, which in a step is an error like any other."""
    sys.exit(3)


def speak(text: str) -> str:
    """Print to both streams and log."""
    print(f"out: {text}")  # noqa: T201 - what a step prints is the subject
    print(f"err: {text}", file=sys.stderr)  # noqa: T201
    logging.getLogger("contract").warning("log: %s", text)
    return text


def identify() -> tuple[str, str, int, int, str, bool]:
    """Return what ``current()`` says."""
    here = current()
    return (
        here.run_id,
        here.step_id,
        here.generation,
        here.attempt,
        here.idempotency_key,
        here.should_stop(),
    )


def saves(n: int) -> int:
    """Save and tell so many times."""
    here = current()
    for at in range(n):
        here.save(n * 10 + at, at=at)
        here.progress(at, n)
    return n


async def saves_later(n: int) -> int:
    """Save in a coroutine, and in a thread of its own."""
    import asyncio

    here = current()
    for at in range(n):
        if at % 2:
            await asyncio.to_thread(here.save, at, at=at)
        else:
            here.save(at, at=at)
    return n


def fork_and_return() -> tuple[str, int]:
    """Return in two processes."""
    child = os.fork()
    if child == 0:
        return "child", 0
    return "parent", _exit_status(child)


def fork_and_raise() -> tuple[str, int]:
    """Return in one process and raise in the other."""
    child = os.fork()
    if child == 0:
        raise ValueError("the child has no luck")
    return "parent", _exit_status(child)


async def fork_and_wait() -> tuple[str, int]:
    """Fork on an event loop, and await in both processes."""
    child = os.fork()
    if child == 0:
        await asyncio.sleep(0.01)
        return "child", 0
    await asyncio.to_thread(os.waitid, os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return "parent", _exit_status(child)


def _exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make_lock() -> dict[str, Any]:
    """Return a value that has no encoding, inside one that has."""
    return {"model": {"lock": threading.Lock()}}


def make_bytes(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(size)


def length(data: bytes) -> int:
    """Return the length."""
    return len(data)


def is_unlucky(error: BaseException) -> bool:
    """Admit ValueErrors that speak of luck."""
    return isinstance(error, ValueError) and "luck" in str(error)


def is_confused(error: BaseException) -> bool:
    """Raise, as a predicate should not."""
    raise RuntimeError("which luck?")


_waiting: list[asyncio.Event] = []


async def meet(number: int, of: int) -> int:
    """Return ``number`` once ``of`` calls are here at the same time."""
    print(f"here is {number}")  # noqa: T201 - what a step prints is the subject
    event = asyncio.Event()
    _waiting.append(event)
    if len(_waiting) == of:
        for other in _waiting:
            other.set()
        _waiting.clear()
    await event.wait()
    return number


async def fail_later() -> None:
    """Raise ValueError from a coroutine."""
    await asyncio.sleep(0)
    raise ValueError("no luck later")


async def identify_later() -> tuple[str, str]:
    """Return what ``current()`` says after other coroutines have run."""
    await asyncio.sleep(0)
    here = current()
    return here.run_id, here.step_id
