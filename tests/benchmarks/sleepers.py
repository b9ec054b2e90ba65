"""Runs that sleep in one ``perdure up``: memory, CPU, and how late those wake that are due at once.

``python -m tests.benchmarks.sleepers [RUNS] [DUE]``: records RUNS runs that sleep for an hour, but
DUE of them until one and the same time, lets one ``perdure up`` drive them, and looks at the
process while nothing is due and at the rows afterwards. Standard error says of each that it is
recorded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import psutil

import perdure
from perdure import workflow
from perdure.client import Perdure, open_store
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

LOOK_S = 5.0
"""How long the process is looked at while nothing is due."""


@workflow
def sleeps(until: datetime) -> None:
    """Sleep until a time."""
    perdure.sleep(left.bind(until))


@perdure.task(cpus=0)
def left(until: datetime) -> float:
    """Return the seconds that are left until a time."""
    return max(0.0, (until - datetime.now(until.tzinfo)).total_seconds())  # noqa: TID251


def main(runs: int, due: int) -> None:
    """Measure, and print a line a figure."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "perdure.db")
        with open_store(store, executor="inline") as client:
            measure(client, store, runs, due)


def measure(client: Perdure, store: str, runs: int, due: int) -> None:
    """Record runs, serve them from another process, look."""
    now = client.runtime.clock.now()
    late = now + timedelta(hours=1)
    # Long enough that all of them sleep by then, on a busy machine too.
    together = now + timedelta(seconds=20 + runs * 0.03)
    for number in range(runs):
        until = together if number < due else late
        client.submit(sleeps, until=until, run_id=f"run-{number:06}")
    command = [sys.executable, "-m", "perdure", "up", "--executor", "inline", "--store", store]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        process = psutil.Process(server.pid)
        began = time.perf_counter()
        while count(client, RunStatus.WAITING) < runs:
            threading.Event().wait(0.5)
        print(f"{runs} runs sleep after {time.perf_counter() - began:.1f} s")
        used = cpu_s(process)
        threading.Event().wait(LOOK_S)
        print(f"memory of perdure up: {process.memory_info().rss / 2**20:.0f} MB")
        print(f"CPU while nothing is due: {(cpu_s(process) - used) / LOOK_S:.1%} of a core")
        while count(client, RunStatus.SUCCEEDED) < due:
            threading.Event().wait(0.5)
    finally:
        server.terminate()
        server.wait()
    ended = [client.get_run(f"run-{number:06}").record.finished_at or late for number in range(due)]
    lateness = sorted((at - together).total_seconds() for at in ended)
    print(f"{due} due at once: {lateness[0]:.2f} s late at best, {lateness[-1]:.2f} s at worst")


def count(client: Perdure, status: RunStatus) -> int:
    """Count the runs of a status."""
    return len(client.runtime.store.list_runs(RunQuery(status=(status,), limit=1_000_000)))


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "10000", "1000"][:2]))
