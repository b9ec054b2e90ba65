"""Steps a second, as parts of what the same rows take when they are written by hand.

    python -m tests.benchmarks.engine
    python -m tests.benchmarks.engine --scale 0.1 --rounds 3

A chain of 1,000 steps (each needs the one before), 10,000 steps that need nothing and one that
takes all their values, and a whole script of one step from a cold start. All on SQLite with full
durability: a result is on the disk before anything that needs it starts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from textwrap import dedent

from tests.benchmarks.rounds import Case, Figures, circumstances, measure, process, table

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"chain": 1_000, "fan_out": 10_000}
SCRIPT = dedent(
    """
    from perdure import task, workflow

    @task
    def answer() -> int:
        return 42

    @workflow
    def cold() -> int:
        return answer.bind()

    if __name__ == "__main__":
        print(cold.run())
    """
)


def workload(name: str, executor: str, steps: int, folder: Path) -> float:
    """Run a workload in a process of its own; return its seconds."""
    words = [name, executor, str(steps), str(folder)]
    command = [sys.executable, "-m", "tests.benchmarks.workloads", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr}")
    return float(ended.stdout)


def cases(name: str, steps: int, folder: Path) -> list[Case]:
    """Return the raw writes of a workload's rows, and the workload on each executor."""
    rows = Path(tempfile.mkdtemp(dir=folder))
    workload(name, "inline", steps, rows)

    def on(executor: str) -> Case:
        def run() -> float:
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                return workload(name, executor, steps, Path(fresh))

        return Case(executor, run)

    raw = Case("by hand", lambda: workload(name, "raw", steps, rows))
    return [raw, on("inline"), on("processes")]


def rates(name: str, steps: int, figures: Sequence[Figures]) -> str:
    """Return steps a second as Markdown, and what part that is of the rate by hand."""
    rows = []
    for each in figures:
        slow, middle, fast = (steps / s for s in spread(each.seconds))
        rows.append(
            f"| {name}, {steps:,} steps | {each.case.name} | {middle:,.0f} | "
            f"{slow:,.0f}-{fast:,.0f} | {1 / each.ratio:.3f} |"
        )
    head = [
        "| workload | | steps/s, median | range | part of the rate by hand |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the longest, the median and the shortest."""
    return max(seconds), median(seconds), min(seconds)


def cold_starts(folder: Path) -> list[Case]:
    """Return a script of one run of one step, as a whole process in a folder without a store."""
    script = folder / "cold.py"
    script.write_text(SCRIPT)

    def on(executor: str, limit_s: float) -> Case:
        def run() -> float:
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                environ = {"PERDURE_STORE": f"{fresh}/perdure.db", "PERDURE_EXECUTOR": executor}
                return process([sys.executable, str(script)], Path(fresh), environ)()

        return Case(f"cold start, {executor}", run, limit_s)

    bare = Case("bare start", process([sys.executable, "-c", "pass"], folder))
    return [bare, on("inline", 0.5), on("processes", 0.8)]


def main(words: Sequence[str]) -> int:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[*STEPS, "cold_start"], help="one of the tables")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workflow, full in STEPS.items():
            if given.only in (None, workflow):
                steps = max(1, round(full * given.scale))
                figures = measure(cases(workflow, steps, folder), rounds=given.rounds)
                print(rates(workflow, steps, figures), end="\n\n")
        if given.only in (None, "cold_start"):
            print(table(measure(cold_starts(folder), rounds=given.rounds)))
    print(circumstances(given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
