"""A caught failure is part of the type."""

from typing import assert_type

from perdure import Failure, task, workflow


@task
def risky(x: int) -> float:
    return 1 / x


@task(catch=True, retries=1)
def caught(x: int) -> float:
    return 1 / x


@task
def describe(result: float | Failure) -> str:
    if isinstance(result, Failure):
        return f"{result.type}: {result.message} in {result.step_id} after {result.attempts}"
    return f"{result:.2f}"


@workflow
def flow(x: int) -> list[str]:
    first = risky.options(catch=True).bind(x)
    assert_type(first, float | Failure)
    second = caught.bind(x)
    assert_type(second, float | Failure)
    return [describe.bind(first), describe.bind(second), describe.bind(risky.bind(x))]


def use(failure: Failure) -> None:
    assert_type(failure.index, int | None)
    raise failure.exception()
