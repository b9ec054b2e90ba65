"""Static parameters are real values while tracing."""

from pathlib import Path
from typing import Literal

from perdure import Static, task, workflow


@task
def train(k: int, rows: Path) -> float:
    return float(k)


@task
def best(scores: list[float]) -> float:
    return max(scores)


@workflow
def search(rows: Path, trials: Static[int] = 3, mode: Static[Literal["a", "b"]] = "a") -> float:
    scores = [train.bind(k, rows) for k in range(trials)]
    if mode == "b":
        scores.append(train.bind(100, rows))
    return best.bind(scores)


def use() -> None:
    search.dag(trials=5)
    search.run(rows=Path("x"), trials=5)
    search(Path("x"), trials=5, mode="b")
