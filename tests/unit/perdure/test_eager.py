from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from perdure import (
    DefinitionError,
    Failure,
    NotSerializable,
    Secret,
    current,
    execute,
    task,
    workflow,
)
from perdure.errors import NodeUse


@task
def numbers() -> list[int]:
    return [1, 2, 3]


@task
def drain(values: list[int]) -> int:
    total = sum(values)
    values.clear()
    return total


@task
async def slow_double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_each_consumer_gets_a_copy_of_its_own() -> None:
    @workflow
    def w() -> Any:
        made = numbers.bind()
        return [drain.bind(made), drain.bind(made), made]

    assert w() == [6, 6, [1, 2, 3]]


def test_each_consumer_of_a_constant_gets_a_copy_of_its_own() -> None:
    shared = [4, 5]

    assert execute([drain.bind(shared), drain.bind(shared)]) == [9, 9]
    assert shared == [4, 5]


def test_an_array_arrives_writable() -> None:
    @task
    def make() -> Any:
        return np.arange(3.0)

    @task
    def change(array: Any) -> Any:
        array[0] = 9
        return array

    made = make.bind()

    first, second = execute([change.bind(made), made])

    assert (first[0], second[0]) == (9, 0)


def test_async_tasks_run_with_and_without_a_loop_around() -> None:
    node = slow_double.bind(slow_double.bind(1))

    async def inside() -> Any:
        return execute(node)

    assert execute(node) == 4
    assert asyncio.run(inside()) == 4


def test_an_error_is_raised_as_it_is_with_its_step() -> None:
    @task(name="boom")
    def boom() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        execute(boom.bind())

    assert caught.value.__notes__ == ["in step boom"]


def test_retries_are_made_for_the_errors_that_are_worth_it() -> None:
    tries: list[int] = []

    def flaky(error: Exception) -> Any:
        def run() -> int:
            tries.append(1)
            if len(tries) < 3:
                raise error
            return len(tries)

        return run

    assert execute(task(retries=2)(flaky(ValueError())).bind()) == 3
    tries.clear()
    with pytest.raises(KeyError):
        execute(task(retries=5, retry_on=ValueError)(flaky(KeyError())).bind())
    assert len(tries) == 1
    tries.clear()
    assert execute(task(retries=5, retry_on=lambda e: "x" in str(e))(flaky(OSError("x"))).bind())


def test_a_caught_error_is_a_value() -> None:
    @task(catch=True, retries=1, name="boom")
    def boom() -> int:
        raise ValueError("bad")

    @task
    def look(failure: Any) -> str:
        assert isinstance(failure, Failure)
        return f"{failure.type} {failure.message} {failure.step_id} {failure.attempts}"

    assert execute(look.bind(boom.bind())) == "builtins.ValueError bad boom 2"
    failure = execute(boom.bind())
    assert "raise ValueError" in failure.traceback
    assert "perdure/eager.py" not in failure.traceback


def test_several_outputs_are_checked() -> None:
    @task(outputs=2)
    def pair(n: int) -> Any:
        return list(range(n))

    left, right = pair.bind(2)

    assert execute([right, left]) == [1, 0]
    with pytest.raises(TypeError, match="outputs=2, but the function returned 3"):
        execute(pair.bind(3))


def test_a_secret_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    @task
    def use(token: str, more: list[str]) -> str:
        return token + more[0]

    monkeypatch.setenv("TOKEN", "s3")
    node = use.bind(Secret("TOKEN"), more=[Secret("TOKEN")])

    assert execute(node) == "s3s3"
    monkeypatch.delenv("TOKEN")
    with pytest.raises(DefinitionError, match="TOKEN"):
        execute(node)


def test_a_result_that_a_durable_run_could_not_keep_is_refused_here_too() -> None:
    @task
    def make() -> Any:
        return {"rows": (x for x in [1])}

    with pytest.raises(NotSerializable, match=r'\["rows"\]'):
        execute(drain.bind(make.bind()))


def test_a_step_knows_itself_as_in_a_durable_run() -> None:
    @task(retries=1, name="who")
    async def who() -> str:
        here = current()
        if here.attempt == 1:
            raise ValueError
        return f"{here.step_id} {here.attempt} {here.generation} {here.should_stop()}"

    assert execute(who.bind()) == "who 2 1 False"
    with pytest.raises(DefinitionError):
        current()


def test_a_returned_node_is_run_in_place_of_the_value() -> None:
    @task
    def tail() -> Any:
        return drain.bind(numbers.bind())

    assert execute(tail.bind()) == execute(drain.bind(numbers.bind()))


def test_a_chain_of_tail_calls_costs_no_stack() -> None:
    @task
    def down(n: int) -> int:
        return down.bind(n - 1) if n else 7

    assert execute(down.bind(3_000)) == 7


def test_a_failure_below_a_step_that_catches_is_its_value() -> None:
    @task
    def fails() -> int:
        raise ValueError("below")

    @task(catch=True)
    def guarded() -> int:
        return fails.bind()

    failure = execute(guarded.bind())

    assert (failure.type, failure.step_id) == (
        "builtins.ValueError",
        "test_a_failure_below_a_step_that_catches_is_its_value.guarded~1",
    )


def test_a_failure_below_a_step_does_not_spend_its_retries() -> None:
    tries: list[str] = []

    @task
    def fails() -> int:
        raise ValueError("below")

    @task(retries=3)
    def outer() -> int:
        tries.append("outer")
        return fails.bind()

    with pytest.raises(ValueError, match="below"):
        execute(outer.bind())

    assert tries == ["outer"]


def test_a_missing_projection_names_the_node() -> None:
    with pytest.raises(IndexError) as caught:
        execute(drain.bind(numbers.bind()[7]))

    assert "[7]" in caught.value.__notes__[0]


def test_wrong_inputs_are_refused() -> None:
    from perdure import Input

    inp = Input()
    node = drain.bind(inp.values)

    with pytest.raises(DefinitionError, match="input 'values' is missing"):
        execute(node)
    with pytest.raises(DefinitionError, match="did you mean 'values'"):
        execute(node, inputs={"valuess": [1]})


def test_what_is_no_graph_is_refused() -> None:
    for wrong in (3, [], drain):
        with pytest.raises(DefinitionError):
            execute(wrong)
    with pytest.raises(NodeUse):
        execute([numbers.bind() + [1]])  # noqa: RUF005


@task
def pair(kind: str) -> Any:
    one = numbers.bind()
    return {"list": [one, 1], "dict": {"a": [one]}}[kind]


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_nodes_in_a_container_are_no_result(kind: str) -> None:
    with pytest.raises(DefinitionError, match=r"nodes inside.*gather\.bind"):
        execute(pair.bind(kind))


def test_a_graph_that_is_too_deep_here_is_said_to_run_durably() -> None:
    @task
    def deep(n: int) -> int:
        return drain.bind([deep.bind(n - 1)]) if n else 0

    with pytest.raises(RecursionError) as caught:
        execute(deep.bind(1_000))

    assert any("durably" in note for note in caught.value.__notes__)


def test_an_item_that_cannot_be_stored_is_named_as_it_was_written() -> None:
    with pytest.raises(NotSerializable, match=r"drain\.map\(\*iterables\)\[0\]\[0\]"):
        execute(drain.map([(each for each in "ab")]))
