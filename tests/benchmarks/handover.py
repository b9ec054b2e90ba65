"""A large array from a step on one node of Ray to the next on another, against Ray's object store.

    python -m tests.benchmarks.handover
    python -m tests.benchmarks.handover --mib 64 --bucket

perdure's way is the blob: the worker that made the array writes it, its step is committed, and the
worker that needs it maps the file, or fetches it from the bucket. Ray's way is its object store:
memory of the node, copied to the node that needs it. Nodes are raylets of one machine, and the
bucket is a server of moto's on it: no network is between them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.buckets import serving
from tests.benchmarks.rounds import circumstances

ENGINES_FOLDER = Path(__file__).with_name("engines")
OBJECT_STORE_BYTES = 2 << 30
Figures = dict[str, float]


def by_perdure(client: Any, mebibytes: int, other: str) -> Figures:
    """Hand an array over by perdure, from place ``a``; say what it took, in seconds."""
    import common
    import perdure_steps

    name, first = secrets.token_hex(4), secrets.randbits(48)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        with client:
            perdure_steps.handed.run(mebibytes, str(ledger), first, "a", other, run_id=name)
        (_, made), (_, arrived) = common.lines(ledger)
    rows = {row.step_id: row for row in client.runtime.store.list_steps(name)}
    kept = rows["make_new"].finished_at.timestamp()
    return {"kept": kept - made, "first byte": arrived - kept, "whole": arrived - made}


def by_ray(ray: Any, mebibytes: int, other: str) -> Figures:
    """Hand an array over by Ray's object store; nothing is durable."""
    import common
    import perdure_steps

    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        make, read = (
            ray.remote(task.function).options(num_cpus=1, label_selector={"place": place})
            for task, place in ((perdure_steps.make_new, "a"), (perdure_steps.read, other))
        )
        array = make.remote(mebibytes, str(ledger), secrets.randbits(48))
        ray.wait([array], fetch_local=False)
        kept = time.time()  # noqa: TID251 - compared with other processes' clocks
        ray.get(read.remote(array, str(ledger)))
        (_, made), (_, arrived) = common.lines(ledger)
    return {"kept": kept - made, "first byte": arrived - kept, "whole": arrived - made}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bucket", action="store_true", help="blobs in a bucket")
    options = parser.parse_args()
    sys.path.insert(0, str(ENGINES_FOLDER))
    import ray
    from examples.local_ray import LocalCluster

    import perdure

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bucket = stack.enter_context(serving()) if options.bucket else None
        path = os.pathsep.join([str(ENGINES_FOLDER), str(Path.cwd())])
        cluster = stack.enter_context(LocalCluster({"PYTHONPATH": path}))
        for place in "ab":
            cluster.add(labels={"place": place}, object_store_bytes=OBJECT_STORE_BYTES)
        ray.init(cluster.address, log_to_driver=False)
        blobs = bucket or str(folder)
        os.environ["PERDURE_BLOBS_CACHE"] = str(folder / "copies")
        own = perdure.open(str(folder / "own.db"), blobs=f"{blobs}/own", executor="ray")
        # What another machine does not have: the copy that the one which put a blob keeps of it.
        os.environ["PERDURE_BLOBS_CACHE_SIZE"] = "0"
        far = perdure.open(str(folder / "far.db"), blobs=f"{blobs}/far", executor="ray")
        ways: dict[str, Callable[[int], Figures]] = {
            "perdure, one node": lambda mib: by_perdure(own, mib, "a"),
            "Ray, one node": lambda mib: by_ray(ray, mib, "a"),
            "perdure, two nodes": lambda mib: by_perdure(far, mib, "b"),
            "Ray, two nodes": lambda mib: by_ray(ray, mib, "b"),
        }
        for hand_over in ways.values():
            hand_over(1)  # the workers are there, and have imported what they need
        found: dict[str, list[Figures]] = {name: [] for name in ways}
        for number in range(options.rounds):
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                found[name].append(ways[name](options.mib))
        print(f"{options.mib} MiB, {circumstances(options.rounds)}\n")
        print("| way | kept s | first byte s | whole s | range s |\n|---|---|---|---|---|")
        for name, rounds in found.items():
            whole = sorted(each["whole"] for each in rounds)
            middle = (median(each[what] for each in rounds) for what in rounds[0])
            cells = " | ".join(f"{seconds:.3f}" for seconds in middle)
            print(f"| {name} | {cells} | {whole[0]:.3f}-{whole[-1]:.3f} |")


if __name__ == "__main__":
    main()
