# /// script
# requires-python = ">=3.11"
# dependencies = ["dask[distributed]==2026.7.0"]
# ///
"""Dask's distributed scheduler: nothing is durable. A bound, not a peer."""

from __future__ import annotations

from pathlib import Path

from common import Figures, burn, main, timed


def client():
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    return Client(cluster)


def nothing(n: int) -> int:
    return n


def add_one(n: int) -> int:
    return n + 1


def busy(n: int) -> int:
    return burn()


def chain(size: int, folder: Path) -> Figures:
    with client() as dask:

        def work() -> int:
            future = dask.submit(nothing, 0)
            for _ in range(size):
                future = dask.submit(add_one, future)
            return future.result()

        return timed(work, size)


def fan_out(size: int, folder: Path) -> Figures:
    with client() as dask:
        return timed(
            lambda: dask.submit(sum, dask.map(nothing, range(size))).result(), sum(range(size))
        )


def spread(size: int, folder: Path) -> Figures:
    with client() as dask:
        return timed(lambda: dask.submit(sum, dask.map(busy, range(size))).result(), size)


if __name__ == "__main__":
    main({"W1": chain, "W2": fan_out, "W7": spread}, {"durable": False}, "distributed")
