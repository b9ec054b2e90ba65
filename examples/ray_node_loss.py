"""300 steps on a Ray cluster of three nodes, of which two are lost in the middle.

    python examples/ray_node_loss.py

A picture of the Mandelbrot set, in 99 strips: each is planned on a CPU, computed on a "GPU" (a
node says that it has one, which is all that Ray asks for) and counted on a CPU again. The three
nodes are processes of this machine: a head, one with the GPU, one with CPUs. A third on the way the
node with the GPU is killed with all its processes, two thirds on the way the other one; each time
a new one takes its place. What was finished is not computed again.

How often each step ran is counted outside of perdure: every step appends a line to a file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import perdure
from perdure import Static, current, task, workflow

INSTALL = "pip install 'perdure[ray]'"
STRIPS, WIDTH, DEPTH = 99, 60, 100
LOSSES = 5
Points = list[complex]


def begun(ledger: str) -> None:
    """Append a line to the file of what ran, also if this process dies right after."""
    with Path(ledger).open("a") as file:
        file.write(f"{current().step_id}\n")


def lines_of(ledger: Path) -> list[str]:
    """Return the steps that ran, as often as they did."""
    return ledger.read_text().split() if ledger.exists() else []


def points_of(strip: int, width: int = WIDTH) -> Points:
    """Return the points of a strip of the plane: two lines of them."""
    ys = (-1.2 + 2.4 * (2 * strip + line) / (2 * STRIPS) for line in range(2))
    return [complex(-2.1 + 2.8 * x / width, y) for y in ys for x in range(width)]


def steps_to_leave(c: complex, depth: int = DEPTH) -> int:
    """Return after how many steps z*z + c is away from the origin; ``depth`` if it stays."""
    z = 0j
    for n in range(depth):
        if abs(z) > 2:
            return n
        z = z * z + c
    return depth


@task(cpus=1, lost_retries=LOSSES)
def plan(strip: int, ledger: str) -> Points:
    """Return the points of a strip."""
    begun(ledger)
    return points_of(strip)


@task(cpus=0, gpus=1, lost_retries=LOSSES)
def compute(points: Points, ledger: str) -> list[int]:
    """Return how long each point stays."""
    begun(ledger)
    return [steps_to_leave(point) for point in points]


@task(cpus=1, lost_retries=LOSSES)
def inside(stays: list[int], ledger: str) -> int:
    """Return how many points never leave."""
    begun(ledger)
    return stays.count(DEPTH)


@task(cpus=1, lost_retries=LOSSES)
def pick(counts: list[int], half: int, ledger: str) -> int:
    """Add up the strips of one half."""
    begun(ledger)
    return sum(counts[half::2])


@task(cpus=1, lost_retries=LOSSES)
def add(left: int, right: int, ledger: str) -> int:
    """Return how many points of the picture never leave."""
    begun(ledger)
    return left + right


@workflow
def mandelbrot(ledger: str, strips: Static[int] = STRIPS) -> int:
    """CPU to GPU to CPU for each strip: 297 steps, and three that add up."""
    counts = [
        inside.bind(compute.bind(plan.bind(strip, ledger), ledger), ledger)
        for strip in range(strips)
    ]
    return add.bind(pick.bind(counts, 0, ledger), pick.bind(counts, 1, ledger), ledger)


def expected() -> int:
    """Return what plain Python comes to."""
    every = (steps_to_leave(point) for strip in range(STRIPS) for point in points_of(strip))
    return sum(steps == DEPTH for steps in every)


def wait_for(run: perdure.Run, share: float) -> set[str]:
    """Wait until so much of a run is committed; return which steps are."""
    while True:
        steps = run.steps()
        done = {step.id for step in steps if step.status == "SUCCEEDED"}
        if len(done) >= share * len(steps) or run.status == "FAILED":
            return done
        time.sleep(0.05)


def main() -> int:
    """Run it, lose two nodes, and say what ran again."""
    try:
        import ray  # noqa: F401
    except ImportError:
        print(f"this example needs Ray: {INSTALL}")
        return 1
    from local_ray import LocalCluster

    folder = Path(tempfile.mkdtemp(prefix="ray-node-loss-"))
    ledger = folder / "ledger"
    store = str(folder / "perdure.db")
    losses: list[tuple[set[str], int]] = []
    with LocalCluster({"PYTHONPATH": os.pathsep.join(sys.path)}) as cluster:
        nodes = cluster.add(cpus=0, gpus=1), cluster.add(cpus=2)
        with perdure.open(store, executor="ray", ray_address=cluster.address) as client:
            run = client.start(mandelbrot, ledger=str(ledger), run_id="picture")
            print(f"{len(run.steps())} steps on 3 nodes")
            for share, node in zip((1 / 3, 2 / 3), nodes, strict=True):
                done = wait_for(run, share)
                losses.append((done, len(lines_of(ledger))))
                cluster.replace(node)
                print(f"lost node {node.id[:12]} when {len(done)} steps were done")
            result = run.result()
            for step in run.steps():
                if len(step.attempts) > 1:
                    print(step.why())
    ran = lines_of(ledger)
    again = sum(len(done & set(ran[before:])) for done, before in losses)
    print(f"steps: {len(set(ran))}, of which more than once: {len(ran) - len(set(ran))}")
    print(f"finished steps that ran again: {again}")
    verdict = "right" if result == expected() else f"WRONG: it is {expected()}"
    print(f"nodes lost: 2; points inside: {result} ({verdict})")
    return 0 if result == expected() else 1


if __name__ == "__main__":
    sys.exit(main())
