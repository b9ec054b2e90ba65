"""Ray's tasks, in the release that perdure[ray] has: nothing is durable. A bound, not a peer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from common import Figures, burn, main, timed

HERE = Path(__file__).resolve().parent
OBJECT_STORE_BYTES = 2 << 30


def started() -> Any:
    """Return Ray, connected to a node of this machine with two CPUs and a worker for each."""
    import ray

    sys.path.append(str(HERE.parents[2]))
    from examples.local_ray import LocalCluster

    cluster = LocalCluster({"PYTHONPATH": str(HERE)})  # ends with this process
    cluster.add(cpus=2, object_store_bytes=OBJECT_STORE_BYTES)
    ray.init(cluster.address, log_to_driver=False)
    here = ray.remote(lambda: None)
    ray.get([here.remote() for _ in range(20)])
    return ray


def chain(size: int, folder: Path) -> Figures:
    ray = started()
    add_one = ray.remote(lambda n: n + 1)

    def work() -> int:
        value = 0
        for _ in range(size):
            value = add_one.remote(value)
        return ray.get(value)

    return timed(work, size)


def fan_out(size: int, folder: Path) -> Figures:
    ray = started()
    nothing = ray.remote(lambda n: n)
    total = ray.remote(lambda *numbers: sum(numbers))
    return timed(
        lambda: ray.get(total.remote(*(nothing.remote(n) for n in range(size)))), sum(range(size))
    )


def many_runs(size: int, folder: Path) -> Figures:
    ray = started()
    add_one = ray.remote(lambda n: n + 1)

    def work() -> list[int]:
        values = list(range(size))
        for _ in range(5):
            values = [add_one.remote(value) for value in values]
        return ray.get(values)

    return timed(work, [n + 5 for n in range(size)])


def large(size: int, folder: Path) -> Figures:
    import numpy

    ray = started()
    make = ray.remote(lambda: numpy.arange(size * 131_072, dtype=numpy.float64))
    read = ray.remote(lambda array: float(array[-1]))
    return timed(lambda: ray.get(read.remote(make.remote())), size * 131_072 - 1.0)


def spread(size: int, folder: Path) -> Figures:
    ray = started()
    busy = ray.remote(burn)
    return timed(lambda: sum(ray.get([busy.remote() for _ in range(size)])), size)


if __name__ == "__main__":
    main(
        {"W1": chain, "W2": fan_out, "W3": many_runs, "W4": large, "W7": spread},
        {"durable": False, "cpus": 2},
        "ray",
    )
