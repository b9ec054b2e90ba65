"""Many processes that write into one SQLite store at once: all wait their turn, none is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import psutil
import pytest
from tests.crash.ledger import wait_until
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure_storage.connect import open_run_store
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

WRITERS = 8
COPIES = int(os.environ.get("PERDURE_TEST_COPIES", "10"))
COPIED_WRITERS = 3
STOPPED = psutil.STATUS_STOPPED
SEED = int(os.environ.get("PERDURE_TEST_COPIES_SEED", "1"))
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


@pytest.mark.timeout(120 + 6 * COPIES)  # each is of a larger store
def test_files_as_they_are_at_any_instant_have_all_that_was_told_till_then(stage: Stage) -> None:
    """The writers are stopped wherever they are, and the files copied, as by a crash."""
    path, rng = stage.folder / "perdure.db", random.Random(SEED)
    open_run_store(path).close()
    heard = [stage.folder / f"heard-{number}" for number in range(COPIED_WRITERS)]
    words = ("-m", "tests.crash.writers", str(path))
    writers = [
        stage.start(*words, str(number), str(10**6), str(file)) for number, file in enumerate(heard)
    ]
    wait_until(lambda: all(file.exists() for file in heard), 60, "they do not write")

    ended = 0
    for number in range(COPIES):
        time.sleep(rng.uniform(0, 0.2))  # an instant by chance is what is asked for
        for writer in writers:
            writer.send_signal(signal.SIGSTOP)
        for writer in writers:
            wait_until(lambda: psutil.Process(writer.pid).status() == STOPPED, 10, "it goes on")  # noqa: B023
        copy = stage.folder / f"copy-{number}" / path.name
        copy.parent.mkdir()
        for file in stage.folder.glob("perdure.db*"):
            if not file.name.endswith("-shm"):  # which a crash of the machine leaves to nobody
                shutil.copyfile(file, copy.with_name(file.name))
        told = {run_id for file in heard for run_id in file.read_text().split()}
        for writer in writers:
            writer.send_signal(signal.SIGCONT)
        check_has(copy, told)
        shutil.rmtree(copy.parent)
        ended = len(told)

    assert [writer.poll() for writer in writers] == [None] * COPIED_WRITERS
    assert ended > COPIES
    tell_figures(copies=COPIES)


def check_has(path: Path, told: set[str]) -> None:
    """Say whether a database is whole, and these runs have ended in it with all their steps."""
    store = open_run_store(path)
    found = store.list_runs(RunQuery(status=(RunStatus.SUCCEEDED,), limit=10**7))
    assert told <= {run.id for run in found}
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (steps,) = connection.execute("SELECT count(*) FROM step").fetchone()
    assert steps >= 3 * len(told)
    connection.close()


def check_all_is_there(path: Path, runs: int, steps: int) -> None:
    """Say whether a database is whole, and has all that its writers were told is durable."""
    store = open_run_store(path)
    assert len(store.list_runs(RunQuery(status=(RunStatus.SUCCEEDED,), limit=10**7))) == runs
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM step").fetchone() == (steps,)
    connection.close()
