"""Tasks of runs that move; they count their calls."""

from __future__ import annotations

from collections import Counter

import perdure
from perdure import task, workflow

CALLS: Counter[str] = Counter()
MENDED = False


@task
def square(n: int) -> int:
    CALLS["square"] += 1
    print("squaring", n)
    return n * n


@task
def large(n: int) -> bytes:
    CALLS["large"] += 1
    return bytes([n]) * 100_000


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def last(said: str, landed: dict[str, str], data: bytes, squares: list[int]) -> list[object]:
    CALLS["last"] += 1
    if not MENDED:
        raise ValueError("not yet")
    return [said, landed["path"], len(data), len(squares)]


@workflow
def plain(n: int = 3) -> int:
    return square.bind(square.bind(n))


@workflow
def everything(n: int = 3) -> list[object]:
    said = perdure.wait_signal("go")
    landed = perdure.wait_event("landed")
    data = large.bind(n)
    again = large.bind(7)
    squares = square.map(numbers.bind(n))
    return last.options(after=again).bind(said, landed, data, squares)


@task
def add(n: int) -> int:
    return n + 1


@workflow
def asks() -> int:
    return add.bind(perdure.wait_signal("go"))


class Thawed:
    """Something that only pickle can write, and that says when it is read."""

    def __init__(self, n: object) -> None:
        self.n = n

    def __reduce__(self) -> tuple[object, ...]:
        return thaw, (1,)


def thaw(n: int) -> Thawed:
    CALLS["thawed"] += 1
    return Thawed(n)


@task
def slow_to_thaw() -> Thawed:
    return Thawed(1)


@workflow
def pickles() -> Thawed:
    return slow_to_thaw.bind()
