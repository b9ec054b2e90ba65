"""Races between steps, imported by name in workers; steps note that they ran."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.acceptance.growing_steps import note_run

import perdure
from perdure import task, workflow


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def trial(x: int, folder: str = "") -> int:
    """Return ``x``; all but 0 and 1 go on until somebody ends them."""
    note_run(folder)
    if x > 1:
        Path(folder, f"began-{x}").touch()
        threading.Event().wait(60)
    return x


@task
def quick(x: int, folder: str = "") -> int:
    note_run(folder)
    return x


def is_one(x: int) -> bool:
    return x == 1


@task
def told(*values: Any) -> str:
    return " ".join(map(str, values))


@task
def fails(values: list[int]) -> str:
    raise ValueError(f"not with {values}")


@workflow
def sweep(n: int, folder: str) -> str:
    tried = trial.options(stop_when=is_one).map(numbers.bind(n), folder=folder)
    return told.bind(tried)


@workflow
def quick_sweep(n: int, folder: str = "") -> str:
    return told.bind(quick.options(stop_when=is_one).map(numbers.bind(n), folder=folder))


@workflow
def race(folder: str) -> str:
    """The first of two wins; the other one would never end."""
    runners = [
        trial.options(name="fast").bind(1, folder),
        trial.options(name="slow").bind(5, folder),
    ]
    done, pending = perdure.wait(runners, cancel_rest=True)
    return told.bind(perdure.get(done), count.bind(pending))


@task
def count(refs: list[Any]) -> str:
    return f"{len(refs)} left: {', '.join(map(str, refs))}"


@workflow
def patient(timeout: float) -> str:
    """Two of three; the third waits for a signal, and goes on to its end."""
    late = perdure.wait_signal("late", timeout=timeout, default="late")
    done, pending = perdure.wait([quick.bind(1), late, quick.bind(2)], num_returns=2)
    rest, _ = perdure.wait(pending)
    return told.bind(perdure.get(done), perdure.get(rest))


@workflow
def over_a_map(folder: str = "") -> str:
    done, pending = perdure.wait(quick.map(numbers.bind(3), folder=folder), num_returns=3)
    return told.bind(perdure.get(done), count.bind(pending))


@workflow
def too_late() -> str:
    """Nothing is done in time."""
    done, pending = perdure.wait([perdure.wait_signal("never", timeout=1.0, default=1)], 1, 0.05)
    return told.bind(perdure.get(done), count.bind(pending))
