"""A pipeline of 40 steps that kills itself half-way, and is resumed as if nothing had happened.

    perdure run examples/survive_kill.py      # dies by SIGKILL, with all its workers
    perdure resume ID                         # as printed when the run began
    python examples/survive_kill.py           # does both, each in a process of its own

It adds up the primes below two million: four lanes of nine blocks, two sums of two lanes, their
total, and a report. Half-way one worker kills the coordinator, the other workers and itself with
SIGKILL, so that nobody can tidy anything up.

How often each step ran is counted outside of perdure: every step appends lines to a ledger, a
file that perdure does not know. That a step began with a result is proof that this result had
been committed, so what was committed and ran again all the same can be counted honestly.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path

import psutil

from perdure import current, task, workflow

LIMIT = 2_000_000
LANES, BLOCKS = 4, 9
HALF_WAY = 20
EXPECTED = 142_913_828_922  # Source: Project Euler, problem 10.


@dataclass(frozen=True)
class Line:
    """One thing that happened: a step of a run began or ran (to its end), or killed everything."""

    run: str
    event: str
    step: str
    uses: list[str]


@dataclass(frozen=True)
class Ledger:
    """The file of what happened, written through to the disk line by line."""

    folder: Path

    def write(self, event: str, step: str, *uses: str) -> None:
        """Append one line; a kill right after it does not lose it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = Line(current().run_id, event, step, list(uses))
        with (self.folder / "ledger.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(line)).encode() + b"\n")
            os.fsync(file.fileno())

    def lines(self) -> list[Line]:
        """Return this run's lines, in the order in which they were written."""
        text = (self.folder / "ledger.jsonl").read_text()
        lines = [Line(**json.loads(line)) for line in text.splitlines()]
        return [line for line in lines if line.run == current().run_id]

    def admits_kill(self) -> bool:
        """Say yes to one caller for each run, once half of the steps have run."""
        if sum(line.event == "ran" for line in self.lines()) < HALF_WAY:
            return False
        try:
            (self.folder / f"killed-{current().run_id.replace('/', '_')}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@task
def add_block(so_far: int, lane: int, block: int, ledger: Ledger) -> int:
    """Add the primes of one block to the sum of its lane."""
    step = f"block {lane}.{block}"
    uses = [f"block {lane}.{block - 1}"] if block else []
    ledger.write("began", step, *uses)
    if ledger.admits_kill():
        ledger.write("killed", step)
        kill_everything()
    index = lane * BLOCKS + block
    total = so_far + sum_of_primes(edge(index), edge(index + 1))
    ledger.write("ran", step, *uses)
    return total


@task
def add(step: str, left: int, right: int, uses: list[str], ledger: Ledger) -> int:
    """Add two sums."""
    ledger.write("began", step, *uses)
    ledger.write("ran", step, *uses)
    return left + right


@task
def report(total: int, ledger: Ledger) -> str:
    """Compare the sum with the known one, and read from the ledger what ran how often."""
    ledger.write("began", "report", "total")
    ledger.write("ran", "report", "total")
    verdict = "right" if total == EXPECTED else f"WRONG: it is {EXPECTED}"
    return "\n".join([f"sum of the primes below {LIMIT}: {total} ({verdict})", *counts(ledger)])


@workflow
def survive_kill(folder: Path = Path("survive-kill")) -> str:
    """Add up the primes below two million in 40 steps, one of which kills all the others."""
    ledger = Ledger(folder)
    lanes = []
    for lane in range(LANES):
        total = 0
        for block in range(BLOCKS):
            total = add_block.bind(total, lane, block, ledger)
        lanes.append(total)
    last = [f"block {lane}.{BLOCKS - 1}" for lane in range(LANES)]
    left = add.bind("left", lanes[0], lanes[1], last[:2], ledger)
    right = add.bind("right", lanes[2], lanes[3], last[2:], ledger)
    return report.bind(add.bind("total", left, right, ["left", "right"], ledger), ledger)


def edge(index: int) -> int:
    """Return where block ``index`` begins; the last one ends at the limit."""
    return LIMIT * index // (LANES * BLOCKS)


def sum_of_primes(start: int, stop: int) -> int:
    """Return the sum of the primes in [start, stop), by trial division: work for a CPU."""
    divisors = [n for n in range(2, isqrt(stop) + 1) if is_prime(n, range(2, isqrt(n) + 1))]
    return sum(n for n in range(max(start, 2), stop) if is_prime(n, divisors))


def is_prime(n: int, divisors: list[int] | range) -> bool:
    """Say whether none of the ascending ``divisors`` up to the root of n divides n."""
    root = isqrt(n)
    for divisor in divisors:
        if divisor > root:
            return True
        if n % divisor == 0:
            return False
    return True


def kill_everything() -> None:
    """SIGKILL the coordinator, all its workers and this process: no handler runs, no flush."""
    me = psutil.Process()
    above = next((each for each in me.parents() if not is_worker(each)), None)
    if is_worker(me) and above is not None:
        for victim in [above, *above.children(recursive=True)]:
            if victim != me:
                victim.kill()
    me.kill()


def is_worker(process: psutil.Process) -> bool:
    """Say whether perdure started the process for its steps; its coordinator is above those."""
    return any("perdure.worker" in word for word in process.cmdline())


def counts(ledger: Ledger) -> list[str]:
    """Say how many steps ran before the kill, after it, and twice."""
    lines = ledger.lines()
    kill = next((i for i, line in enumerate(lines) if line.event == "killed"), len(lines))
    before, after = lines[:kill], lines[kill:]
    committed = {step for line in before for step in line.uses}
    again = {line.step for line in before} & {line.step for line in after if line.event == "began"}
    return [
        f"steps that ran before the kill: {sum(line.event == 'ran' for line in before)}",
        f"steps that ran after it: {sum(line.event == 'ran' for line in after)}",
        f"in flight when it came, so begun again: {len(again - committed)}",
        f"committed steps that ran twice: {len(again & committed)}",
    ]


def main() -> int:
    """Run it in one process, which dies; resume it in another, which prints the report."""
    run_id = f"survive-kill-{secrets.token_hex(4)}"
    perdure = [sys.executable, "-m", "perdure"]
    first = subprocess.run([*perdure, "run", "--id", run_id, __file__], check=False)
    if first.returncode != -signal.SIGKILL:
        print(f"expected a death by SIGKILL, got exit code {first.returncode}", file=sys.stderr)
        return 1
    print("killed; resuming it from another process", file=sys.stderr)
    return subprocess.run([*perdure, "resume", run_id], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
