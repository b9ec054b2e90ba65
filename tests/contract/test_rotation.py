"""Another key takes the place of the one that signs rows, while everything else goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres import postgres_server, postgres_url

from perdure_storage import rotation
from perdure_storage.connect import Key, key_names, open_run_store
from perdure_storage.contract_samples import (
    a_message,
    a_plan,
    a_save,
    a_step,
    a_value,
    a_wait,
    an_attempt,
    an_expansion,
    an_unplanned_run,
    arrived,
    by,
    claimed,
    fired,
    registered,
    saved,
    watched,
)
from perdure_storage.errors import KeyMissing, StoreError
from perdure_storage.faults import InjectedCrash, armed
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, ErrorRecord, RunEnd, RunId
from perdure_storage.rotation import SIGNED, rotate_key
from perdure_storage.signing import KeyFile, key_id_of
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.tables import metadata

__all__ = ["postgres_server", "postgres_url"]

OLD, NEW, OTHER = (bytes(range(n, n + 32)) for n in range(3))
BOTH = (OLD, NEW)
ERROR = ErrorRecord(type="E", message="m", cause=Cause.USER_ERROR, pickled=b"pickle")
_RUN = RunId("run")

Open = Callable[[Key], SqlRunStore]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open one store with a key; the first one makes it."""
    place = tmp_path / "perdure.db"
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else place
    stores: list[SqlRunStore] = []

    def open_(key: Key) -> SqlRunStore:
        stores.append(open_run_store(url, key=key))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def fill(store: SqlRunStore) -> None:
    """Write a row of every kind that is signed."""
    run = claimed(store, plan=a_plan("plan"), inputs={"x": a_value("1")}, inputs_digest="v1:x")
    steps = (a_step("run", "a", value=a_value("a")), a_step("run", "b", value=a_value("b")))
    tries = (an_attempt("run", "b", cause=Cause.USER_ERROR, error=ERROR),)
    grown, waits = (an_expansion("run", "b"),), (a_wait("run", "w", default=a_value("d")),)
    store.commit([by(run, *steps, attempts=tries, expansions=grown, waits=waits)])
    assert saved(store, run, a_save("s")) is None
    store.send(a_message(value=a_value("1")))
    store.commit([by(run, end=RunEnd(status=RunStatus.FAILED, error=ERROR))])
    store.schedules.fire([fired(registered(store, "nightly"), an_unplanned_run("of nightly"))])
    store.triggers.accept([arrived(watched(store, "landed"), "a.csv", run="landed")])


def read(store: SqlRunStore) -> None:
    """Read what ``fill`` wrote; each signature is checked."""
    run = store.get_run(_RUN)
    store.get_plan(run.plan_digest)
    assert len(store.list_steps(_RUN)) == 2
    assert store.list_attempts(_RUN)
    assert store.list_expansions(_RUN)
    assert store.list_waits(_RUN)
    assert store.list_saves(_RUN)
    assert store.messages(_RUN, ["go"])
    store.schedules.get_schedule("nightly")
    store.triggers.get_trigger("landed")
    assert store.triggers.known("landed", ["a.csv"])


def test_every_table_with_a_signature_is_signed_anew() -> None:
    assert set(SIGNED) == {
        table.name for table in metadata.tables.values() if "mac" in table.columns
    }


def test_all_rows_are_signed_anew_and_the_old_key_counts_no_more(opened: Open) -> None:
    fill(opened(OLD))

    report = rotate_key(opened(BOTH), BOTH)

    assert report.problems == ()
    assert report.renewed > len(SIGNED)
    read(opened(NEW))
    with pytest.raises(StoreError, match=f"signed with key {key_id_of(NEW)}"):
        opened(OLD)


def test_whoever_was_there_before_goes_over_to_the_new_key(opened: Open) -> None:
    fill(opened(OLD))
    reader, writer = opened(BOTH), opened(BOTH)
    run = claimed(writer, "other", plan=a_plan("plan"))

    rotate_key(opened(BOTH), BOTH)
    read(reader)
    writer.commit([by(run, a_step("other", "late", value=a_value("x")))])
    writer.send(a_message("other", value=a_value("2")))

    with_new_alone = opened(NEW)
    assert [step.step_id for step in with_new_alone.list_steps(RunId("other"))] == ["late"]
    assert with_new_alone.messages(RunId("other"), ["go"])


