"""Deaths as a user meets them, each told apart and with what to do about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.conftest import CommandLine

from perdure.engine.restore import CAREFUL_TAKEOVERS

DEATHS = """
import ctypes
import os
import signal

from perdure import task, workflow


@task(lost_retries=0)
def dies(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "memory":
        held = []
        while True:
            held.append(bytearray(50_000_000))


@task
def first() -> int:
    return 1


@workflow
def death(how: str) -> None:
    return dies.bind(how)


@task
def crashes(n: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)


@workflow
def poison() -> int:
    return crashes.bind(first.bind())
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "exited with status 3: something in it called os._exit()"),
        ("segfault", "segmentation fault: native code that it called has crashed"),
        ("kill", "killed by SIGKILL"),
    ],
)
def test_death_of_a_worker_is_told_with_the_step_and_where_it_is(
    perdure: CommandLine, how: str, said: str
) -> None:
    script = perdure.write("deaths.py", DEATHS)

    ended = perdure("run", "--id", "r", f"{script}:death", "--how", how)

    assert ended.code == 1
    assert f"error: run r failed: step dies ({script}:9): its worker process" in ended.err
    assert said in ended.err
    assert "Go on with: perdure resume r\n" in ended.err
    assert "Traceback" not in ended.err


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group of our own with 300 MB of memory; where none may be made, no test."""
    top = Path("/sys/fs/cgroup/memory")
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    paths = [path for _, controllers, path in own if "memory" in controllers.split(",")]
    if sys.platform != "linux" or not paths or not os.access(top, os.W_OK):
        pytest.skip("no control group for memory can be made here")
    folder = top / paths[0].lstrip("/") / f"perdure-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("300M")
    except OSError as error:
        pytest.skip(f"no control group for memory can be made here: {error}")
    yield folder
    folder.rmdir()


def test_kill_by_the_kernel_for_memory_is_told_from_any_other(
    perdure: CommandLine, group: Path
) -> None:
    script = perdure.write("deaths.py", DEATHS)
    enter = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m perdure"

    ended = subprocess.run(
        ["bash", "-c", f"{enter} run --id r {script}:death --how memory"],
        cwd=perdure.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1, ended.stderr
    assert "killed by the kernel: out of memory" in ended.stderr
    assert "memory=" in ended.stderr
    assert "perdure resume r --code current" in ended.stderr


def test_step_that_kills_its_driver_again_and_again_is_found_out_and_named(
    perdure: CommandLine,
) -> None:
    script = perdure.write("deaths.py", DEATHS)
    codes = [perdure("run", "--executor", "inline", "--id", "r", f"{script}:poison").code]
    while codes[-1] == 128 + signal.SIGKILL and len(codes) <= CAREFUL_TAKEOVERS:
        ended = perdure("resume", "r")
        codes.append(ended.code)

    assert codes == [137] * CAREFUL_TAKEOVERS + [1]
    assert "error: run r failed: step crashes" in ended.err
    assert "lost_retries=3" in ended.err
