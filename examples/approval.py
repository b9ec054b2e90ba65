"""A run that waits for a person, through the end of the process that started it.

``python examples/approval.py``: one process starts a transfer that asks for approval and ends while
it waits; nobody drives the run then, and nothing is held for it. Another process sends the signal,
under a key, twice; a third one takes the run to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import perdure
from perdure import task, workflow

RUN = "transfer-1"


@task
def prepare(amount: int) -> str:
    """Say what is to be approved."""
    print(f"prepared in process {os.getpid()}")
    return f"a transfer of {amount}"


@task
def carry_out(what: str, approved: bool) -> str:
    """Do what was approved, or leave it."""
    return f"{what} was {'made' if approved else 'refused'}"


@workflow
def transfer(amount: int = 100) -> str:
    """Prepare, ask, carry out."""
    what = prepare.bind(amount)
    approved = perdure.wait_signal("approve", bool, timeout="3d", default=False, after=what)
    return carry_out.bind(what, approved)


def ask() -> None:
    """Start the run, wait until everything in it waits, and end."""
    perdure.submit(transfer, run_id=RUN)
    server = subprocess.Popen([sys.executable, "-m", "perdure", "up", "--executor", "inline"])
    try:
        run = perdure.get_run(RUN)
        while run.status != "WAITING":
            if server.poll() is not None:
                raise SystemExit("`perdure up` has ended before the run waited")
    finally:
        server.terminate()
        server.wait()
    print(f"{RUN} is {run.status}; driven by somebody: {run.is_driven}")
    print(run["wait_signal"].why())


def approve() -> None:
    """Say yes; a sender that is not sure whether it was heard says it again."""
    for _ in range(2):
        print("sent" if perdure.signal(RUN, "approve", True, dedup_key="boss") else "known already")


def go_on() -> None:
    """Take the run to its end."""
    print(perdure.resume(RUN).result())


PARTS = {"ask": ask, "approve": approve, "go_on": go_on}


def main() -> None:
    """Let three processes, one after the other, have their part in one run."""
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]]()
        return
    with tempfile.TemporaryDirectory() as folder:
        place = {"PERDURE_STORE": str(Path(folder) / "perdure.db"), "PERDURE_EXECUTOR": "inline"}
        for part in PARTS:
            print(f"--- {part}", flush=True)
            command = [sys.executable, str(Path(__file__).resolve()), part]
            subprocess.run(command, env={**os.environ, **place}, check=True)


if __name__ == "__main__":
    main()
