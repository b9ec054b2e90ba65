# /// script
# requires-python = ">=3.11"
# dependencies = ["dbos==3.4.0", "numpy>=2.0"]
# ///
"""DBOS Transact: on its SQLite (rollback journal, as it comes) or on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from common import Figures, append, interrupted, main, timed

POSTGRES = os.environ.get("ENGINE_POSTGRES")
COLD = """
import sys
from dbos import DBOS

DBOS(config={"name": "bench", "system_database_url": sys.argv[1], "log_level": "ERROR"})

@DBOS.step()
def answer() -> int:
    return 42

@DBOS.workflow()
def cold() -> int:
    return answer()

if __name__ == "__main__":
    DBOS.launch()
    assert cold() == 42
    DBOS.destroy()
"""


def url(folder: Path) -> str:
    return POSTGRES or f"sqlite:///{folder / 'dbos.db'}"


def launched(folder: Path):
    from dbos import DBOS, SetWorkflowID

    DBOS(config={"name": "bench", "system_database_url": url(folder), "log_level": "ERROR"})

    @DBOS.step()
    def add_one(n: int) -> int:
        return n + 1

    @DBOS.step()
    def note(n: int, ledger: str) -> int:
        append(ledger, n)
        return n + 1

    @DBOS.workflow()
    def chain(steps: int) -> int:
        value = 0
        for _ in range(steps):
            value = add_one(value)
        return value

    @DBOS.workflow()
    def noted(steps: int, ledger: str) -> int:
        value = 0
        for _ in range(steps):
            value = note(value, ledger)
        return value

    workflows = {"chain": chain, "noted": noted}
    DBOS.launch()
    return DBOS, SetWorkflowID, workflows


def chain(size: int, folder: Path) -> Figures:
    dbos, _, workflows = launched(folder)
    figures = timed(lambda: workflows["chain"](size), size)
    dbos.destroy()
    return figures


def fan_out(size: int, folder: Path) -> Figures:
    """Steps of one workflow, run together by asyncio: DBOS has no cheaper fan-out."""
    import asyncio

    from dbos import DBOS

    dbos, _, _ = launched(folder)

    @DBOS.step()
    async def nothing(n: int) -> int:
        return n

    @DBOS.workflow()
    async def gather(steps: int) -> int:
        return sum(await asyncio.gather(*(nothing(n) for n in range(steps))))

    figures = timed(lambda: asyncio.run(gather(size)), sum(range(size)))
    dbos.destroy()
    return figures


def many_runs(size: int, folder: Path) -> Figures:
    dbos, _, workflows = launched(folder)

    def work() -> list[int]:
        handles = [dbos.start_workflow(workflows["chain"], 5) for _ in range(size)]
        return [handle.get_result() for handle in handles]

    figures = timed(work, [5] * size)
    dbos.destroy()
    return figures


def resumed(size: int, folder: Path) -> Figures:
    ledger = folder / "ledger"
    command = [sys.executable, __file__, "noted", str(size), str(folder)]
    return interrupted(command, ledger, size)


def noted(size: int, folder: Path) -> Figures:
    dbos, with_id, workflows = launched(folder)

    def work() -> int:
        with with_id("noted"):
            return dbos.start_workflow(
                workflows["noted"], size, str(folder / "ledger")
            ).get_result()

    figures = timed(work, size)
    dbos.destroy()
    return figures


def cold(size: int, folder: Path) -> Figures:
    script = folder / "cold.py"
    script.write_text(COLD)
    begin = time.perf_counter()
    command = [sys.executable, str(script), url(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    main(
        {
            "W1": chain,
            "W2": fan_out,
            "W3": many_runs,
            "W5": resumed,
            "W6": cold,
            "noted": noted,
        },
        {"store": "PostgreSQL" if POSTGRES else "SQLite, its own settings"},
        "dbos",
    )
