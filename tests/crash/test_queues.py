"""Limits of queues hold while those that count by them are killed, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.crash.ledger import check_nothing_is_left, wait_until
from tests.crash.stage import Stage
from tests.crash.steps import measuring, sleeping

from perdure.client import Perdure
from perdure.queueing import register
from perdure.queues import Queue
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import a_queue, an_owner, by, queued
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunEnd, RunId, RunQuery

RUNS = int(os.environ.get("PERDURE_TEST_QUEUED", "9"))
HAMMERED = int(os.environ.get("PERDURE_TEST_HAMMERED", "30"))
LIMIT, PER_KEY = 3, 1
KEYS = ("a", "b", "c", "d", "e")
PLACES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]

Interval = tuple[datetime, datetime]


@pytest.fixture
def at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where the store of a test is: a file, or a database of its own."""
    if request.param == "sqlite":
        return str(tmp_path / "perdure.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def client(stage: Stage) -> Iterator[Perdure]:
    with stage.open() as opened:
        yield opened


def serve(stage: Stage, crash: str = "") -> subprocess.Popen[str]:
    words = ("-m", "perdure", "up", "--executor", "inline", "--store", stage.store)
    return stage.start(*words, crash=crash)


def most_at_once(intervals: Iterable[Interval]) -> int:
    """Return how many intervals there are at most that have a moment in common."""
    held = list(intervals)
    moments = [(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held]
    now = most = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def slots(store: RunStore, names: Iterable[RunId]) -> dict[str, list[Interval]]:
    """Return from when to when each run had its slot, by key: its story says so, claim by claim.

    A claim is told after the slots were counted, and an end before it is committed: so times that
    overlap here were overlapping slots.
    """
    held: dict[str, list[Interval]] = defaultdict(list)
    for name in names:
        claims = [each.at for each in store.list_events(name) if each.kind == "claimed"]
        ends = [each.at for each in store.list_events(name) if each.kind == "succeeded"]
        assert len(ends) == 1, name
        held[store.get_run(name).limit_key].append((claims[0], ends[0]))
    return held


def check_limits(store: RunStore, names: Iterable[RunId], limit: int, per_key: int) -> None:
    held = slots(store, names)
    assert 1 <= most_at_once(each for key in held for each in held[key]) <= limit
    for key in held:
        assert most_at_once(held[key]) <= per_key


# --- coordinators that are killed ----------------------------------------------------------------
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "point",
    ["claim.before", "claim.after", "commit.in-transaction", "terminal.before", "terminal.after"],
)
def test_limits_hold_and_all_runs_end_though_a_coordinator_is_killed(
    stage: Stage, client: Perdure, point: str
) -> None:
    store = client.runtime.store
    register(store, Queue("q", limit=2, limit_per_key=PER_KEY), client.runtime.clock.now())
    names = [RunId(f"run-{n:03}") for n in range(RUNS)]
    for n, name in enumerate(names):
        client.submit(measuring, run_id=name, queue="q", limit_key=KEYS[n % len(KEYS)])

    assert stage.finish(serve(stage, f"{point}:2:kill"))[0] == -signal.SIGKILL
    others = [serve(stage), serve(stage)]
    succeeded = RunQuery(status=(RunStatus.SUCCEEDED,), limit=2 * RUNS)
    wait_until(lambda: len(store.list_runs(succeeded)) == RUNS, 60, "they do not end")
    for other in others:
        other.terminate()
        stage.finish(other)

    check_limits(store, names, 2, PER_KEY)
    standing = store.queues.standing("q")
    assert (standing.running, standing.waiting) == (0, 0)
    check_nothing_is_left(stage.ledger)


def test_slot_of_a_killed_coordinator_is_kept_until_its_run_is_taken_over(
    stage: Stage, client: Perdure
) -> None:
    store = client.runtime.store
    register(store, Queue("q", limit=1), client.runtime.clock.now())
    for name in ("first", "second"):
        client.submit(measuring, run_id=name, queue="q")

    assert stage.finish(serve(stage, "claim.after:1:kill"))[0] == -signal.SIGKILL
    held = store.queues.standing("q").holders
    why = client.get_run("second").why()
    beside = serve(stage)
    wait_until(lambda: store.get_run(RunId("second")).finished_at is not None, 60, "it waits")
    beside.terminate()
    stage.finish(beside)

    assert held == ("first",)
    assert "1 of 1 running: first" in why
    check_limits(store, [RunId("first"), RunId("second")], 1, 2)


def test_sleeper_that_was_killed_while_it_gave_its_slot_back_sleeps_on(
    stage: Stage, client: Perdure
) -> None:
    store = client.runtime.store
    register(store, Queue("q", limit=1), client.runtime.clock.now())
    client.submit(sleeping, seconds=3600.0, run_id="sleeper", queue="q", priority=9)
    client.submit(measuring, run_id="next", queue="q")

    assert stage.finish(serve(stage, "release.before:1:kill"))[0] == -signal.SIGKILL
    held = store.queues.standing("q").holders
    beside = serve(stage)
    wait_until(lambda: store.get_run(RunId("next")).finished_at is not None, 60, "it waits")
    beside.terminate()
    stage.finish(beside)

    assert held == ("sleeper",)
    assert store.get_run(RunId("sleeper")).status is RunStatus.WAITING
    assert store.queues.standing("q").running == 0


# --- many at once --------------------------------------------------------------------------------
def claim_and_end(store: RunStore, token: str) -> int:
    """Claim what is claimable and end it, as one of many coordinators; return how many were ours.

    Every second time a run is given back first, as one that sleeps, and taken again.
    """
    owner = an_owner(token)
    store.register(owner, 60.0)
    ours = 0
    while store.list_runs(RunQuery(status=(RunStatus.QUEUED, RunStatus.WAITING), limit=1)):
        found = [run.id for run in store.claimable(20, besides=token) if run.owner is None]
        for run in store.claim_runs(found, owner):
            if ours % 2:
                now = run.created_at
                store.release_run(run, to=RunStatus.WAITING, wake_at=now)
                taken = store.claim_run(run.id, owner)
                if taken is None:
                    continue
                run = taken
            store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))])
            ours += 1
    return ours


