"""Tasks, a workflow, and the ways to run it."""

from dataclasses import dataclass
from typing import assert_type

import perdure
from perdure import task, workflow


@dataclass
class Model:
    centres: list[list[float]]


@task(retries=2)
def load(path: str) -> list[list[float]]:
    return [[1.0]]


@task(cpus=2, memory="4GiB", timeout="10m")
def train(k: int, rows: list[list[float]]) -> Model:
    return Model(rows[:k])


@task
def predict(model: Model, rows: list[list[float]]) -> list[int]:
    return [len(model.centres) for _ in rows]


@workflow
def iris(path: str = "iris.csv", k: int = 3) -> list[int]:
    rows = load.bind(path)
    assert_type(rows, list[list[float]])
    return predict.bind(train.bind(k, rows), rows)


def use() -> None:
    assert_type(iris.run(k=3), list[int])
    assert_type(iris.run(k=3, run_id="iris-1"), list[int])
    assert_type(iris.run(k=4, reuse="last", tags={"a": "b"}), list[int])
    assert_type(iris(k=3), list[int])
    assert_type(iris.execute("x.csv", k=3), list[int])
    assert_type(load("x"), list[list[float]])
    assert_type(perdure.run(iris, inputs={"k": 3}), list[int])
    assert_type(perdure.run(load.bind("x")), list[list[float]])
