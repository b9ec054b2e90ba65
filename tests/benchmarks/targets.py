"""What was aimed at for large values, resume and start, beside what is reached and the limit.

    python -m tests.benchmarks.targets                   a table; about six minutes
    python -m tests.benchmarks.targets W4 W6 --rounds 5

Each workload is run by all that it needs in turn, round after round; what is compared with a limit
is divided by that of the same round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.__main__ import WORKLOADS, run
from tests.benchmarks.rounds import circumstances, positive

LIMITS, INLINE, PROCESSES = "limits", "perdure", "perdure-processes"
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Aim:
    """One figure, and what it is to be at most.

    Attributes:
        engine: whose figure it is.
        what: what is told of it.
        most: what is aimed at.
        of: takes it from the figures of the engine and those of the limits, of one round.
        limit: takes what the machine allows from the figures of the limits, where there is such.
    """

    engine: str
    what: str
    most: float
    of: Callable[[Figures, Figures], float]
    limit: Callable[[Figures], float] | None = None


@dataclass(frozen=True)
class Trial:
    """A workload of some size, and what is aimed at in it."""

    workload: str
    size: int
    rounds: int
    aims: Sequence[Aim]


def plain(name: str) -> Callable[[Figures, Figures], float]:
    """Return what takes a figure as it is."""
    return lambda mine, limits: float(mine[name])


def share(name: str) -> Callable[[Figures, Figures], float]:
    """Return what takes a time as a multiple of the limit's seconds."""
    return lambda mine, limits: float(mine[name] / limits["seconds"])


def seconds(limits: Figures) -> float:
    """Return the seconds of the limit."""
    return float(limits["seconds"])


def _large(engine: str, size: int) -> list[Aim]:
    return [
        Aim(engine, "whole, times raw write and sync", 1.4, share("seconds"), seconds),
        Aim(engine, "function's end to durable, times the same", 1.4, share("stored_s"), seconds),
        Aim(engine, "first byte after it is durable, s", 0.05, plain("first_byte_s")),
        Aim(engine, "producer's own memory, times the value", 1.1, _copies(size)),
        Aim(engine, "consumer's own memory, MB", 50, plain("consumer_own_mb")),
    ]


def _copies(size: int) -> Callable[[Figures, Figures], float]:
    return lambda mine, limits: float(mine["producer_own_mb"] / size)


def _resumed(engine: str, most_s: float) -> list[Aim]:
    return [
        Aim(engine, "steps run twice", 0, plain("run_twice")),
        Aim(engine, "first new step, s", most_s, plain("first_new_step_s"), seconds),
    ]


def trials(rounds: int) -> list[Trial]:
    """Return all that is aimed at; workloads that take minutes are run once."""
    large = WORKLOADS["W4"][0]
    same = Aim(INLINE, "written of the same value again, MB", 1, plain("again_written_mb"))
    memory = "memory of a step, KB"
    return [
        Trial(
            "W2",
            10_000,
            1,
            [Aim(each, memory, 2, plain("step_kb")) for each in (INLINE, PROCESSES)],
        ),
        Trial("W4", large, rounds, [*_large(INLINE, large), same, *_large(PROCESSES, large)]),
        Trial("W5", 2_000, rounds, [*_resumed(INLINE, 0.5), *_resumed(PROCESSES, 0.5)]),
        Trial("W5", 100_000, 1, _resumed(INLINE, 3.0)),
        Trial(
            "W6",
            1,
            rounds,
            [
                Aim(INLINE, "cold start, s", 0.5, plain("seconds"), seconds),
                Aim(PROCESSES, "cold start, s", 0.8, plain("seconds"), seconds),
            ],
        ),
        Trial("W7", 64, 1, [Aim(PROCESSES, "whole, s", 8.5, plain("seconds"), seconds)]),
        Trial(
            "W9",
            10_000,
            1,
            [
                Aim(INLINE, "memory while all sleep, MB", 200, plain("idle_mb")),
                Aim(
                    INLINE,
                    "share of a core while nothing is due",
                    0.01,
                    plain("idle_cpu_share"),
                    lambda limits: float(limits["idle_cpu_share"]),
                ),
                Aim(INLINE, "last of 1,000 begins its next step, s late", 1.0, plain("seconds")),
                Aim(INLINE, "request of another process seen, s", 0.2, plain("request_seen_s")),
            ],
        ),
    ]


def rows_of(trial: Trial) -> list[str]:
    """Run a trial; return its rows."""
    engines = [LIMITS, *dict.fromkeys(aim.engine for aim in trial.aims)]
    found: dict[str, list[Figures]] = {name: [] for name in engines}
    for number in range(trial.rounds):
        for name in engines if number % 2 == 0 else reversed(engines):
            found[name].append(run(name, trial.workload, trial.size, None))
    rows = []
    for aim in trial.aims:
        pairs = zip(found[aim.engine], found[LIMITS], strict=True)
        got = sorted(aim.of(mine, limits) for mine, limits in pairs)
        limit = "" if aim.limit is None else _shown(median(map(aim.limit, found[LIMITS])))
        reached = _shown(median(got))
        if len(got) > 1:
            reached += f" ({_shown(got[0])}-{_shown(got[-1])})"
        verdict = "yes" if median(got) <= aim.most else "no"
        rows.append(
            f"| {trial.workload}, {trial.size:,} | {aim.engine} | {aim.what} | "
            f"{_shown(aim.most)} | {reached} | {limit} | {verdict} |"
        )
    return rows


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 or figure == int(figure) else f"{figure:.3g}"


def main(words: Sequence[str]) -> int:
    """Run what the command line names; print a row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.targets")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    parser.add_argument("--rounds", type=positive, default=3)
    given = parser.parse_args(words)
    named = {trial.workload for trial in trials(given.rounds)}
    if unknown := set(given.workloads) - named:
        parser.error(
            f"{', '.join(sorted(unknown))}: the figures of {', '.join(sorted(named))} are here; "
            "those of others are ratios: python -m tests.benchmarks compare W1 W3"
        )
    print("| workload, size | engine | what | at most | reached | limit | met |")
    print("|---|---|---|---|---|---|---|")
    for trial in trials(given.rounds):
        if not given.workloads or trial.workload in given.workloads:
            print("\n".join(rows_of(trial)), flush=True)
    print(f"\n{circumstances(given.rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
