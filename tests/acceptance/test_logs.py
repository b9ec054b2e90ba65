"""`perdure logs`: what steps printed, as it was written, while the run goes on and after."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from perdure.cli.transcripts import Transcript
from perdure.client import Perdure
from perdure.settings import load_settings
from perdure_storage.protocols import LogStore
from perdure_storage.records import RunId, StepId

TRIES = dedent(
    """
    import pathlib, time
    from perdure import Backoff, task, workflow

    def stay_until(name):
        while not pathlib.Path(name).exists():
            time.sleep(0.02)

    @task(retries=1, backoff=Backoff("10ms"))
    def fit(n: int) -> int:
        tries = pathlib.Path("tries")
        tries.open("a").write("x")
        count = len(tries.read_text())
        print(f"try {count}", flush=True)
        stay_until(f"go-{count}")
        print("the end", end="")
        if count == 1:
            raise ValueError("no rows")
        return n

    @task
    def wide(n: int) -> int:
        print("much " * 40_000)
        return n

    @workflow
    def tries() -> int:
        return wide.bind(fit.bind(1))
    """
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder in which `one`, whose first step failed once, has run."""
    command_line = command_line_in(tmp_path_factory.mktemp("ended"))
    command_line.write("tries.py", TRIES)
    for name in ("go-1", "go-2"):
        (command_line.folder / name).touch()
    assert command_line("run", "--id", "one", "tries.py").code == 0
    return command_line


def test_logs_of_a_step_say_where_its_next_attempt_begins(ended: Any) -> None:
    assert ended("logs", "one", "fit").out == "try 1\nthe end\n--- attempt 2 ---\ntry 2\nthe end"


def test_logs_of_a_run_say_step_and_attempt_before_each_line(ended: Any) -> None:
    lines = ended("logs", "one").out.splitlines()

    assert lines[:4] == [
        "fit | try 1",
        "fit | the end",
        "fit, attempt 2 | try 2",
        "fit, attempt 2 | the end",
    ]
    assert lines[4].startswith("wide | much ")


def test_logs_are_an_object_a_line_as_json(ended: Any) -> None:
    objects = [json.loads(line) for line in ended("logs", "--json", "one", "fit").out.splitlines()]

    assert [(each["step"], each["attempt"], each["text"]) for each in objects] == [
        ("fit", 1, "try 1"),
        ("fit", 1, "the end"),
        ("fit", 2, "try 2"),
        ("fit", 2, "the end"),
    ]


def test_logs_end_quietly_when_nobody_reads_on(ended: Any) -> None:
    process = ended.start("logs", "one", "wide")

    process.stdout.read(10)
    process.stdout.close()

    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stdout = None


def test_following_shows_each_attempt_as_it_is_written_and_ends_with_the_run(
    perdure: Any,
) -> None:
    perdure.write("tries.py", TRIES)
    run = perdure.start("run", "--id", "one", "tries.py")
    perdure.wait_for_file("tries", run)
    follower = perdure.start("logs", "--follow", "one", "fit")

    first = follower.stdout.readline()
    (perdure.folder / "go-1").touch()
    second = [follower.stdout.readline() for _ in range(3)]
    (perdure.folder / "go-2").touch()
    rest, err = follower.communicate(timeout=60)

    assert first == "try 1\n"
    assert second == ["the end\n", "--- attempt 2 ---\n", "try 2\n"]
    assert (rest, err, follower.returncode) == ("the end", "", 0)


def test_ctrl_c_ends_following_quietly_with_130(perdure: Any) -> None:
    perdure.write("tries.py", TRIES)
    run = perdure.start("run", "--id", "one", "tries.py")
    perdure.wait_for_file("tries", run)
    follower = perdure.start("logs", "-f", "one")
    follower.stdout.readline()

    follower.send_signal(signal.SIGINT)
    rest, err = follower.communicate(timeout=60)

    assert (rest, err, follower.returncode) == ("", "", 130)


class CountingLogs:
    """Logs that note from where they are read."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        self.offsets: list[int] = []

    def append(self, run_id: RunId, step_id: StepId, gen: int, attempt: int, data: bytes) -> None:
        self._logs.append(run_id, step_id, gen, attempt, data)

    def read(
        self, run_id: RunId, step_id: StepId, gen: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        self.offsets.append(offset)
        return self._logs.read(run_id, step_id, gen, attempt, offset=offset)

    def delete(self, run_id: RunId) -> None:
        self._logs.delete(run_id)


def test_what_has_ended_is_read_once(ended: Any) -> None:
    store: Path = ended.folder / ".perdure" / "perdure.db"
    with Perdure(load_settings(store=str(store))) as perdure:
        logs = CountingLogs(perdure.runtime.logs)
        perdure.runtime.logs = logs
        transcript = Transcript(perdure, perdure.get_run("one"), "fit")

        first, second = list(transcript.read()), list(transcript.read())

    assert [printed.text for printed in first] == ["try 1\nthe end", "try 2\nthe end"]
    assert second == []
    assert logs.offsets == [0, 0]