def test_whoever_has_the_old_key_alone_writes_nothing_and_is_told_why(opened: Open) -> None:
    left_behind = opened(OLD)
    fill(left_behind)
    run = claimed(left_behind, "other", plan=a_plan("plan"))
    rotate_key(opened(BOTH), BOTH)

    with pytest.raises(KeyMissing, match="since this process began"):
        left_behind.commit([by(run, a_step("other", "late", value=a_value("x")))])

    assert opened(NEW).list_steps(RunId("other")) == []


@pytest.mark.parametrize("point", ["begun", "mid", "before-end"])
def test_a_rotation_that_died_goes_on_and_the_store_works_meanwhile(
    opened: Open, point: str
) -> None:
    fill(opened(OLD))
    with pytest.raises(InjectedCrash), armed(f"rotation.{point}:1:raise"):
        rotate_key(opened(BOTH), BOTH)

    between = opened(BOTH)
    read(between)
    claimed(between, "meanwhile", plan=a_plan("plan"))
    with pytest.raises(StoreError, match="are signed with key"):
        opened(NEW)
    rotate_key(opened(BOTH), BOTH)

    read(opened(NEW))
    assert opened(NEW).get_run(RunId("meanwhile")).id == "meanwhile"


def test_one_key_alone_is_not_changed_for_none(opened: Open) -> None:
    store = opened(OLD)

    with pytest.raises(StoreError, match="PERDURE_KEY=OLD,NEW"):
        rotate_key(store, OLD)

    assert key_names(store.database).current == key_id_of(OLD)  # type: ignore[union-attr]


def test_keys_that_changed_already_do_not_change_back(opened: Open) -> None:
    store = opened(BOTH)  # made now, so signed with the last one

    with pytest.raises(StoreError, match="the last key given signs already"):
        rotate_key(store, BOTH)


def test_of_three_keys_the_last_one_signs(opened: Open) -> None:
    keys = (OLD, OTHER, NEW)
    fill(opened(OLD))

    report = rotate_key(opened(keys), keys)

    assert (report.key_id, report.before) == (key_id_of(NEW), key_id_of(OLD))
    read(opened(NEW))


@pytest.mark.parametrize("keys", [(OLD, OLD), (OLD, NEW, NEW), (OLD, NEW, OLD)])
def test_a_key_that_is_given_twice_is_refused(opened: Open, keys: tuple[bytes, ...]) -> None:
    fill(opened(OLD))

    with pytest.raises(StoreError, match=f"PERDURE_KEY has key {key_id_of(keys[-1])} twice"):
        rotate_key(opened(keys), keys)

    read(opened(OLD))


# --- on SQLite -----------------------------------------------------------------------------------
@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "perdure.db"
    store = open_run_store(path, key=KeyFile(tmp_path / "key"))
    fill(store)
    store.close()
    return path


def test_a_key_file_gets_a_new_key_and_holds_no_other_after(path: Path) -> None:
    key = KeyFile(path.parent / "key")
    old = key.load()
    store = open_run_store(path, key=key)

    report = rotate_key(store, key)

    (new,) = key.load_all()
    assert (report.key_id, report.before) == (key_id_of(new), key_id_of(old or b""))
    assert key.path.stat().st_mode & 0o077 == 0
    read(store)
    store.close()


def test_a_key_file_that_a_death_left_with_two_keys_is_tidied_without_another_rotation(
    path: Path,
) -> None:
    key = KeyFile(path.parent / "key")
    store = open_run_store(path, key=key)
    with pytest.raises(InjectedCrash), armed("rotation.after-end:1:raise"):
        rotate_key(store, key)
    _, new = key.load_all()

    report = rotate_key(store, key)

    assert key.load_all() == (new,)
    assert report.rows == 0
    store.close()


def test_a_row_that_was_tampered_with_is_not_signed_anew(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE step SET codec = 'pickle/1' WHERE step_id = 'a'")
    connection.close()
    key = KeyFile(path.parent / "key")
    store = open_run_store(path, key=key)

    report = rotate_key(store, key)

    assert len(report.problems) == 1
    assert "step 'a'" in report.problems[0]
    with pytest.raises(StoreError, match=r"step 'a'.*tampered"):
        store.list_steps(_RUN)
    store.close()


def test_rows_beyond_the_first_page_are_signed_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_PAGE", 1)
    key = KeyFile(path.parent / "key")
    store = open_run_store(path, key=key)

    rotate_key(store, key)

    store.close()
    again = open_run_store(path, key=key)
    read(again)
    again.close()


def test_two_rotations_at_once_are_refused_not_mixed(path: Path) -> None:
    key = KeyFile(path.parent / "key")
    store = open_run_store(path, key=key)

    with key.held(), pytest.raises(StoreError, match="another process"):
        rotate_key(store, key)

    read(store)
    store.close()
