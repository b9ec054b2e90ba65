"""Several outputs unpack; projections have the type of what they project."""

from dataclasses import dataclass
from typing import assert_type

from perdure import task, workflow


@dataclass
class Split:
    train: list[int]
    test: list[int]


@task(outputs=2)
def halves(rows: list[int]) -> tuple[list[int], str]:
    return rows, "x"


@task
def split(rows: list[int]) -> Split:
    return Split(rows, rows)


@task
def count(rows: list[int]) -> int:
    return len(rows)


@workflow
def flow(rows: list[int]) -> tuple[int, int, str]:
    left, name = halves.bind(rows)
    assert_type(left, list[int])
    made = split.bind(left)
    assert_type(made.train, list[int])
    return count.bind(made.train), count.bind([made.test[0]]), name
