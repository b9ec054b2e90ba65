"""Workflows as nodes of workflows."""

from typing import assert_type

from perdure import task, workflow


@task
def load(path: str) -> list[int]:
    return [len(path)]


@task
def total(rows: list[int]) -> int:
    return sum(rows)


@workflow
def prepare(path: str, scale: float = 1.0) -> list[int]:
    return load.bind(path)


@workflow(name="outer", queue="slow")
def outer(path: str) -> dict[str, int]:
    rows = prepare.bind(path, scale=2)
    assert_type(rows, list[int])
    again = prepare.options(name="again", after=rows).bind(path)
    return {"a": total.bind(rows), "b": total.bind(again)}


def use() -> None:
    assert_type(outer("x"), dict[str, int])
    assert_type(outer.options(run_id="r", tags={"a": "b"}).run(path="x"), dict[str, int])
    print(outer.dag(), outer.dag().mermaid())
