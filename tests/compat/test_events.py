"""Sleeps and events of Ray Workflows: what waits holds nothing, and is stored before it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.ledger import wait_until

import perdure
from perdure import Perdure, task
from perdure.compat import ray_workflow as workflow
from perdure_storage.clock import SystemClock
from perdure_storage.lifecycle import RunStatus

pytestmark = pytest.mark.usefixtures("store")


class Listener(workflow.EventListener):
    """Notes what it is asked; its acknowledgement fails once, if told to."""

    async def poll_for_event(self, folder: str, fails: bool = False) -> Any:
        _note(folder, "polled")
        return {"folder": folder, "fails": fails}

    async def event_checkpointed(self, event: Any) -> None:
        _note(event["folder"], "committed")
        if event["fails"] and not Path(event["folder"], "failed").exists():
            Path(event["folder"], "failed").touch()
            raise ConnectionError("the source is away")


def _note(folder: str, what: str) -> None:
    with Path(folder, "notes").open("a") as file:
        file.write(what + "\n")


@task
def same(*values: Any) -> Any:
    return values


def asleep(workflow_id: str) -> perdure.Run:
    run = perdure.get_run(workflow_id)
    wait_until(lambda: run.record.status is RunStatus.WAITING, 30, "it does not wait")
    return run


def test_an_event_is_committed_to_its_source_after_it_is_stored(tmp_path: Path) -> None:
    event = workflow.run(workflow.wait_for_event(Listener, str(tmp_path)))

    assert event == {"folder": str(tmp_path), "fails": False}
    assert (tmp_path / "notes").read_text().split() == ["polled", "committed"]


def test_an_event_that_is_stored_is_never_polled_again(tmp_path: Path) -> None:
    node = workflow.wait_for_event(Listener, str(tmp_path), fails=True)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(node, workflow_id="a")

    workflow.resume("a")

    assert (tmp_path / "notes").read_text().split() == ["polled", "committed", "committed"]


@pytest.mark.parametrize("given", [3, dict])
def test_only_listeners_are_waited_for(given: Any) -> None:
    with pytest.raises(TypeError, match=r"not a subclass of workflow\.EventListener"):
        workflow.wait_for_event(given)


def test_a_sleep_holds_no_owner_and_keeps_its_deadline(reopen: Callable[[], Perdure]) -> None:
    workflow.run_async(workflow.sleep(60), workflow_id="a")
    run = asleep("a")
    before, owner = run.record.wake_at, run.record.owner

    reopen()
    workflow.resume_async("a")

    assert owner is None
    assert asleep("a").record.wake_at == before


def test_a_timer_ends_at_its_moment() -> None:
    at = SystemClock().now().timestamp() + 0.3

    assert workflow.run(workflow.wait_for_event(workflow.TimerListener, at)) is None

    assert SystemClock().now().timestamp() >= at


def test_messages_of_one_key_are_for_the_workflow_that_they_were_sent_to() -> None:
    node = same.bind(workflow.wait_for_event(workflow.HTTPListener, event_key="k"))
    first = workflow.run_async(node, workflow_id="a")
    second = workflow.run_async(node, workflow_id="b")

    perdure.signal("b", "k", 2)
    perdure.signal("a", "k", 1)

    assert (first.result(), second.result()) == ((("k", 1),), (("k", 2),))


def test_a_message_that_came_before_anybody_waited_is_kept_and_a_key_can_be_used_again() -> None:
    first = workflow.wait_for_event(workflow.HTTPListener, event_key="k")
    future = workflow.run_async(same.bind(perdure.wait_signal("go"), first), workflow_id="a")

    perdure.signal("a", "k", "early")
    perdure.signal("a", "go", 1)
    again = workflow.run_async(first, workflow_id="b")
    perdure.signal("b", "k", "again")

    assert future.result() == (1, ("k", "early"))
    assert again.result() == ("k", "again")
