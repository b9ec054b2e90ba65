"""A sweep over parameters that stops as soon as one is good enough; the losers are cancelled.

``python examples/sweep.py``: sixteen learning rates are tried, two at a time, each by a step of
its own. Once a trial reaches the goal the others are not needed: those that run are ended, those
that had not begun never begin, and the run has its result.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import perdure
from perdure import task, workflow

GOAL = 1e-3
RATES = [0.001 * 1.5**n for n in range(16)]


@task
def trial(rate: float, steps: int = 200) -> tuple[float, float]:
    """Go downhill on ``x**2`` from 1; return the rate and how far from the bottom it ended."""
    x = 1.0
    for _ in range(steps):
        x -= rate * 2 * x
    return rate, abs(x)


def is_good(result: tuple[float, float]) -> bool:
    """Say whether a trial has reached the goal."""
    return result[1] < GOAL


@task
def best(results: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the trial that came nearest to the bottom."""
    return min(results, key=lambda result: result[1])


@workflow
def sweep(rates: list[float]) -> tuple[float, float]:
    """Try the rates until one is good enough."""
    return best.bind(trial.options(stop_when=is_good).map(rates))


def main() -> None:
    """Sweep, and say what was tried and what was not."""
    with (
        tempfile.TemporaryDirectory() as folder,
        perdure.open(str(Path(folder) / "p.db"), workers=2) as store,
    ):
        run = store.start(sweep, rates=RATES, run_id="sweep")
        rate, distance = run.result()
        statuses = Counter(str(step.status) for step in run.steps(name="trial[*]"))
        print(f"best rate {rate:.4f}, {distance:.1e} from the bottom")
        print(f"{statuses['SUCCEEDED']} trials ran, {statuses['CANCELLED']} were cancelled")
        cancelled = run.steps(name="trial[*]", status="CANCELLED")
        print(cancelled[-1].why())


if __name__ == "__main__":
    main()
