"""Maps in chunks and with keys, imported by name in workers; items note that they ran."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from tests.acceptance.growing_steps import note_run

import perdure
from perdure import Backoff, Failure, task, workflow
from perdure.worker.context import current


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def square(x: int, folder: str = "", gate: str = "") -> int:
    note_run(folder)
    if x == 3 and gate and not os.path.exists(gate):
        raise ValueError("three is not ready")
    return x * x


@task
async def square_later(x: int) -> int:
    await asyncio.sleep(0)
    return x * x


@task
def named(x: int) -> str:
    """Return what the step is called and its key."""
    here = current()
    return f"{here.step_id} {here.idempotency_key.partition('/')[2]}"


@task
def second_time(x: int, folder: str) -> int:
    """Fail at the first try of every third item."""
    note_run(folder)
    path = os.path.join(folder, f"tried-{x}")
    if x % 3 == 0 and not os.path.exists(path):
        open(path, "w").close()
        raise RuntimeError(f"{x} fails at first")
    return x


@task(lost_retries=1, retries=1, backoff=Backoff(0))
def number_of_try(x: int, folder: str) -> int:
    """Kill the process at the first try of the last item, and fail at its second one."""
    path = os.path.join(folder, f"tried-{x}")
    tries = 1 + (os.path.getsize(path) if os.path.exists(path) else 0)
    with open(path, "a") as file:
        file.write(".")
    if x == 2 and tries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 2 and tries == 2:
        raise RuntimeError(f"{x} fails")
    return current().attempt


@task
def kinds(values: list[Any]) -> list[Any]:
    return [f"{v.type} at {v.index}" if isinstance(v, Failure) else v for v in values]


@workflow
def chunked(n: int, chunk: perdure.Static[int], folder: str = "", gate: str = "") -> list[int]:
    return square.options(chunk=chunk).map(numbers.bind(n), folder=folder, gate=gate)


@workflow
def two_stages(n: int) -> list[int]:
    """Items of chunks, one by one, and in chunks of another size."""
    squares = square.options(chunk=3, name="first").map(numbers.bind(n))
    single = square.options(name="second").map(squares)
    return square.options(chunk=2, name="third").map(single)


@workflow
def lower(words: list[str], folder: str = "") -> list[str]:
    return to_lower.options(key=str.upper).map(words, folder=folder)


@task
def to_lower(word: str, folder: str = "") -> str:
    note_run(folder)
    if word == "bad/word":
        raise ValueError("a bad word")
    return word.lower()
