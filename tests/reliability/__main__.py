"""The faults of RELIABILITY.md again and again, each round under another seed, for hours.

    python -m tests.reliability --hours 2             all cases in turn; a table at the end
    python -m tests.reliability storm programs --rounds 1
    python -m tests.reliability --hostile retry,spill what is rare is the rule, in every process
    python -m tests.reliability --list                what there is

Each round is one line of JSON in --log, also where it failed; what a failed round said stands in a
file beside it, with the command that does it again. Exit code 1 if any round failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.prepared import python_path
from tests.reliability.cases import CASES, UNFIT, Case
from tests.reliability.figures import read_figures
from tests.reliability.hostile.sitecustomize import MODES

ROOT = Path(__file__).parents[2]
_OPTIONS = ("-q", "-rP", "-p", "no:cacheprovider", "-o", "timeout=1200")
"""A test of a release's size takes longer than one of CI's, on a busy machine most of all."""
_SUMMARY = re.compile(r"(\d+) (passed|failed|error)")


@dataclass(frozen=True)
class Round:
    """What came of a case under a seed.

    Attributes:
        passed, failed: how many tests did; an error counts as failed.
        trials: how often something was done to perdure.
        figures: what the tests counted besides.
        again: the command that does the same.
        hostile: the modes that it was done in.
    """

    case: str
    seed: int
    passed: int
    failed: int
    trials: int
    seconds: float
    again: str
    figures: dict[str, int] = field(default_factory=dict)
    hostile: str = ""


def play(case: Case, seed: int, log: Path, hostile: str) -> Round:
    """Do a case once; keep what it said if it failed."""
    settings = {**case.settings(seed), **(hostility(hostile) if hostile else {})}
    unfit = [f"--deselect={name}" for mode in hostile.split(",") for name in UNFIT.get(mode, ())]
    words = ["pytest", *case.tests, *case.options(seed), *unfit, *_OPTIONS]
    again = shlex.join([*(f"{name}={value}" for name, value in settings.items()), *words])
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    lines = done.stdout.splitlines()
    counts = {word: int(number) for number, word in _SUMMARY.findall(lines[-1] if lines else "")}
    passed = counts.get("passed", 0)
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if done.returncode and not failed:
        failed = 1  # pytest itself: it found no test, or was killed
    if failed:
        log.with_suffix(f".{case.name}-{seed}.txt").write_text(f"{again}\n{done.stdout}")
    figures = read_figures(lines)
    trials = figures.get(case.counts, 0) if case.counts else case.each * (passed + failed)
    return Round(
        case.name, seed, passed, failed, trials, round(seconds, 1), again, figures, hostile
    )


def hostility(modes: str) -> dict[str, str]:
    """Return the environment in which every process of Python is changed as the modes say."""
    path = python_path(ROOT / "tests" / "reliability" / "hostile")
    return {"PYTHONPATH": path, "PERDURE_TEST_HOSTILE": modes}


def rounds(
    cases: Sequence[Case],
    log: Path,
    *,
    first_seed: int,
    most: int | None,
    until: float | None,
    hostile: str = "",
) -> Iterator[Round]:
    """Do the cases in turn, seed by seed, as often as asked and no longer; note each at once."""
    seed = first_seed
    while most is None or seed < first_seed + most:
        for case in cases:
            if until is not None and time.monotonic() >= until:
                return
            done = play(case, seed, log, hostile)
            with log.open("a") as file:
                file.write(json.dumps(asdict(done)) + "\n")
            yield done
        seed += 1


def table(done: Sequence[Round]) -> str:
    """Return the rows of RELIABILITY.md; the bound is that of 0 failures in so many trials."""
    head = ["fault", "rounds, seeds", "trials", "failed", "bound", "besides"]
    lines = [_row(head), _row(["---"] * len(head))]
    for case in CASES:
        mine = [each for each in done if each.case == case.name]
        if not mine:
            continue
        seeds = [each.seed for each in mine]
        trials, failed = sum(each.trials for each in mine), sum(each.failed for each in mine)
        sums = sum((Counter(each.figures) for each in mine), Counter[str]())
        cells = [
            case.fault,
            f"{len(mine)}, {min(seeds)}-{max(seeds)}",
            f"{trials:,}",
            str(failed),
            f"{3 / trials:.2%}" if trials and not failed else "-",
            ", ".join(f"{sums[name]:,} {name}" for name in sums if name != case.counts),
        ]
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def asked_for() -> argparse.Namespace:
    """Read the command line."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=f"of {', '.join(names)}; default: all but suite")
    add("--hours", type=float, help="begin no round after so long")
    add("--rounds", type=int, help="so many of each case; default without --hours: 1")
    add("--seed", type=int, default=1, help="of the first round (default: 1)")
    add("--log", type=Path, default=Path("reliability.jsonl"), help="lines are added to it")
    add("--hostile", metavar="MODES", default="", help=f"of {', '.join(MODES)}, with commas")
    add("--list", action="store_true", help="print the cases and end")
    asked = parser.parse_args()
    if unknown := [name for name in asked.cases if name not in names]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(names)}")
    if unknown := [mode for mode in asked.hostile.split(",") if mode and mode not in MODES]:
        parser.error(f"no mode {unknown[0]}; there are {', '.join(MODES)}")
    return asked


def main() -> int:
    """Do the rounds and print the table."""
    asked = asked_for()
    usual = [case for case in CASES if not case.is_long]
    chosen = [case for case in CASES if case.name in asked.cases] or usual
    if asked.list:
        for case in CASES:
            print(f"{case.name:<16}{case.fault}")
        return 0
    most = asked.rounds or (None if asked.hours else 1)
    until = time.monotonic() + asked.hours * 3600 if asked.hours else None
    done: list[Round] = []
    try:
        for each in rounds(
            chosen,
            asked.log,
            first_seed=asked.seed,
            most=most,
            until=until,
            hostile=asked.hostile,
        ):
            done.append(each)
            became = f"FAILED, again by: {each.again}" if each.failed else "held"
            told = f"{each.case} {each.seed}: {each.trials} trials in {each.seconds:.0f} s"
            print(f"{told}, {became}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; what is done:", file=sys.stderr)
    where = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"\n{table(done)}\n\n{where}, {sum(each.seconds for each in done):.0f} s")
    return 1 if any(each.failed for each in done) else 0


if __name__ == "__main__":
    raise SystemExit(main())
