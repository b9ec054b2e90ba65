"""A run whose values lie in a bucket; its steps say in a file that they ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from perdure import task, workflow
from perdure.client import open_store

LEDGER = "BUCKET_STEPS_LEDGER"
RUN = "bucket"


def _ran(step: str) -> None:
    with Path(os.environ[LEDGER]).open("a") as file:
        file.write(f"{step}\n")


@task
def make(n: int) -> bytes:
    _ran("make")
    return bytes([n]) * 8_400_000  # more than one part


@task
def again(data: bytes) -> bytes:
    _ran("again")
    return bytes(data)


@task
def count(one: bytes, two: bytes) -> int:
    _ran("count")
    return len(one) + len(two)


@workflow
def sizes(n: int = 7) -> int:
    made = make.bind(n)
    return count.bind(made, again.bind(made))


if __name__ == "__main__":
    from tests.crash import bucket_steps  # by its name: the test resumes it from another process

    store, blobs = sys.argv[1:]
    with open_store(store, blobs=blobs, executor="inline") as client:
        print(client.run(bucket_steps.sizes, run_id=RUN))
