"""Many processes that write into one SQLite store at once: all wait their turn, none is refused."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure_storage.connect import open_run_store
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

WRITERS = 8
SECONDS = float(os.environ.get("PERDURE_TEST_WRITING_S", "5"))


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_no_writer_of_many_hears_that_the_database_is_locked(stage: Stage) -> None:
    path = stage.folder / "perdure.db"
    open_run_store(path).close()

    words = ("-m", "tests.crash.writers", str(path))
    writers = [stage.start(*words, str(number), str(SECONDS)) for number in range(WRITERS)]
    ends = [writer.communicate(timeout=100 + 2 * SECONDS) for writer in writers]

    assert [writer.returncode for writer in writers] == [0] * WRITERS, [err for _, err in ends]
    told = [json.loads(out) for out, _ in ends]
    runs, steps = sum(each["runs"] for each in told), sum(each["steps"] for each in told)
    assert min(each["runs"] for each in told) > 0
    check_all_is_there(path, runs, steps)
    longest = max(each["longest_s"] for each in told)
    print(f"{WRITERS} writers, {SECONDS:g} s: {runs} runs of 6 commits, longest {longest:.2f} s")
    tell_figures(runs=runs, commits=runs * 6)


def check_all_is_there(path: Path, runs: int, steps: int) -> None:
    """Say whether a database is whole, and has all that its writers were told is durable."""
    store = open_run_store(path)
    assert len(store.list_runs(RunQuery(status=(RunStatus.SUCCEEDED,), limit=10**7))) == runs
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM step").fetchone() == (steps,)
    connection.close()
