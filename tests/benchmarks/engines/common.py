"""What the programs of all engines have in common; each runs in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
Workload = Callable[[int, Path], Figures]
BUSY_S = 0.25
NO_WORKLOAD = 3
"""Exit code of a program that has no such workload."""
PATIENCE_S = 600.0
LOOK_EACH_S = 1e-5
"""Between two looks at the ledger, for each step: to read it takes a core, too."""


def main(workloads: dict[str, Workload], settings: Figures, *packages: str) -> None:
    """Run the workload that the command line names; print what it came to as JSON.

    The words are a workload, its size and a folder that is the program's own.
    """
    name, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if name not in workloads:
        has = ", ".join(each for each in workloads if each not in ("noted", "resume"))
        print(f"{Path(sys.argv[0]).stem} has no {name}: it has {has}", file=sys.stderr)
        sys.exit(NO_WORKLOAD)
    figures = workloads[name](size, folder)
    figures["peak_mb"] = round(peak_mb(), 1)
    said = {**figures, "settings": settings, "versions": versions(*packages)}
    print(json.dumps(said))


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_mb(process: int | str = "self") -> float:
    """Return the memory that a process has for itself, in MB: without files that it maps."""
    words = Path(f"/proc/{process}/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) / 1024


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def timed(work: Callable[[], Any], expected: Any) -> Figures:
    """Return the seconds that some work takes, and how long this process computed meanwhile.

    It has to give what is expected.
    """
    begin, cpu = time.perf_counter(), time.process_time()
    got = work()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    if got != expected:
        raise SystemExit(f"wrong result: {got!r:.200} instead of {expected!r:.200}")
    return {"seconds": seconds, "cpu_s": cpu_s}


def burn() -> int:
    """Compute in plain Python for about a quarter of a second of this core's time."""
    until = time.thread_time() + BUSY_S
    count = 0
    while time.thread_time() < until:
        for _ in range(1000):
            count += 1
    return 1


def interrupted(
    command: list[str], ledger: Path, steps: int, *, again: list[str] | None = None
) -> Figures:
    """Kill a run half-way, begin it again in a new process, and say what that came to.

    Args:
        command: runs it; its steps append a line of their number and ``time.time()``.
        ledger: the file that they append to.
        steps: how many there are.
        again: goes on with it; by default the same command.
    """
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + PATIENCE_S
    while len(lines(ledger)) < steps // 2:
        if first.poll() is not None or time.monotonic() > until:
            raise SystemExit("the run ended before it could be killed")
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(steps * LOOK_EACH_S)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = lines(ledger)
    begin = time.time()  # noqa: TID251 - other processes' clocks are compared with it
    subprocess.run(again or command, stdout=subprocess.DEVNULL, check=True)
    seconds = time.time() - begin  # noqa: TID251
    new = lines(ledger)[len(before) :]
    # The one that ran when it was killed may have written its line without being committed.
    twice = len({number for number, _ in before[:-1]} & {number for number, _ in new})
    done = {number for number, _ in (*before, *new)}
    if len(done) != steps:
        raise SystemExit(f"{len(done)} of {steps} steps ran")
    return {"seconds": seconds, "first_new_step_s": new[0][1] - begin, "run_twice": twice}


def lines(ledger: Path) -> list[tuple[int, float]]:
    """Return the lines that steps have appended."""
    if not ledger.exists():
        return []
    words = (line.split() for line in ledger.read_text().splitlines())
    return [(int(parts[0]), float(parts[1])) for parts in words if len(parts) == 2]


def append(ledger: str, number: int) -> None:
    """Append the line of a step."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{number} {time.time()}\n".encode())  # noqa: TID251
    os.close(descriptor)
