"""A workflow that fails and is resumed: as it was written for ``ray.workflow``."""

import pathlib
import sys

import ray

from perdure.compat import ray_workflow as workflow  # was: from ray import workflow

folder = pathlib.Path(sys.argv[1])


@ray.remote
def first(x: int) -> int:
    with (folder / "first").open("a") as file:
        file.write("x")
    return x + 1


@ray.remote
def second(x: int) -> int:
    if not (folder / "mended").exists():
        raise RuntimeError("not mended yet")
    return x * 2


if __name__ == "__main__":
    try:
        workflow.run(second.bind(first.bind(20)), workflow_id="resume")
    except workflow.WorkflowExecutionError as error:
        print(error, type(error.__cause__).__name__)
    print(workflow.get_status("resume"))
    (folder / "mended").touch()
    resumed = dict(workflow.resume_all(include_failed=True))
    print(resumed["resume"].result())  # was: ray.get(resumed["resume"])
    print(workflow.get_status("resume"), (folder / "first").read_text())
