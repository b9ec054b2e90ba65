"""Steps that give graphs, imported by name in workers. Each notes in a folder that it ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import perdure
from perdure import Failure, task, workflow
from perdure.worker.context import current


def note_run(folder: str) -> None:
    """Add a line for this execution; appends of a line are whole."""
    if folder:
        with open(os.path.join(folder, "ran"), "a") as file:
            file.write(current().step_id + "\n")


def ran(folder: Path) -> list[str]:
    """Return the steps that have run since the last call, sorted."""
    path = folder / "ran"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def scale(x: int, y: int = 0, by: int = 1, folder: str = "") -> int:
    note_run(folder)
    return 2 * x + y * by


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def join(parts: list[Any]) -> str:
    return " ".join(map(str, parts))


@task(catch=True)
def picky(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return x


@task
def fact(n: int, so_far: int = 1) -> int:
    return fact.bind(n - 1, n * so_far) if n > 1 else so_far


@task
def fib(n: int) -> int:
    return add.bind(fib.bind(n - 1), fib.bind(n - 2)) if n > 1 else n


@task
def add(a: int, b: int) -> int:
    return a + b


@workflow
def pair(x: int) -> dict[str, int]:
    return {"one": add.bind(x, 1), "two": add.bind(x, 2)}


@task
def returns_workflow(x: int) -> dict[str, int]:
    return pair.bind(x)


@task
def returns_projection(x: int) -> int:
    return pair.bind(x)["two"]


@task
def returns_map(xs: list[int]) -> list[int]:
    return scale.map(xs)


@task(outputs=2)
def returns_two(x: int) -> tuple[int, int]:
    return both.bind(x)


@task(outputs=2)
def both(x: int) -> tuple[int, int]:
    return x, -x


@task(catch=True)
def guarded(x: int) -> int:
    return explode.bind(x)


@task
def explode(x: int) -> int:
    raise RuntimeError(f"no {x}")


@task
def kind_of(value: Any) -> str:
    if isinstance(value, Failure):
        return f"{value.type} in {value.step_id}, item {value.index}"
    return str(value)


@workflow
def everything(n: int = 4) -> list[Any]:
    """All ways to grow, small."""
    xs = numbers.bind(n)
    doubled = scale.map(xs, y=10)
    one, other = returns_two.bind(n)
    two = returns_workflow.bind(n)
    return [
        total.bind(doubled),
        doubled[1],
        scale.map(xs, xs, by=perdure.each(xs)),
        scale.map([]),
        total.map([[1, 2], [3]]),
        total.map(perdure.product([1, 2], xs)),
        kind_of.map(picky.map(xs)),
        fact.bind(n),
        fib.bind(n),
        two,
        two["one"],
        returns_projection.bind(n),
        returns_map.bind(xs),
        [one, other],
        kind_of.bind(guarded.bind(n)),
    ]


EVERYTHING = [
    52,
    12,
    [0, 3, 8, 15],
    [],
    [3, 3],
    [1, 2, 3, 4, 2, 3, 4, 5],
    ["0", "1", "builtins.ValueError in picky[2], item 2", "3"],
    24,
    3,
    {"one": 5, "two": 6},
    5,
    6,
    [0, 2, 4, 6],
    [4, -4],
    "builtins.RuntimeError in guarded~1, item None",
]
"""What ``everything(4)`` gives."""


@task
def items(text: str) -> list[str]:
    return text.split()


@task
def shout(word: str, folder: str, gate: str = "") -> str:
    note_run(folder)
    if word == "bad" and not os.path.exists(gate):
        raise ValueError("a bad word")
    return word.upper()


@workflow
def shouting(text: str, folder: str, gate: str = "") -> str:
    return join.bind(shout.map(items.bind(text), folder=folder, gate=gate))


@task
def countdown(n: int) -> str:
    return countdown.bind(n - 1) if n else "done"


@task
def too_large(x: int) -> int:
    return add.options(cpus=10_000).bind(x, 1)


@task
def after_all(x: int, folder: str, wait_for: int) -> int:
    """Return twice ``x`` once ``wait_for`` steps of the next stage have begun."""
    if x == 2:
        while len(started(folder)) < wait_for:
            os.sched_yield()
    return 2 * x


@task
def next_stage(x: int, folder: str) -> int:
    Path(folder, f"started-{x}").touch()
    return x + 1


def started(folder: str) -> list[str]:
    """Return the marks of steps of the next stage."""
    return [name for name in os.listdir(folder) if name.startswith("started-")]


@workflow
def two_stages(folder: str) -> int:
    """The last item of the first stage ends only when the others have reached the second."""
    doubled = after_all.map(numbers.bind(3), folder=folder, wait_for=2)
    return total.bind(next_stage.map(doubled, folder=folder))


@task
def noted(x: int, folder: str, gate: str = "") -> int:
    note_run(folder)
    if gate and x == 2 and not os.path.exists(gate):
        raise ValueError("not yet")
    return x + 1


@workflow
def three_stages(n: int, folder: str, gate: str = "") -> int:
    first = noted.options(name="first").map(numbers.bind(n), folder=folder)
    second = noted.options(name="second").map(first, folder=folder, gate=gate)
    return total.bind(noted.options(name="third").map(second, folder=folder))


@task
def lost_reference() -> int:
    return add.bind(perdure.StepRef("nowhere"), 1)


@task(volatile=True)
def look(path: str) -> list[str]:
    return Path(path).read_text().split()


@task
def look_twice(path: str, folder: str) -> str:
    """Give a graph of which one step reads the outside world."""
    return join.bind(shout.map(look.bind(path), folder=folder))
