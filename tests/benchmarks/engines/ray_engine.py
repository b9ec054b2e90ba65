# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["ray==2.47.1", "numpy>=2.0", "pyarrow>=17", "setuptools<81"]
# ///
"""Ray Workflows, in the last release that had them; it does not sync what it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from common import Figures, burn, main, timed

COLD = """
import sys
import ray
from ray import workflow

@ray.remote
def answer() -> int:
    return 42

if __name__ == "__main__":
    ray.init(
        address="local",
        storage=sys.argv[1],
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
    )
    assert workflow.run(answer.bind()) == 42
"""


def started(folder: Path):
    """Return Ray, with two CPUs; a workflow has run there, so that its workers are there."""
    import ray
    from ray import workflow

    ray.init(
        address="local",
        storage=str(folder / "ray"),
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
    )
    nothing = ray.remote(lambda *_: None)
    workflow.run(nothing.bind(*(nothing.bind() for _ in range(20))))
    return ray


def chain(size: int, folder: Path) -> Figures:
    ray = started(folder)
    from ray import workflow

    @ray.remote
    def add_one(n: int) -> int:
        return n + 1

    node = add_one.bind(0)
    for _ in range(size - 1):
        node = add_one.bind(node)
    sys.setrecursionlimit(100_000)
    return timed(lambda: workflow.run(node), size)


def fan_out(size: int, folder: Path) -> Figures:
    ray = started(folder)
    from ray import workflow

    @ray.remote
    def nothing(n: int) -> int:
        return n

    @ray.remote
    def total(*numbers: int) -> int:
        return sum(numbers)

    node = total.bind(*(nothing.bind(n) for n in range(size)))
    return timed(lambda: workflow.run(node), sum(range(size)))


def many_runs(size: int, folder: Path) -> Figures:
    ray = started(folder)
    from ray import workflow

    @ray.remote
    def add_one(n: int) -> int:
        return n + 1

    def node(start: int):
        made = add_one.bind(start)
        for _ in range(4):
            made = add_one.bind(made)
        return made

    def work() -> list[int]:
        return ray.get([workflow.run_async(node(n)) for n in range(size)])

    return timed(work, [n + 5 for n in range(size)])


def large(size: int, folder: Path) -> Figures:
    import numpy

    ray = started(folder)
    from ray import workflow

    @ray.remote
    def make(mebibytes: int):
        return numpy.arange(mebibytes * 131_072, dtype=numpy.float64)

    @ray.remote
    def read(array) -> float:
        return float(array[-1])

    node = read.bind(make.bind(size))
    return timed(lambda: workflow.run(node), size * 131_072 - 1.0)


def cold(size: int, folder: Path) -> Figures:
    script = folder / "cold.py"
    script.write_text(COLD)
    begin = time.perf_counter()
    command = [sys.executable, str(script), str(folder / "ray")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ})
    return {"seconds": time.perf_counter() - begin}


def spread(size: int, folder: Path) -> Figures:
    ray = started(folder)
    from ray import workflow

    @ray.remote
    def busy(n: int) -> int:
        return burn()

    @ray.remote
    def total(*numbers: int) -> int:
        return sum(numbers)

    node = total.bind(*(busy.bind(n) for n in range(size)))
    return timed(lambda: workflow.run(node), size)


if __name__ == "__main__":
    main(
        {"W1": chain, "W2": fan_out, "W3": many_runs, "W4": large, "W6": cold, "W7": spread},
        {"store": "files, without fsync", "cpus": 2},
        "ray",
    )
