"""Graphs without a workflow: placeholders, and lists, tuples and dicts of nodes."""

from typing import assert_type

import perdure
from perdure import task


@task
def load(path: str, limit: int) -> list[int]:
    return [limit]


@task
def total(rows: list[int]) -> int:
    return sum(rows)


inp = perdure.Input()
rows = load.bind(inp.path, inp["limit"])
node = total.bind(rows)


def use() -> None:
    assert_type(perdure.run(node, inputs={"path": "a", "limit": 3}), int)
    assert_type(perdure.run([node, node]), list[int])
    assert_type(perdure.run((node, rows)), tuple[int, list[int]])
    assert_type(perdure.run({"n": node}, run_id="x"), dict[str, int])
    perdure.execute(node, path="a", limit=3)
