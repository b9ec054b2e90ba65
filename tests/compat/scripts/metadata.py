"""Names, metadata and caught errors: as it was written for ``ray.workflow``."""

import ray

from perdure.compat import ray_workflow as workflow  # was: from ray import workflow


@workflow.options(task_id="source", metadata={"kind": "source"})
@ray.remote
def source() -> int:
    return 20


@ray.remote
def divide(a: int, b: int) -> float:
    return a / b


@ray.remote
def told(pair: tuple) -> str:
    value, error = pair
    return f"failed: {error}" if error is not None else f"value: {value}"


if __name__ == "__main__":
    careful = divide.options(**workflow.options(task_id="divide", catch_exceptions=True))
    dag = told.bind(careful.bind(source.bind(), 0))
    print(workflow.run(dag, workflow_id="metadata", metadata={"owner": "ada"}))
    of_run = workflow.get_metadata("metadata")
    print(of_run["status"], of_run["user_metadata"], "end_time" in of_run["stats"])
    of_task = workflow.get_metadata("metadata", "divide")
    print(of_task["workflow_refs"], of_task["task_options"]["catch_exceptions"])
    print(workflow.get_metadata("metadata", "source")["user_metadata"])
