"""A team's store: two coordinators share 200 runs; one is killed, then the database restarts.

    python examples/team/team.py            # about a minute
    python examples/team/team.py --runs 20

Rows are in PostgreSQL, values in S3; both are servers on this machine. Two `perdure up` work off
what was submitted. When a third is done, one of them is killed by SIGKILL with its workers; when
two thirds are, the database is restarted. In the end all results are right, and nothing that was
committed has run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil
from orders import LEDGER, expected, order
from servers import S3, Postgres

import perdure
from perdure import Perdure

WITHIN_S = 300


def main() -> int:
    """Play it; return 0 if all came as it must."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ[LEDGER] = str(Path(folder, "ledger"))
        postgres = Postgres()
        stack.callback(postgres.remove)
        s3 = S3()
        stack.callback(s3.remove)
        os.environ |= {"PERDURE_STORE": postgres.url, "PERDURE_BLOBS": s3.url}
        os.environ["PERDURE_KEY"] = "6b" * 32
        return play(runs, postgres)


def play(runs: int, postgres: Postgres) -> int:
    """Let two coordinators work off the runs, through a death and a restart."""
    began = time.monotonic()
    with perdure.open() as client:
        ids = [client.submit(order, number=n, run_id=f"order-{n}").id for n in range(runs)]
        coordinators = [serve(), serve()]
        try:
            wait_until(lambda: begun() >= runs)  # of three steps each
            victim = next(each for each in coordinators if runs_of(client, each))
            left = runs_of(client, victim)
            killed_at = kill(client, victim)
            wait_until(lambda: begun() >= 2 * runs)
            postgres.stop()
            postgres.start()
            print(f"the database was restarted with {runs - done(client)} runs to go")
            wait_until(lambda: done(client) == runs)
        finally:
            for each in coordinators:
                each.terminate()
                each.wait()
        takeover_s = [taken_over(client, run_id, killed_at) for run_id in left]
        right = sum(client.get_run(run_id).result() == expected(n) for n, run_id in enumerate(ids))
    doubled, executions = count()
    print(f"taken over from the one that was killed: {len(left)} runs,")
    print(f"the last {max(takeover_s, default=0):.2f} s after its death")
    print(f"right results: {right} of {runs}, in {time.monotonic() - began:.0f} s")
    print(f"steps that ran: {executions}, of which cut off or begun anew: {executions - 3 * runs}")
    print(f"committed steps that ran twice: {doubled}")
    return 0 if right == runs and not doubled else 1


def serve() -> subprocess.Popen[bytes]:
    """Start a coordinator: on another machine it would be the same command."""
    words = ["-m", "perdure", "up", "--no-http", "--workers", "2"]
    return subprocess.Popen([sys.executable, *words], cwd=Path(__file__).parent)


def done(client: Perdure) -> int:
    """Count the runs that have succeeded."""
    return len(client.list_runs(status="SUCCEEDED", limit=10_000))


def runs_of(client: Perdure, coordinator: subprocess.Popen[bytes]) -> list[str]:
    """Return the runs that a coordinator drives now."""
    running = client.list_runs(status="RUNNING", limit=10_000)
    return [
        run.id
        for run in running
        if run.record.owner is not None and run.record.owner.pid == coordinator.pid
    ]


def kill(client: Perdure, coordinator: subprocess.Popen[bytes]) -> datetime:
    """Kill a coordinator and its workers, so that nobody can tidy up; return when that was."""
    below = psutil.Process(coordinator.pid).children(recursive=True)
    coordinator.kill()
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    coordinator.wait()
    return client.runtime.clock.now()


def taken_over(client: Perdure, run_id: str, since: datetime) -> float:
    """Return how long after a death a run had another owner; 0 if it had ended before."""
    events = client.get_run(run_id).events()
    taken = (event.at for event in events if event.kind == "taken over" and event.at >= since)
    return (next(taken, since) - since).total_seconds()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds. While the database is away nobody can say."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(perdure.StoreError):
            if holds():
                return
        time.sleep(0.1)
    raise SystemExit("it does not come to its end")


def begun() -> int:
    """Count the steps that have begun, as the ledger has them."""
    ledger = Path(os.environ[LEDGER])
    return ledger.read_text().count('"began"') if ledger.exists() else 0


def count() -> tuple[int, int]:
    """Count in the ledger what ran again though its result had been used, and what ran at all."""
    lines = [json.loads(line) for line in Path(os.environ[LEDGER]).read_text().splitlines()]
    used: set[tuple[str, str]] = set()
    doubled = executions = 0
    for line in lines:
        if line["event"] == "began":
            executions += 1
            doubled += (line["run"], line["step"]) in used
            used |= {(line["run"], step) for step in line["uses"]}
    return doubled, executions


if __name__ == "__main__":
    sys.exit(main())
