"""Graphs that grow: time and memory an item, and how long a resume takes to go on.

    python -m tests.benchmarks.growing
    python -m tests.benchmarks.growing --scale 0.1 --rounds 1

Maps of 1,000 and of 10,000 items, of 100,000 in chunks of 100, and chains of 500 and of 5,000 tail
calls; each inline in a process of its own, over SQLite with full durability. The last column is
what an item takes, as a multiple of the first case of its kind in the same round: where it is 1,
time is linear. A resume is of a run that was killed in its last step: it is timed until that step
has begun again.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks import growth
from tests.benchmarks.rounds import circumstances

import perdure

ROOT = Path(__file__).resolve().parents[2]
RUN_ID = "measured"
KINDS = {
    "map": (1_000, 10_000),
    "chunks": (10_000, 100_000),
    "chain": (500, 5_000),
}


@dataclass(frozen=True)
class Figures:
    """What one run took: until its result, until a resume went on, and at most of memory."""

    run_s: float
    resume_s: float
    peak_mb: float


def measured(kind: str, size: int, folder: Path) -> Figures:
    """Run a workload to its end; then again, killed in its last step and resumed."""
    with tempfile.TemporaryDirectory(dir=folder) as whole:
        run_s, peak_mb = figures_of(child(kind, size, "run", whole))
    with tempfile.TemporaryDirectory(dir=folder) as cut:
        killed = child(kind, size, "run", cut, dies=True)
        if killed.returncode != -9:
            raise RuntimeError(f"it was to be killed, but ended:\n{killed.stderr}")
        resume_s, _ = figures_of(child(kind, size, "resume", cut))
    return Figures(run_s, resume_s, peak_mb)


def child(
    kind: str, size: int, verb: str, folder: str, *, dies: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run this program for one workload, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.growing", verb, kind, str(size), folder]
    environ = {**os.environ, **({growth.DIES: "1"} if dies else {})}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


def figures_of(ended: subprocess.CompletedProcess[str]) -> tuple[float, float]:
    """Return the seconds and the megabytes that a child printed."""
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(ended.args)} failed:\n{ended.stderr}")
    took_s, peak_mb = ended.stdout.split()
    return float(took_s), float(peak_mb)


def one(verb: str, kind: str, size: int, folder: Path) -> None:
    """Run one workload, or resume it, and print its seconds and megabytes."""
    with perdure.open(str(folder / "perdure.db"), executor="inline") as client:
        client.runtime  # noqa: B018 - the store is made before the clock starts
        begin = time.perf_counter()
        if verb == "resume":
            client.resume(RUN_ID).result()
            took_s = growth.BEGUN[0] - begin
        else:
            growth.WORKFLOWS[kind].run(size=size, run_id=RUN_ID)
            took_s = time.perf_counter() - begin
    print(took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def table(kinds: dict[str, tuple[int, ...]], rounds: int, folder: Path) -> str:
    """Measure all of them, round by round; return the figures as Markdown."""
    cases = [(kind, size) for kind, sizes in kinds.items() for size in sizes]
    taken: dict[tuple[str, int], list[Figures]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            taken[case].append(measured(*case, folder))
    rows = []
    for kind, size in cases:
        its, first = taken[kind, size], taken[kind, kinds[kind][0]]
        each_ms = median(figures.run_s for figures in its) / size * 1000
        ratio = median(
            (mine.run_s / size) / (small.run_s / kinds[kind][0]) for mine, small in zip(its, first)
        )
        rows.append(
            f"| {kind} of {size:,} | {median(f.run_s for f in its):.2f} | {each_ms:.3f} | "
            f"{median(f.peak_mb for f in its):.0f} | {median(f.resume_s for f in its):.2f} | "
            f"{ratio:.2f} |"
        )
    head = "| what | s | ms an item | peak MB | resume s | ms an item, times the smaller |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def main(words: Sequence[str]) -> int:
    """Run all of it and print the table."""
    if words and words[0] in ("run", "resume"):
        one(words[0], words[1], int(words[2]), Path(words[3]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growing")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of items")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=KINDS, help="one of the kinds")
    given = parser.parse_args(words)
    kinds = {
        kind: tuple(max(1, round(size * given.scale)) for size in sizes)
        for kind, sizes in KINDS.items()
        if given.only in (None, kind)
    }
    with tempfile.TemporaryDirectory() as folder:
        print(table(kinds, given.rounds, Path(folder)))
    print(circumstances(given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
