"""Runs and steps as handles."""

from typing import assert_type

import perdure
from perdure import Run, Step, task, workflow


@task
def f(x: int) -> int:
    return x


@workflow
def flow(x: int) -> int:
    return f.bind(x)


async def wait() -> None:
    run = flow.start(x=1, run_id="r-1")
    assert_type(run, Run)
    print(await run)


def use() -> None:
    run = flow.submit(x=2)
    if run.status == "SUCCEEDED":
        print(run.result(timeout=3), run.tags, run.inputs, run.created_at)
    step = run["f"]
    assert_type(step, Step)
    print(step.result(), step.why(), step.logs(), [each.status for each in run.steps(name="f*")])
    assert_type(perdure.get_run("r-1"), Run)
    assert_type(perdure.resume("r-1"), Run)
    assert_type(perdure.list_runs(status="FAILED", workflow="flow", limit=3), list[Run])
    assert_type(perdure.why("r-1", "f"), str)
    perdure.resume_all(failed=True)
    perdure.cancel("r-1")
    perdure.pause("r-1")
    perdure.delete("r-1")
    assert_type(perdure.start(flow, inputs={"x": 1}), Run)
    assert_type(perdure.submit(f.bind(3)), Run)
