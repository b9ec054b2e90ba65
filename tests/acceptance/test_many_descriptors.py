"""Programs that have opened more files than ``select`` can count."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.client import open_store
from perdure.task import task

OPEN_FILES = 1100


@pytest.fixture
def many_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES * 2:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_FILES * 2), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(OPEN_FILES)]
    yield
    for fd in opened:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@task
def add_one(x: int) -> int:
    return x + 1


@pytest.mark.usefixtures("many_open_files")
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_run_succeeds_when_the_program_has_many_files_open(tmp_path: Path, executor: str) -> None:
    with open_store(str(tmp_path / "store" / "perdure.db"), executor=executor) as client:
        assert client.run(add_one.bind(add_one.bind(0))) == 2
