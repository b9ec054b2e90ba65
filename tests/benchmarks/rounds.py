"""Timing in rounds: every case once a round, so that all of them meet the same busy minutes.

A machine that others use too is twice as slow in one minute as in the next. What can be compared
is what was timed in the same round: each case's figure is divided by that of the first case.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from perdure_storage.clock import SystemClock


@dataclass(frozen=True)
class Case:
    """Something that takes time; ``measure`` does it once and returns its seconds."""

    name: str
    measure: Callable[[], float]
    limit_s: float | None = None


@dataclass(frozen=True)
class Figures:
    """What one case took.

    Attributes:
        seconds: round by round.
        ratio: the median of what it took in each round, as a multiple of the first case.
    """

    case: Case
    seconds: tuple[float, ...]
    ratio: float


def measure(cases: Sequence[Case], *, rounds: int) -> list[Figures]:
    """Time the cases in turn, every other round backwards; a first round does not count."""
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases if number % 2 else reversed(cases):
            took_s = case.measure()
            if number:
                seconds[case.name].append(took_s)
    first = seconds[cases[0].name]
    return [
        Figures(case, tuple(took), median(mine / its for mine, its in zip(took, first)))
        for case, took in zip(cases, seconds.values())
    ]


def process(
    command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
) -> Callable[[], float]:
    """Return a measure of a whole process, from its start to its end; it must end well."""
    environment = {**os.environ, **(environ or {})}

    def run() -> float:
        begin = time.perf_counter()
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        took_s = time.perf_counter() - begin
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr.decode()}")
        return took_s

    return run


def table(figures: Sequence[Figures]) -> str:
    """Return the figures as Markdown."""
    rows = [
        f"| {each.case.name} | {_limit(each.case.limit_s)} | {median(each.seconds):.3f} | "
        f"{min(each.seconds):.3f}-{max(each.seconds):.3f} | {each.ratio:.1f} |"
        for each in figures
    ]
    return "\n".join(
        [
            f"| what | promised s | median s | range s | times {figures[0].case.name} |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def positive(text: str) -> int:
    """Return a number of rounds or steps that a command line gives. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def circumstances(rounds: int) -> str:
    """Return when and on what the figures were taken."""
    return (
        f"{SystemClock().now():%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {rounds} rounds"
    )


def _limit(limit_s: float | None) -> str:
    return "" if limit_s is None else f"< {limit_s:g}"
