"""A continuation, recursive: as it was written for ``ray.workflow``."""

import ray

from perdure.compat import ray_workflow as workflow  # was: from ray import workflow


@ray.remote
def mul(a: int, b: int) -> int:
    return a * b


@ray.remote
def factorial(n: int):
    if n == 1:
        return 1
    return workflow.continuation(mul.bind(n, factorial.bind(n - 1)))


if __name__ == "__main__":
    print(workflow.run(factorial.bind(6), workflow_id="factorial"))
    print(workflow.get_output("factorial", task_id="__main__.factorial"))
    print(workflow.list_all({"SUCCESSFUL"}))
