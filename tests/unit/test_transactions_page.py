"""The page about transactions and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perdure_storage import connect, rotation
from perdure_storage.faults import CRASH_POINTS
from perdure_storage.protocols import RunStore
from perdure_storage.queue_protocol import QueueStore
from perdure_storage.schedule_protocol import ScheduleStore
from perdure_storage.trigger_protocol import TriggerStore

PAGE = Path(__file__).parents[2] / "docs" / "transactions.md"

READS = {
    "store_id",
    "url",
    "find_run",
    "find_runs",
    "get_run",
    "list_runs",
    "get_plan",
    "claimable",
    "coordinators",
    "requests",
    "workers_of",
    "list_saves",
    "list_steps",
    "list_attempts",
    "list_events",
    "list_expansions",
    "list_waits",
    "histories",
    "whole_run",
    "messages",
    "next_wake",
    "list_tombstones",
    "unreferenced",
    "list_condemned",
    "list_pins",
    "changes",
    "check_blobs",
    "close",
    "queues",
    "find_queue",
    "list_queues",
    "standing",
    "schedules",
    "triggers",
    "find_schedule",
    "get_schedule",
    "list_schedules",
    "due",
    "next_due",
    "runs_of",
    "list_ticks",
    "find_trigger",
    "get_trigger",
    "list_triggers",
    "due_triggers",
    "hearing",
    "watching",
    "known",
    "list_arrivals",
    "newest_arrivals",
    "newest_ticks",
    "events_after",
    "newest_event",
    "ends",
}
"""Methods that change nothing durable; every other one has its row on the page."""

STORE_POINTS = (
    "run.",
    "renew.",
    "claim.",
    "release.",
    "commit.",
    "expansion.",
    "wait.",
    "deliver.",
    "lost.",
    "terminal.",
    "wait.",
    "deliver.",
    "send.",
)
QUEUE_POINTS = ("queue.",)
SCHEDULE_POINTS = ("schedule.", "fire.", "tick.")
TRIGGER_POINTS = ("trigger.", "accept.", "listen.", "arrival.")
MORE_POINTS = ("reset.", "send.", "cancel.", "pause.", "delete.", "import.", "migration.", "store.")
GC_POINTS = ("rotation.", "free.", "condemn.", "absolve.", "forget.", "expire.", "pin.", "unpin.")
ALL_POINTS = (
    STORE_POINTS + QUEUE_POINTS + SCHEDULE_POINTS + TRIGGER_POINTS + MORE_POINTS + GC_POINTS
)
ELSEWHERE = {"commit.before-telling": "the coordinator's: it follows the store's commit"}


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def _methods() -> set[str]:
    named = {**vars(RunStore), **vars(QueueStore), **vars(ScheduleStore), **vars(TriggerStore)}
    return {name for name in named if not name.startswith("_")}


def test_every_method_named_on_the_page_exists() -> None:
    named = {name for row in _rows() for name in re.findall(r"`([a-z]\w+)`", row[1])}

    assert named
    for name in named:
        assert name in _methods() or hasattr(connect, name) or hasattr(rotation, name), name


@pytest.mark.parametrize("name", sorted(_methods() - READS))
def test_every_writing_method_has_its_row(name: str) -> None:
    assert any(f"`{name}`" in row[1] for row in _rows())


def test_every_crash_point_on_the_page_is_registered() -> None:
    named = {name for row in _rows() for name in re.findall(r"`([a-z]+\.[a-z-]+)`", row[6])}

    assert named <= set(CRASH_POINTS)


def test_every_crash_point_of_a_transaction_is_on_the_page() -> None:
    text = PAGE.read_text()
    points = [p for p in CRASH_POINTS if p.startswith(ALL_POINTS)]

    assert [p for p in points if f"`{p}`" not in text] == list(ELSEWHERE)


def test_every_row_is_whole() -> None:
    assert {len(row) for row in _rows()} == {7}
