"""Runs that nobody drives, taken on many at once: some together, none lost for another's sake."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import waiting_steps as steps
from tests.crash.ledger import wait_until

from perdure.client import Perdure, open_store
from perdure.engine import coordinator, sleepers
from perdure.engine.coordinator import Coordinator
from perdure_storage.errors import StoreUnavailable
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

LIVE = (RunStatus.QUEUED, RunStatus.WAITING, RunStatus.RUNNING)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), executor="inline") as opened:
        yield opened


@pytest.fixture
def serving(client: Perdure) -> Iterator[Coordinator]:
    made = client.runtime.coordinator(serves=True)
    yield made
    made.close()


def with_status(client: Perdure, *statuses: RunStatus) -> set[str]:
    return {run.id for run in client.runtime.store.list_runs(RunQuery(status=statuses))}


def drive(serving: Coordinator, until: Callable[[], bool]) -> None:
    def turned() -> bool:
        serving.turn(0.05)
        return until()

    wait_until(turned, 20, "it does not come to pass")


def let_sleep(client: Perdure, serving: Coordinator, *names: str) -> None:
    """Record runs that wait for a signal, and drive them until all of them sleep."""
    for name in names:
        client.submit(steps.approval, run_id=name, timeout=600.0)
    drive(serving, lambda: with_status(client, RunStatus.WAITING) >= set(names))


def tamper(tmp_path: Path, sql: str) -> None:
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        assert connection.execute(sql).rowcount == 1
    connection.close()


def test_run_with_a_damaged_history_fails_and_those_beside_it_go_on(
    client: Perdure, serving: Coordinator, tmp_path: Path
) -> None:
    let_sleep(client, serving, "a", "b", "c")
    for name in ("a", "b", "c"):
        client.signal(name, "approve", True)
    tamper(tmp_path, "UPDATE wait SET kind = 'event' WHERE run_id = 'b'")

    drive(serving, lambda: not with_status(client, *LIVE))

    assert with_status(client, RunStatus.SUCCEEDED) == {"a", "c"}
    assert "was tampered with" in str(client.get_run("b").error)


def test_run_with_a_damaged_row_is_left_alone_and_those_beside_it_go_on(
    client: Perdure, serving: Coordinator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    let_sleep(client, serving, "a", "c")
    client.submit(steps.approval, run_id="b")
    tamper(tmp_path, "UPDATE run SET origin = 'elsewhere:flow' WHERE id = 'b'")

    for name in ("a", "c"):
        client.signal(name, "approve", True)
    drive(serving, lambda: with_status(client, *LIVE) == {"b"})
    for _ in range(3):
        serving.turn(0.0)

    assert with_status(client, RunStatus.QUEUED) == {"b"}
    said = [each.getMessage() for each in caplog.records if "cannot drive" in each.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("cannot drive run b: ")


def test_runs_that_run_go_on_while_many_are_due(
    client: Perdure, serving: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleepers, "AT_ONCE", 2)
    names = [f"due-{number:02}" for number in range(12)]
    let_sleep(client, serving, *names)
    client.submit(steps.chain, run_id="busy")
    serving.take_on("busy")

    for name in names:
        client.signal(name, "approve", True)
    drive(serving, lambda: "busy" in with_status(client, RunStatus.SUCCEEDED))

    assert with_status(client, RunStatus.WAITING), "all that were due came first"
    drive(serving, lambda: not with_status(client, *LIVE))


def test_runs_stay_with_the_store_while_many_are_driven(
    client: Perdure, serving: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleepers, "AT_ONCE", 2)
    monkeypatch.setattr(coordinator, "CROWD", 3)
    monkeypatch.setattr(coordinator, "REQUESTS_EVERY_S", 0.0)
    for number in range(20):
        client.submit(steps.chain, run_id=f"queued-{number:02}")
    driven: set[int] = set()

    def all_ended() -> bool:
        driven.add(len(with_status(client, RunStatus.RUNNING)))
        return not with_status(client, *LIVE)

    drive(serving, all_ended)

    assert max(driven) <= 4


def test_coordinators_share_what_is_due(
    client: Perdure, serving: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleepers, "AT_ONCE", 2)
    names = [f"due-{number}" for number in range(8)]
    let_sleep(client, serving, *names)
    other = client.runtime.coordinator(serves=True)
    for name in names:
        client.signal(name, "approve", True)

    def both_turn() -> bool:
        serving.turn(0.0)
        other.turn(0.0)
        return not with_status(client, *LIVE)

    wait_until(both_turn, 20, "they do not end")
    other.close()

    stories = [client.get_run(name).events() for name in names]
    claims = [[each.detail["owner"] for each in s if each.kind == "claimed"] for s in stories]
    assert {len(owners) for owners in claims} == {2}, "to sleep, and to end"
    assert len({last for _, last in claims}) == 2


def test_run_whose_rows_cannot_be_read_for_a_moment_is_loaded_again(
    client: Perdure, serving: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_sleep(client, serving, "a")
    store = type(client.runtime.rows)
    away = iter(range(2))

    def once_away(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*args: Any, **options: Any) -> Any:
            if next(away, None) is not None:
                raise StoreUnavailable("the store is away")
            return read(*args, **options)

        return reading

    for name in ("histories", "list_steps"):
        monkeypatch.setattr(store, name, once_away(getattr(store, name)))
    client.signal("a", "approve", True)

    drive(serving, lambda: not with_status(client, *LIVE))

    assert with_status(client, RunStatus.SUCCEEDED) == {"a"}


class Watched:
    """A store that asks, just after runs were given back, whether they are driven here."""

    def __init__(self, below: Any, drives: Callable[[str], bool]) -> None:
        self._below = below
        self._drives = drives
        self.seen: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def release_runs(self, releases: Any) -> Any:
        released = self._below.release_runs(releases)
        self.seen += [self._drives(each) for each in released]
        return released


def test_run_that_is_given_back_until_it_wakes_does_not_seem_nobodys_for_an_instant(
    client: Perdure,
) -> None:
    watched = Watched(client.runtime.store, client.drives)
    client.runtime.store = watched  # type: ignore[assignment]

    run = client.start(steps.approval, run_id="a", timeout=600.0)
    wait_until(lambda: bool(watched.seen), 20, "it does not fall asleep")
    client.signal("a", "approve", True)
    run.result()

    assert all(watched.seen)
