"""What programs read of the command line: ``--json``, exit codes, pipes that close."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from textwrap import dedent
from typing import Any

import pytest

WORKFLOWS = dedent(
    """
    import pathlib
    import time
    from perdure import task, workflow

    @task
    def double(n: int) -> int:
        return 2 * n

    @task
    def bad() -> int:
        raise ValueError("no rows")

    @task
    def stay() -> int:
        pathlib.Path("staying").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        return 1

    @workflow
    def doubles(k: int = 3, path: str = "") -> int:
        return double.bind(k)

    @workflow
    def fails() -> int:
        return bad.bind()

    @workflow
    def stays() -> int:
        return stay.bind()
    """
)


@pytest.fixture
def command_line(perdure: Any) -> Any:
    perdure.write("w.py", WORKFLOWS)
    return perdure


def test_failed_run_is_printed_as_json_with_its_error(command_line: Any) -> None:
    ended = command_line("run", "--json", "--id", "one", "w.py:fails")

    printed = json.loads(ended.out)
    assert ended.code == 1
    assert (printed["id"], printed["status"]) == ("one", "FAILED")
    assert printed["error"]["message"] == "no rows"
    assert "perdure resume one --code current" in ended.err


def test_detached_run_is_printed_as_json_and_may_be_asked_by_verbs(command_line: Any) -> None:
    detached = command_line("run", "--json", "--detach", "--id", "one", "w.py:doubles")
    paused = command_line("pause", "--json", "one")
    cancelled = command_line("cancel", "--json", "one")
    deleted = command_line("delete", "--json", "--yes", "one")

    assert detached.code == 3
    assert json.loads(detached.out)["status"] == "QUEUED"
    assert json.loads(paused.out)["status"] == "PAUSED"
    assert json.loads(cancelled.out)["status"] == "CANCELLED"
    assert json.loads(deleted.out) == {"id": "one", "deleted": True}


def test_detached_run_says_which_process_drives_it(command_line: Any) -> None:
    up = command_line.start("up", "--json", "--no-http")
    serving = json.loads(up.stdout.readline())

    detached = command_line("run", "--detach", "--id", "one", "w.py:stays")
    command_line.wait_for_file("staying", up)
    up.send_signal(signal.SIGTERM)
    out, err = up.communicate(timeout=60)

    assert serving["event"] == "serving"
    assert f"process {serving['pid']} on " in detached.err
    assert detached.code == 3
    assert json.loads(out)["event"] == "stopped"
    assert up.returncode == 0
    assert "Traceback" not in err


def test_run_that_takes_over_from_another_may_name_it_by_prefix_and_dash(command_line: Any) -> None:
    command_line("run", "--id", "alpha", "w.py:doubles")

    by_prefix = command_line("run", "--id", "beta", "--reuse", "al", "w.py:doubles")
    by_dash = command_line("run", "--id", "gamma", "--reuse", "-", "w.py:doubles")

    assert "takes over from alpha" in by_prefix.err
    assert "takes over from beta" in by_dash.err


def test_reader_that_closes_the_pipe_is_no_error(command_line: Any) -> None:
    command_line("run", "--id", "one", "w.py:doubles", "--path", "x" * 30_000)
    shell = f"{sys.executable} -m perdure show --json one | head -c 1; echo ${{PIPESTATUS[0]}}"

    ended = subprocess.run(
        ["bash", "-c", shell], cwd=command_line.folder, capture_output=True, text=True, timeout=60
    )

    assert ended.stdout == "{0\n"
    assert ended.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["ls", "--json"]], ids=" ".join)
def test_reader_that_is_gone_before_anything_is_written_is_no_error(
    command_line: Any, words: list[str]
) -> None:
    process = command_line.start(*words)
    process.stdout.close()

    process.wait(timeout=60)

    assert process.returncode == 0
    assert process.stderr.read() == ""
    process.stdout = None  # communicate() would read it again


def test_detached_run_that_has_finished_already_gives_its_result(command_line: Any) -> None:
    done = command_line("run", "--id", "one", "w.py:doubles")

    again = command_line("run", "--detach", "--id", "one", "w.py:doubles")

    assert (again.code, again.out) == (0, done.out)
    assert "nobody drives" not in again.err
