"""Queues as people use them: runs that wait their turn, and are told why."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import waiting_steps as steps
from tests.crash.ledger import wait_until

import perdure
from perdure import DefinitionError, DuplicateRun, Queue, Schedule, task, workflow
from perdure.client import Perdure, open_store
from perdure.engine.coordinator import Coordinator
from perdure.queueing import set_limits
from perdure_storage.durations import LONGEST
from perdure_storage.lifecycle import RunStatus


@task
def double(n: int) -> int:
    return 2 * n


@workflow
def doubled(n: int = 1) -> int:
    return double.bind(n)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), executor="inline") as opened:
        yield opened


@pytest.fixture
def serving(client: Perdure) -> Iterator[Coordinator]:
    made = client.runtime.coordinator(serves=True)
    yield made
    made.close()


def limit(client: Perdure, name: str = "q", **limits: Any) -> None:
    set_limits(client.runtime.store, name, limits, client.runtime.clock.now())


def drive(serving: Coordinator, until: Callable[[], bool]) -> None:
    def turned() -> bool:
        serving.turn(0.05)
        return until()

    wait_until(turned, 20, "it does not come to pass")


def statuses(client: Perdure, *names: str) -> list[str]:
    return [str(client.get_run(name).record.status) for name in names]


# --- taken on in turn ----------------------------------------------------------------------------
def test_run_sleeping_in_a_queue_lets_another_one_in_and_goes_on_before_those_that_wait(
    client: Perdure, serving: Coordinator
) -> None:
    limit(client, limit=1)
    for name in ("sleeper", "second"):
        client.submit(steps.approval, run_id=name, queue="q", timeout=600.0)
    drive(serving, lambda: statuses(client, "sleeper", "second") == ["WAITING", "WAITING"])
    limit(client, limit=0)
    client.submit(doubled, run_id="new", queue="q", priority=9)
    client.signal("sleeper", "approve", True)
    drive(serving, lambda: client.get_run("sleeper").waits_in_line != "")

    why = client.get_run("sleeper").why()
    limit(client, limit=1)
    drive(serving, lambda: statuses(client, "new") == ["SUCCEEDED"])

    assert why == "sleeper is WAITING: it waits in queue q: 0 of 0 running"
    sleeper, new = (client.get_run(name).record for name in ("sleeper", "new"))
    assert sleeper.finished_at is not None
    assert new.started_at is not None
    assert sleeper.finished_at <= new.started_at


def test_runs_of_a_full_queue_leave_those_outside_of_it_alone(
    client: Perdure, serving: Coordinator
) -> None:
    limit(client, limit=0)
    for n in range(3):
        client.submit(doubled, run_id=f"q{n}", queue="q", priority=9)
    client.submit(doubled, run_id="plain")

    drive(serving, lambda: statuses(client, "plain") == ["SUCCEEDED"])

    assert statuses(client, "q0", "q1", "q2") == ["QUEUED"] * 3


def test_slot_that_is_free_again_goes_to_the_next_run_at_once(
    client: Perdure, serving: Coordinator
) -> None:
    limit(client, limit=1)
    names = [f"r{n}" for n in range(20)]
    for name in names:
        client.submit(doubled, run_id=name, queue="q")
    before = client.runtime.clock.monotonic()

    drive(serving, lambda: set(statuses(client, *names)) == {"SUCCEEDED"})

    # Looking for work every second would take twenty of them.
    assert client.runtime.clock.monotonic() - before < 15


def test_queue_with_a_window_from_before_those_were_bounded_stops_nobody_and_is_mended(
    client: Perdure, serving: Coordinator, tmp_path: Path
) -> None:
    limit(client, "gpu", rate=10, window=timedelta(minutes=1))
    limit(client, "other", limit=1)
    with closing(sqlite3.connect(tmp_path / "perdure.db")) as connection, connection:
        connection.execute(f"UPDATE queue SET window_us = {99_999_999 * 86_400 * 10**6}")
    for name in ("gpu", "other"):
        client.submit(doubled, run_id=name, queue=name)

    drive(serving, lambda: statuses(client, "gpu", "other") == ["SUCCEEDED"] * 2)
    limit(client, "gpu", limit=3)
    mended = client.get_queue("gpu")

    assert mended.standing.starts == 1
    assert (mended.record.limit, mended.record.window) == (3, LONGEST)
    assert mended.remove()


# --- driven by their own process -----------------------------------------------------------------
def test_runs_that_this_process_drives_wait_for_each_other(client: Perdure) -> None:
    limit(client, limit=1)

    runs = [client.start(doubled, n=n, queue="q") for n in range(5)]

    assert [run.result() for run in runs] == [0, 2, 4, 6, 8]
    records = sorted((run.record for run in runs), key=lambda each: each.started_at or each.id)
    for one, next_one in pairwise(records):
        assert one.finished_at is not None
        assert next_one.started_at is not None
        assert one.finished_at <= next_one.started_at


def test_run_waits_for_a_slot_that_another_process_gives_back(client: Perdure) -> None:
    limit(client, limit=0)
    opened = threading.Timer(0.3, lambda: limit(client, limit=1))
    opened.start()

    result = client.run(doubled, n=4, queue="q")

    opened.join()
    assert result == 8


def test_run_left_behind_in_the_line_stops_no_other_where_nobody_serves(client: Perdure) -> None:
    limit(client, limit=1)
    client.submit(doubled, run_id="left", queue="q", priority=9)

    assert client.run(doubled, n=4, queue="q") == 8
    assert statuses(client, "left") == ["QUEUED"]


def test_run_in_line_that_is_cancelled_ends(client: Perdure) -> None:
    limit(client, limit=0)
    run = client.start(doubled, queue="q")

    client.cancel(run.id)

    assert run.wait(timeout=20).status is RunStatus.CANCELLED


def test_delayed_run_begins_when_its_time_has_come(client: Perdure) -> None:
    before = client.runtime.clock.now()

    run = client.start(doubled, n=2, delay=0.5)
    why = run.why()

    assert run.result() == 4
    assert "it begins at" in why
    started_at = run.record.started_at
    assert started_at is not None
    assert started_at >= before + timedelta(seconds=0.5)


# --- options -------------------------------------------------------------------------------------
def test_queue_that_is_not_there_is_refused_with_what_to_type(client: Perdure) -> None:
    limit(client, "gpu", limit=1)

    with pytest.raises(DefinitionError, match=r"did you mean 'gpu'.*perdure queue set gpus"):
        client.submit(doubled, queue="gpus")

    assert client.list_runs() == []


def test_where_there_is_no_queue_none_is_listed(client: Perdure) -> None:
    with pytest.raises(DefinitionError) as refused:
        client.submit(doubled, queue="gpu")

    assert str(refused.value).startswith("queue='gpu'. There is none of that name in sqlite://")


def test_queue_given_as_a_value_is_made_and_what_was_set_since_stands(client: Perdure) -> None:
    queues = client.runtime.store.queues
    client.submit(doubled, queue=Queue("gpu", limit=2))
    limit(client, "gpu", limit=5)

    client.submit(doubled, queue=Queue("gpu", limit=2))
    unchanged = queues.find_queue("gpu")
    client.submit(doubled, queue=Queue("gpu", limit=3))
    changed = queues.find_queue("gpu")

    assert unchanged is not None
    assert changed is not None
    assert (unchanged.limit, changed.limit) == (5, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": -1}, "write a whole number, such as limit=2"),
        ({"limit": True}, "write a whole number"),
        ({"limit_per_key": 1.5}, "limit_per_key=1.5"),
        ({"rate": 100}, "such as rate=\\(100, '1m'\\)"),
        ({"rate": (100, "0s")}, "1 ms at least"),
        ({"rate": (100, "soon")}, "rate"),
        ({"rate": (100, "99999999d")}, "a duration is 36500d at most"),
    ],
)
def test_queue_refuses_limits_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Queue("q", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit_key": "a"}, "limit_key= is of a queue"),
        ({"dedup_key": "a"}, "dedup_key= is of a queue"),
        ({"queue": ""}, "1 to 100 characters"),
        ({"queue": "q", "priority": 1.5}, "priority=1.5"),
        ({"queue": "q", "if_duplicate": "ignore"}, "if_duplicate='ignore'"),
        ({"queue": "q", "if_duplicate": "return"}, "give dedup_key= too .--dedup-key KEY"),
        ({"delay": "soon"}, "delay"),
        ({"delay": datetime(2026, 1, 1)}, "delay= needs a time zone"),
        ({"delay": datetime.min.replace(tzinfo=UTC)}, "delay=0001.*a year from 2 to 9997"),
        ({"deadline": datetime.max.replace(tzinfo=UTC)}, "deadline=9999.*is too far away"),
        ({"delay": 1e18}, "delay=1e.18: a duration is 36500d at most"),
        ({"deadline": "99999999d"}, "a duration is 36500d at most"),
    ],
)
def test_run_refuses_options_of_queues_that_make_no_sense(
    client: Perdure, options: dict[str, Any], said: str
) -> None:
    limit(client)

    with pytest.raises(DefinitionError, match=said):
        client.submit(doubled, **options)


def test_duplicate_is_refused_by_name_or_returned(client: Perdure) -> None:
    limit(client, limit=0)
    first = client.submit(doubled, queue="q", dedup_key="k")

    with pytest.raises(DuplicateRun) as refused:
        client.submit(doubled, queue="q", dedup_key="k")
    again = client.submit(doubled, queue="q", dedup_key="k", if_duplicate="return")

    assert refused.value.run_id == first.id
    assert again.id == first.id
    assert len(client.list_runs()) == 1


def test_rerun_stays_in_the_queue_under_its_key_but_is_no_duplicate(client: Perdure) -> None:
    limit(client, limit=1)
    first = client.start(doubled, queue="q", limit_key="a", dedup_key="k")
    first.result()

    again = client.rerun(first.id, dag=doubled)

    assert again.result() == 2
    assert (again.record.queue, again.record.limit_key) == ("q", "a")
    assert again.record.dedup_key is None


def test_module_declares_queues_before_what_makes_runs_in_them(client: Perdure) -> None:
    from types import SimpleNamespace

    declared = SimpleNamespace(
        nightly=Schedule("nightly", doubled.options(queue="night", limit_key="a"), cron="@daily"),
        night=Queue("night", limit=1),
    )

    became = client.register({"m": declared})

    assert [(each.kind, each.name, each.became) for each in became] == [
        ("queue", "night", "new"),
        ("schedule", "nightly", "new"),
    ]
    run = client.get_schedule("nightly").trigger()
    assert (run.record.queue, run.record.limit_key) == ("night", "a")


def test_schedule_in_a_queue_that_is_not_there_is_refused(client: Perdure) -> None:
    with pytest.raises(DefinitionError, match="schedule 'nightly': queue='night'"):
        client.schedule("nightly", doubled.options(queue="night"), cron="@daily")


# --- told why ------------------------------------------------------------------------------------
def test_why_names_who_has_the_slots_of_a_key(client: Perdure, serving: Coordinator) -> None:
    limit(client, limit_per_key=1)
    first = client.submit(steps.approval, run_id="first", queue="q", limit_key="a", timeout=600.0)
    client.runtime.store.claim_run(first.record.id, serving.ready_to_own())
    second = client.submit(doubled, run_id="second", queue="q", limit_key="a")

    told = second.why(), second["double"].why()

    reason = "waits in queue q: 1 of 1 running with key 'a': first"
    assert told[0] == f"second is QUEUED: it {reason}"
    assert reason in told[1]


def test_why_says_when_a_rate_lets_the_next_run_begin(client: Perdure) -> None:
    limit(client, rate=1, window=timedelta(minutes=5))
    client.run(doubled, queue="q")

    waiting = client.submit(doubled, run_id="next", queue="q")

    assert "1 of 1 have begun within 5 min; the next begins at" in waiting.why()


def test_public_names_are_there() -> None:
    assert perdure.Queue is Queue
    assert issubclass(perdure.DuplicateRun, perdure.RunConflict)


# --- from Python ----------------------------------------------------------------------------------
def test_limits_are_set_looked_at_and_removed_from_python(client: Perdure) -> None:
    made = client.set_queue("q", limit=1, rate=(10, "1m"))
    kept = client.set_queue("q", limit=2, limit_per_key=1)
    lifted = client.set_queue("q", rate=None)
    for name in ("a", "b"):
        client.submit(doubled, queue="q", run_id=name)

    standing = client.get_queue("q").standing
    names = [each.name for each in client.list_queues()]
    said = repr(lifted)

    assert (made.name, kept.record.limit, kept.record.limit_per_key) == ("q", 2, 1)
    assert (kept.record.rate, kept.record.window) == (None, None)
    assert said == "<queue q: 2 at a time, 1 at a time with one key>"
    assert (standing.running, standing.waiting, names) == (0, 2, ["q"])
    assert (lifted.remove(), lifted.remove()) == (True, False)
    with pytest.raises(DefinitionError, match="There is none of that name"):
        client.get_queue("q")


def test_limits_from_python_are_refused_as_those_of_a_declaration(client: Perdure) -> None:
    with pytest.raises(DefinitionError, match="write a whole number"):
        client.set_queue("q", limit=-1)
    assert client.list_queues() == []
