"""What was wrong in Ray Workflows 2.47.1, and is not to come back with its names.

Of the fourteen defects that its code had, these are held here:

1. A result counted while the objects in it were not stored yet.
2. A file that was cut short counted as a result.
11. What waited held a worker and a CPU.
13. A workflow could be deleted while it began; and whoever had run was remembered for ever.

The others are held beside what they are of: errors that were caught and forgotten (3), the three
of cancel (4, 5, 6), metadata that a resume overwrites (12) and ids in paths (14) in
``test_workflows.py``; retries (7), ``num_returns`` (8) and single inputs (9) in
``test_from_ray.py``; keys of messages (10) in ``test_events.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Perdure, ValueDamaged, task
from perdure.compat import ray_workflow as workflow

pytestmark = pytest.mark.usefixtures("store")

SIZE = 1 << 20


@task
def large() -> list[bytes]:
    return [b"a" * SIZE, b"b" * SIZE]


@task
def both(*values: Any) -> Any:
    return values


class Meets(workflow.EventListener):
    """Comes when the other one waits too."""

    async def poll_for_event(self, folder: str, own: str, other: str) -> str:
        Path(folder, own).touch()
        while not Path(folder, other).exists():
            await asyncio.sleep(0.01)
        return own


def blobs_in(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file() and each.stat().st_size >= SIZE]


def test_a_result_that_counts_is_stored_with_all_that_is_in_it(
    reopen: Callable[[], Perdure],
) -> None:
    workflow.run(large.bind(), workflow_id="a")
    reopen()

    assert workflow.get_output("a") == [b"a" * SIZE, b"b" * SIZE]


def test_a_result_that_was_cut_short_is_no_result(
    tmp_path: Path, reopen: Callable[[], Perdure]
) -> None:
    workflow.run(large.bind(), workflow_id="a")
    reopen()
    (blob,) = blobs_in(tmp_path / "blobs")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[: SIZE // 2])

    with pytest.raises(ValueDamaged):
        workflow.get_output("a")


def test_listeners_wait_side_by_side(tmp_path: Path) -> None:
    here = str(tmp_path)
    first = workflow.wait_for_event(Meets, here, "a", "b")
    second = workflow.wait_for_event(Meets, here, "b", "a")

    assert workflow.run(both.bind(first, second)) == ("a", "b")


def test_a_workflow_that_begins_is_not_deleted_and_its_id_is_nobody_s_afterwards() -> None:
    for _ in range(3):
        future = workflow.run_async(both.bind(perdure.wait_signal("go")), workflow_id="a")
        with pytest.raises(workflow.WorkflowStillActiveError):
            workflow.delete("a")
        perdure.signal("a", "go", 1)
        assert future.result() == (1,)
        workflow.delete("a")

    assert workflow.list_all() == []
