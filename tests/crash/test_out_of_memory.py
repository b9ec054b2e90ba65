"""Steps that take more memory than they asked for: told apart, charged once, and nobody else pays.

``PERDURE_TEST_HOGS`` sets how many there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure.client import Perdure, open_store
from perdure_storage.records import Cause

HOGS = int(os.environ.get("PERDURE_TEST_HOGS", "3"))
MIB = 1 << 20


def _hold(mib: int) -> bytearray:
    held = bytearray(mib * MIB)
    held[::4096] = b"x" * len(range(0, len(held), 4096))  # else the pages are not there
    return held


@perdure.task(memory="100MiB")
def hog(n: int) -> int:
    held = _hold(400)
    threading.Event().wait(30)
    return len(held) + n


@perdure.task(memory="100MiB")
def hog_once(n: int, folder: str) -> int:
    begun = Path(folder) / f"begun-{n}"
    if not begun.exists():
        begun.touch()
        hog.function(n)
    return n


@perdure.task
def modest(n: int) -> int:
    return n + 1


@perdure.task
def crash(n: int) -> int:
    os._exit(n)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), workers=2, memory="2GiB") as opened:
        yield opened


def causes(client: Perdure, run_id: str, step_id: str) -> list[Cause | None]:
    return [attempt.cause for attempt in client.get_run(run_id)[step_id].attempts]


def test_step_that_takes_too_much_runs_once_more_and_then_fails(client: Perdure) -> None:
    with pytest.raises(perdure.RunFailed, match=r"had asked for\s+memory=100\.0 MiB"):
        client.run(hog.bind(0), run_id="hog")

    assert causes(client, "hog", "hog") == [Cause.OUT_OF_MEMORY] * 2


def test_those_beside_it_and_after_it_are_not_charged(client: Perdure, tmp_path: Path) -> None:
    nodes = [hog_once.bind(n, str(tmp_path)) for n in range(HOGS)]
    others = [modest.bind(n) for n in range(20)]

    result = client.run([*nodes, *others], run_id="mixed")

    assert result == [*range(HOGS), *range(1, 21)]
    names = [step.id for step in client.get_run("mixed").steps() if step.id.startswith("hog")]
    assert [causes(client, "mixed", name) for name in names] == [
        [Cause.OUT_OF_MEMORY, Cause.SUCCEEDED]
    ] * HOGS
    rest = [step for step in client.get_run("mixed").steps() if step.id.startswith("modest")]
    assert all(len(step.attempts) == 1 for step in rest)


def test_death_by_memory_is_told_apart_from_other_deaths(client: Perdure) -> None:
    dies = crash.options(lost_retries=0, catch=True).bind(3)
    takes = hog.options(lost_retries=0, catch=True).bind(0)

    died, took = client.run([dies, takes], run_id="apart")

    assert causes(client, "apart", "crash") == [Cause.WORKER_LOST]
    assert causes(client, "apart", "hog") == [Cause.OUT_OF_MEMORY]
    assert "exited with status 3" in died.message
    assert "of memory" in took.message