HAMMER = """
import sys
from perdure_storage.connect import open_run_store
from tests.crash.test_queues import claim_and_end
store = open_run_store(sys.argv[1])
sys.stdin.read(1)
print(claim_and_end(store, sys.argv[2]))
store.close()
"""


@pytest.mark.parametrize("at", PLACES, indirect=True)
def test_limits_hold_though_four_processes_claim_as_fast_as_they_can(at: str) -> None:
    store = open_run_store(at)
    store.queues.put_queue(a_queue("q", limit=LIMIT, limit_per_key=PER_KEY))
    names = [RunId(f"run-{n:04}") for n in range(HAMMERED)]
    for n, name in enumerate(names):
        queued(store, name, limit_key=KEYS[n % len(KEYS)], priority=n % 3)
    hammers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, at, f"hammer-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]

    ours = [int(each.communicate("x", timeout=100)[0]) for each in hammers]

    assert sum(ours) == HAMMERED
    check_slots(store, names)
    store.close()


def check_slots(store: RunStore, names: list[RunId]) -> None:
    """Check each claim of each run against the limits: it has a slot until its next event."""
    by_key: dict[str, list[Interval]] = defaultdict(list)
    for name in names:
        events = store.list_events(name)
        claims = [each for each in events if each.kind == "claimed"]
        end = next(each.at for each in events if each.kind == "succeeded")
        # When it was given back the story does not say: of two claims the last one counts.
        by_key[store.get_run(name).limit_key].append((claims[-1].at, end))
    assert most_at_once(each for key in by_key for each in by_key[key]) <= LIMIT
    assert max(most_at_once(each) for each in by_key.values()) <= PER_KEY
