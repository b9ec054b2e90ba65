"""Runs that sleep in one ``perdure up``: memory, CPU, and how late those wake that are due at once.

``python -m tests.benchmarks.sleepers [RUNS] [DUE] [STORE]``: records RUNS runs, lets one ``perdure
up`` (inline) drive them until all sleep, DUE of them until one and the same time, the others for an
hour, and looks at the process while nothing is due and at the rows afterwards. When a run wakes, a
step of it runs, and then it ends. STORE is a PostgreSQL URL, or by default a new SQLite file.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import psutil

import perdure
from perdure import workflow
from perdure.client import Perdure, open_store
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import RunId, RunQuery, StepRecord

SETTLE_S = 5.0
"""How long it is left alone before: what it still puts away of the last that fell asleep is work
that comes of them, and not of nothing."""
LOOK_S = 10.0
"""How long the process is looked at while nothing is due."""
HEAD_START_S = 15.0
"""How long before their time the runs that are due together are to sleep: at least, and"""
HEAD_START_EACH_S = 0.03
"""more for each of them, as they have to be recorded and to fall asleep before."""
REQUESTS = 20
"""How many runs are recorded, one after the other, to see how soon another process begins them."""


@workflow
def sleeps(until: datetime) -> str:
    """Sleep until a time, then run a step."""
    return woke.options(after=perdure.sleep(left.bind(until))).bind()


@perdure.task(cpus=0)
def left(until: datetime) -> float:
    """Return the seconds that are left until a time."""
    return max(0.0, (until - datetime.now(until.tzinfo)).total_seconds())  # noqa: TID251


@perdure.task(cpus=0)
def woke() -> str:
    """Run after the sleep."""
    return "awake"


@workflow
def nudged() -> str:
    """Run a step, as soon as it is seen that it is there."""
    return woke.bind()


def main(runs: int, due: int, store: str = "") -> None:
    """Measure, and print a line a figure."""
    for name, figure in figures(runs, due, store).items():
        print(f"{name.replace('_', ' ')}: {figure:.3g}")


def figures(runs: int, due: int, store: str = "") -> dict[str, float]:
    """Return what was measured, by name; times in seconds."""
    logging.disable(logging.WARNING)  # of each run: that nobody drives it yet
    with tempfile.TemporaryDirectory() as folder:
        where = store or str(Path(folder) / "perdure.db")
        blobs = str(Path(folder) / "blobs")
        with open_store(where, blobs=blobs, executor="inline") as client:
            place = {"PERDURE_STORE": where, "PERDURE_BLOBS": blobs}
            return measure(client, place, runs, due)


def measure(client: Perdure, place: dict[str, str], runs: int, due: int) -> dict[str, float]:
    """Record runs, serve them from another process, look."""
    now = client.runtime.clock.now
    late = now() + timedelta(hours=1)
    found: dict[str, float] = {}
    found["recorded_s"] = record(client, [(f"late-{n:06}", late) for n in range(runs - due)])
    command = [sys.executable, "-m", "perdure", "up", "--executor", "inline"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **place})
    try:
        process = psutil.Process(server.pid)
        began = time.perf_counter()
        wait_until_asleep(client, server)
        found["fell_asleep_s"] = time.perf_counter() - began
        # Before those are recorded that are due soon: no machine is too slow for nothing to be due.
        threading.Event().wait(SETTLE_S)
        used = cpu_s(process)
        threading.Event().wait(LOOK_S)
        found["idle_cpu_share"] = (cpu_s(process) - used) / LOOK_S
        together = now() + timedelta(seconds=HEAD_START_S + due * HEAD_START_EACH_S)
        names = [f"due-{number:06}" for number in range(due)]
        record(client, [(name, together) for name in names])
        wait_until_asleep(client, server)
        # Below nothing: some were due before all slept, and their lateness says too much.
        found["asleep_before_due_s"] = (together - now()).total_seconds()
        found["idle_mb"] = process.memory_info().rss / 2**20
        while any(client.get_run(name).status not in RUN_TERMINAL for name in reversed(names)):
            threading.Event().wait(0.5)
        found["mb_after"] = process.memory_info().rss / 2**20
        found["request_seen_s"] = max(seen(client) for _ in range(REQUESTS))
    finally:
        server.terminate()
        server.wait()
    return found | lateness(client, names)


def seen(client: Perdure) -> float:
    """Return how long after a run was recorded, while nothing else is due, its step begins."""
    run = client.submit(nudged)
    run.wait()
    record = client.runtime.store.get_run(RunId(run.id))
    (step,) = client.runtime.store.list_steps(RunId(run.id))
    assert step.started_at is not None
    return (step.started_at - record.created_at).total_seconds()


def record(client: Perdure, runs: Sequence[tuple[str, datetime]]) -> float:
    """Submit runs under their ids; return the seconds that it took."""
    began = time.perf_counter()
    for name, until in runs:
        client.submit(sleeps, until=until, run_id=name)
    return time.perf_counter() - began


def wait_until_asleep(client: Perdure, server: subprocess.Popen[bytes]) -> None:
    """Return when no run is queued or runs."""
    awake = RunQuery(status=(RunStatus.QUEUED, RunStatus.RUNNING), limit=1)
    while client.runtime.store.list_runs(awake):
        assert server.poll() is None, "`perdure up` is gone"
        threading.Event().wait(0.2)


def lateness(client: Perdure, names: Sequence[str]) -> dict[str, float]:
    """Return how late each part of a wake-up was, counted from the deadline of that very sleep."""
    store = client.runtime.store
    spans: dict[str, list[float]] = {"decided": [], "next_step": [], "ended": []}
    deadlines = []
    for name in names:
        [wait] = store.list_waits(RunId(name))
        steps: dict[str, StepRecord] = {row.step_id: row for row in store.list_steps(RunId(name))}
        times = (
            steps["sleep"].finished_at,
            steps["woke"].started_at,
            store.get_run(RunId(name)).finished_at,
        )
        assert wait.deadline is not None
        deadlines.append(wait.deadline)
        for span, at in zip(spans.values(), times, strict=True):
            assert at is not None
            span.append((at - wait.deadline).total_seconds())
    found = {"due_within_s": (max(deadlines) - min(deadlines)).total_seconds()}
    for what, seconds in spans.items():
        seconds.sort()
        found[f"{what}_median_s"] = seconds[len(seconds) // 2]
        found[f"{what}_99_s"] = seconds[len(seconds) * 99 // 100]
        found[f"{what}_last_s"] = seconds[-1]
    return found


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    runs, due, *store = [*sys.argv[1:], *("10000", "1000")[len(sys.argv) - 1 :]]
    main(int(runs), int(due), *store)
