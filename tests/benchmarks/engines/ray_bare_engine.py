"""Ray's tasks, in the release that perdure[ray] has: nothing is durable. A bound, not a peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Figures, burn, main, timed


def started() -> Any:
    """Return Ray, connected to a cluster of this process with two CPUs and a worker for each."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
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


def spread(size: int, folder: Path) -> Figures:
    ray = started()
    busy = ray.remote(burn)
    return timed(lambda: sum(ray.get([busy.remote() for _ in range(size)])), size)


if __name__ == "__main__":
    main(
        {"W1": chain, "W2": fan_out, "W3": many_runs, "W7": spread},
        {"durable": False, "cpus": 2},
        "ray",
    )
