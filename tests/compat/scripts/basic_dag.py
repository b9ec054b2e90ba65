"""A graph with retries, and an input: as it was written for ``ray.workflow``."""

import pathlib
import sys

import ray
from ray.dag import InputNode

from perdure.compat import ray_workflow as workflow  # was: from ray import workflow

folder = pathlib.Path(sys.argv[1])


@ray.remote
def read(name: str) -> list[int]:
    return [len(name), 2, 3]


@ray.remote(max_retries=5, retry_exceptions=[ConnectionError])
def flaky(rows: list[int]) -> list[int]:
    tries = folder / "tries"
    tries.write_text(tries.read_text() + "." if tries.exists() else ".")
    if len(tries.read_text()) < 3:
        raise ConnectionError("not yet")
    return [row * 10 for row in rows]


@ray.remote(num_cpus=1)
def total(rows: list[int], extra: int) -> int:
    return sum(rows) + extra


with InputNode() as given:
    dag = total.bind(flaky.bind(read.bind(given[0])), given.extra)

if __name__ == "__main__":
    workflow.init()
    print(workflow.run(dag, "abc", extra=4, workflow_id="basic"))
    print(workflow.get_status("basic"), len((folder / "tries").read_text()))
