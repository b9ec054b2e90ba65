"""concurrent.futures.ProcessPoolExecutor: nothing is durable. A bound, not a peer."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from common import Figures, burn, main, timed


def add_one(n: int) -> int:
    return n + 1


def nothing(n: int) -> int:
    return n


def busy(n: int) -> int:
    return burn()


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def chain(size: int, folder: Path) -> Figures:
    with pool() as executor:

        def work() -> int:
            value = 0
            for _ in range(size):
                value = executor.submit(add_one, value).result()
            return value

        return timed(work, size)


def fan_out(size: int, folder: Path) -> Figures:
    with pool() as executor:
        return timed(lambda: sum(executor.map(nothing, range(size))), sum(range(size)))


def spread(size: int, folder: Path) -> Figures:
    with pool() as executor:
        return timed(lambda: sum(executor.map(busy, range(size))), size)


if __name__ == "__main__":
    main({"W1": chain, "W2": fan_out, "W7": spread}, {"durable": False})
