"""Two processes with one run id: one drives, the other waits, and takes over if it dies."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.acceptance.conftest import CommandLine
from tests.acceptance.test_runs import until

FLOW = """
import os
import time
from pathlib import Path
from perdure import task, workflow


@task
def first() -> int:
    with open("ledger", "a") as file:
        file.write("first ")
    return 1


@task
def second(x: int) -> int:
    with open("ledger", "a") as file:
        file.write("second ")
    while not Path("go").exists():
        time.sleep(0.02)
    return x + 1


@workflow
def flow() -> int:
    return second.bind(first.bind())
"""


def test_second_process_attaches_and_takes_over_when_the_first_is_killed(
    perdure: CommandLine,
) -> None:
    path = perdure.write("flow.py", FLOW)
    ledger = Path(perdure.folder / "ledger")
    driver = perdure.start("run", "--id", "x", path)
    until(lambda: ledger.exists() and "second" in ledger.read_text())
    attached = perdure.start("run", "--id", "x", path)
    until(lambda: attached.poll() is None)

    driver.send_signal(signal.SIGKILL)
    driver.wait()
    until(lambda: ledger.read_text().count("second") == 2)
    (perdure.folder / "go").touch()
    out, err = attached.communicate(timeout=60)

    assert attached.returncode == 0, err
    assert out.strip() == "2"
    assert ledger.read_text().split() == ["first", "second", "second"]
