# /// script
# requires-python = ">=3.11"
# dependencies = ["prefect==3.9.1"]
# ///
"""Prefect 3: a server of its own on SQLite, results persisted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from common import Figures, main, timed

COLD = """
from prefect import flow, task

@task(persist_result=True)
def answer() -> int:
    return 42

@flow(persist_result=True)
def cold() -> int:
    return answer()

if __name__ == "__main__":
    assert cold() == 42
"""


def _settings(folder: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }


def chain(size: int, folder: Path) -> Figures:
    os.environ.update(_settings(folder))
    from prefect import flow, task

    @task(persist_result=True)
    def add_one(n: int) -> int:
        return n + 1

    @flow(persist_result=True)
    def chained(steps: int) -> int:
        value = 0
        for _ in range(steps):
            value = add_one(value)
        return value

    chained(1)  # its server starts with the first flow
    return timed(lambda: chained(size), size)


def fan_out(size: int, folder: Path) -> Figures:
    os.environ.update(_settings(folder))
    from prefect import flow, task

    @task(persist_result=True)
    def nothing(n: int) -> int:
        return n

    @flow(persist_result=True)
    def gathered(steps: int) -> int:
        return sum(future.result() for future in nothing.map(range(steps)))

    gathered(1)
    return timed(lambda: gathered(size), sum(range(size)))


def cold(size: int, folder: Path) -> Figures:
    script = folder / "cold.py"
    script.write_text(COLD)
    environ = {**os.environ, **_settings(folder)}
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(script)], env=environ, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    main({"W1": chain, "W2": fan_out, "W6": cold}, {"store": "SQLite, its own settings"}, "prefect")
