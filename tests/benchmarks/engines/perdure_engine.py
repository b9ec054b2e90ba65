"""perdure, with full durability: on SQLite or PostgreSQL, inline or in worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from common import Figures, interrupted, main, timed

EXECUTOR = os.environ.get("ENGINE_EXECUTOR", "inline")
POSTGRES = os.environ.get("ENGINE_POSTGRES")
COLD = """
from perdure import task, workflow

@task
def answer() -> int:
    return 42

@workflow
def cold() -> int:
    return answer.bind()

if __name__ == "__main__":
    assert cold.run() == 42
"""


def store(folder: Path) -> str:
    return POSTGRES or str(folder / "perdure.db")


def client(folder: Path):
    import perdure

    opened = perdure.open(store(folder), blobs=str(folder / "blobs"), executor=EXECUTOR)
    opened.runtime  # noqa: B018 - the store is made before the clock starts
    return opened


def chain(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.chain.run(size), size)


def fan_out(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.fan_out.run(size), sum(range(size)))


def many_runs(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    def work() -> list[int]:
        runs = [steps.five.start(n) for n in range(size)]
        return [run.result() for run in runs]

    with client(folder):
        return timed(work, [n + 5 for n in range(size)])


def large(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.large.run(size), size * 131_072 - 1.0)


def resumed(size: int, folder: Path) -> Figures:
    ledger = folder / "ledger"
    command = [sys.executable, __file__, "noted", str(size), str(folder)]
    return interrupted(command, ledger, size)


def noted(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.noted.run(size, str(folder / "ledger"), run_id="noted"), size)


def cold(size: int, folder: Path) -> Figures:
    script = folder / "cold.py"
    script.write_text(COLD)
    environ = {**os.environ, "PERDURE_STORE": store(folder), "PERDURE_EXECUTOR": EXECUTOR}
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(script)], env=environ, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - begin}


def spread(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.spread.run(size), size)


if __name__ == "__main__":
    main(
        {
            "W1": chain,
            "W2": fan_out,
            "W3": many_runs,
            "W4": large,
            "W5": resumed,
            "W6": cold,
            "W7": spread,
            "noted": noted,
        },
        {
            "executor": EXECUTOR,
            "store": "PostgreSQL" if POSTGRES else "SQLite, WAL, synchronous=FULL",
        },
        "perdure",
        "sqlalchemy",
    )
