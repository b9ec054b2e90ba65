"""Where the time of a workload goes, by what perdure does meanwhile.

    python -m tests.benchmarks.parts
    python -m tests.benchmarks.parts W1:inline W2:processes --rate 400

py-spy looks at the engine's program, which need not know of it, and each look counts for the
innermost function that is of a part. Of a chain and of independent steps it is the time of the
thread that drives them, waiting included; of many runs that of all threads, while they have the
interpreter.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.benchmarks.__main__ import ENGINES, ENGINES_FOLDER
from tests.benchmarks.rounds import circumstances

SIZES = {"W1": 3_000, "W2": 20_000, "W3": 1_000}
DEFAULT = ("W1:inline", "W1:processes", "W2:inline", "W2:processes", "W3:inline", "W3:processes")
PARTS = {
    "graph traced": ("prepare",),
    "graph compiled and encoded": ("compile_dag", "plan_record"),
    "code it reaches": ("code_digest",),
    "sources it reaches": ("_Compiler._bundle",),
    "run recorded": ("Submission.submit",),
    "run loaded": ("Coordinator._load", "Coordinator._take_born"),
    "decisions": ("decide",),
    "placing": ("place",),
    "rows packed and signed": ("Commits.write",),
    "commit": ("SqliteDatabase._transact",),
    "function called, value encoded": ("InlineExecutor._run_calls", "InlineExecutor.poll"),
    "to the workers": ("Fleet.dispatch", "ProcessExecutor.dispatch"),
    "from the workers": ("Fleet.poll",),
    "waiting": ("Coordinator._wait", "WakePipe.wait", "Driving._sleep"),
    "results read": ("Run.result", "read_result"),
}
"""By name: the functions that a part begins with, the outer ones first."""
OF = {function: part for part, functions in PARTS.items() for function in functions}
WORK = ("timed", "Driving._background")
"""What is neither is not what is timed: imports, and the making of a store."""
_PLACE = re.compile(r" \([^()]*\)$")


def look(case: str, rate: int) -> Counter[str]:
    """Return how often each part was seen while a workload ran."""
    workload, _, executor = case.partition(":")
    engine = ENGINES["perdure" if executor == "inline" else "perdure-processes"]
    with tempfile.TemporaryDirectory(prefix="perdure-parts-") as name:
        folder, stacks = Path(name) / "work", Path(name) / "stacks"
        folder.mkdir()
        whose = "--gil" if workload == "W3" else "--idle"
        command = ["py-spy", "record", whose, "-r", str(rate), "-f", "raw", "-o", str(stacks), "--"]
        command += [sys.executable, str(ENGINES_FOLDER / engine.program)]
        command += [workload, str(SIZES[workload]), str(folder)]
        environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **engine.environ}
        subprocess.run(
            [shutil.which(command[0]) or command[0], *command[1:]],
            env=environ,
            check=True,
            capture_output=True,
        )
        return count(stacks.read_text().splitlines(), only_work=workload == "W3")


def count(stacks: Iterable[str], *, only_work: bool) -> Counter[str]:
    """Add the looks up: a line is a stack, its outermost function first, and how often."""
    seen: Counter[str] = Counter()
    for line in stacks:
        stack, _, times = line.rpartition(" ")
        functions = [_PLACE.sub("", frame) for frame in stack.split(";")]
        if any(function in WORK[: 2 if only_work else 1] for function in functions):
            parts = (OF[each] for each in reversed(functions) if each in OF)
            seen[next(parts, "the rest")] += int(times)
    return seen


def table(seen: dict[str, Counter[str]]) -> str:
    """Return the shares as Markdown."""
    lines = [f"| part | {' | '.join(seen)} |", "|---" * (len(seen) + 1) + "|"]
    for part in (*PARTS, "the rest"):
        shares = (counts[part] / counts.total() for counts in seen.values())
        lines.append(f"| {part} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.parts", description=__doc__)
    parser.add_argument("cases", nargs="*", default=DEFAULT, metavar="WORKLOAD:EXECUTOR")
    parser.add_argument("--rate", type=int, default=300, help="looks a second")
    chosen = parser.parse_args(arguments)
    for case in chosen.cases:
        workload, _, executor = case.partition(":")
        if workload not in SIZES or executor not in ("inline", "processes"):
            parser.error(f"{case}: {', '.join(SIZES)}, with :inline or :processes")
    if shutil.which("py-spy") is None:
        sys.exit("py-spy is missing: pip install py-spy")
    print(table({case: look(case, chosen.rate) for case in chosen.cases}))
    print(f"\n{circumstances(1)}")


if __name__ == "__main__":
    main()
