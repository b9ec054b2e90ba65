"""What a check of a whole store counts as a problem, and what it does not."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.checking import check_store
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    NOW,
    a_message,
    a_plan,
    a_save,
    a_step,
    a_tick,
    a_value,
    a_wait,
    an_arrival,
    an_expansion,
    arrived,
    by,
    claimed,
    registered,
    watched,
)
from perdure_storage.hashing import integrity_digest
from perdure_storage.lifecycle import RunStatus
from perdure_storage.local_blobs import LocalBlobStore
from perdure_storage.records import (
    BlobFile,
    Digest,
    PinRecord,
    Place,
    RunEnd,
    StepId,
    StepKey,
    StoredValue,
)
from perdure_storage.repairing import repair
from perdure_storage.schedule_records import ScheduleChange
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.trigger_records import TriggerChange


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlRunStore]:
    store = open_run_store(tmp_path / "perdure.db", key=b"k" * 32)
    yield store
    store.close()


@pytest.fixture
def blobs(store: SqlRunStore, tmp_path: Path) -> BlobRoot:
    return open_blobs(tmp_path / "blobs", store.store_id, bind=True)


def stored(blobs: BlobRoot, data: bytes) -> StoredValue:
    value = a_value(data.decode(), place=Place.BLOB)
    return msgspec.structs.replace(value, integrity=blobs.put([data]))


def test_a_value_that_was_lost_and_rebuilt_as_another_is_no_problem(
    store: SqlRunStore, blobs: BlobRoot
) -> None:
    run = claimed(store)
    first, second = stored(blobs, b"first"), stored(blobs, b"second")
    store.commit([by(run, a_step("run", "s", value=first))])
    lost = (StepKey(StepId("s"), 1),)
    store.commit([by(run, a_step("run", "s", 2, value=second), lost=lost)])
    blobs.delete(first.integrity)

    assert check_store(store, blobs, deep=True).problems == ()
    blobs.delete(second.integrity)
    (problem,) = check_store(store, blobs).problems
    assert second.integrity in problem.message


def test_blobs_without_which_everybody_can_do_are_told_of_and_are_no_problem(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path
) -> None:
    run = claimed(store)
    state, old = stored(blobs, b"state"), stored(blobs, b"before an edit")
    store.commit([by(run, a_step("run", "s", value=old, states={"counter": state}))])
    edited = (StepKey(StepId("s"), 1),)
    store.commit([by(run, a_step("run", "s", 2, states={"counter": state}), superseded=edited)])
    blobs.delete(old.integrity)
    (damaged,) = (tmp_path / "blobs").rglob(state.integrity.replace(":", "-"))
    damaged.write_bytes(b"x" * state.size_bytes)

    found = check_store(store, blobs, deep=True)
    repair(store, blobs, found.problems)
    mended = check_store(store, blobs, deep=True)

    assert [problem.digest for problem in found.problems] == [state.integrity]
    assert mended.problems == ()
    assert {problem.digest for problem in mended.gone} == {old.integrity, state.integrity}


def test_blob_that_is_spare_to_one_and_needed_by_another_is_a_problem(
    store: SqlRunStore, blobs: BlobRoot
) -> None:
    run = claimed(store)
    value = stored(blobs, b"both")
    store.commit([by(run, a_step("run", "s", states={"counter": value}))])
    store.commit([by(run, a_step("run", "t", value=value))])
    blobs.delete(value.integrity)

    report = check_store(store, blobs)

    (problem,) = report.problems
    assert problem.message.startswith("step 't' of run 'run'")
    assert report.gone == ()


def test_value_that_comes_while_blobs_are_looked_at_is_no_problem(
    store: SqlRunStore, blobs: BlobRoot
) -> None:
    class Late(LocalBlobStore):
        """Hears of a new value when all blobs have been looked at."""

        def survey(self) -> Iterator[BlobFile]:
            yield from super().survey()
            store.commit([by(run, a_step("run", "s", value=stored(self, b"late")))])

    assert isinstance(blobs, LocalBlobStore)
    run = claimed(store)

    report = check_store(store, Late(blobs.root), deep=True)

    assert (report.blobs, report.problems) == (1, ())


def test_a_blob_that_a_pinned_backup_needs_is_one(store: SqlRunStore, blobs: BlobRoot) -> None:
    run = claimed(store)
    value = stored(blobs, b"data")
    end = RunEnd(status=RunStatus.SUCCEEDED)
    store.commit([by(run, a_step("run", "s", value=value), end=end)])
    store.pin(PinRecord(id="backup", at=NOW))
    store.delete_run(run.id)
    blobs.delete(value.integrity)

    (problem,) = check_store(store, blobs).problems

    assert "a pinned backup" in problem.message


def test_values_of_messages_and_the_defaults_of_waits_are_looked_at(
    store: SqlRunStore, blobs: BlobRoot
) -> None:
    run = claimed(store)
    values = [stored(blobs, name) for name in (b"late", b"signal", b"event")]
    store.commit([by(run, waits=(a_wait("run", "w", default=values[0]),))])
    store.send(a_message(value=values[1]))
    store.send(a_message(None, value=values[2]))
    assert check_store(store, blobs, deep=True).problems == ()
    for value in values:
        blobs.delete(value.integrity)

    said = sorted(problem.message for problem in check_store(store, blobs).problems)

    assert [message.partition(": ")[0] for message in said] == [
        "default of step 'w' of run 'run'",
        "message 1, 'go' of run 'run'",
        "message 2, 'go'",
    ]


def test_messages_that_were_changed_are_told_of(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path
) -> None:
    claimed(store)
    store.send(a_message(None))
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        connection.execute("UPDATE message SET name = 'other'")
    connection.close()

    (problem,) = check_store(store, blobs).problems

    assert (problem.kind, "message 1 ('other') was tampered with" in problem.message) == (
        "row",
        True,
    )


def forget_references(path: Path, whose: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"DELETE FROM blob_ref WHERE {whose}")
    connection.close()


@pytest.mark.parametrize(
    ("whose", "said"),
    [
        ("holder_id = 'b' AND holder = 'step'", "step 's' of run 'b'"),
        ("holder_id = 'b' AND holder = 'save'", "save 1 of step 't' of run 'b'"),
        ("holder_id = 'b' AND generation = 2", "step 's' of run 'b'"),
    ],
)
def test_row_needs_a_reference_of_its_own_though_others_need_the_same_blob(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path, whose: str, said: str
) -> None:
    value = stored(blobs, b"shared")
    for run_id in ("a", "b"):
        run = claimed(store, run_id)
        store.commit([by(run, a_step(run_id, "s", value=value))])
        again = a_step(run_id, "s", 2, value=value)
        store.commit([by(run, again, lost=(StepKey(StepId("s"), 1),))])
        kept = a_save("t", run_id=run.id, value=value)
        assert run.owner is not None
        assert store.save(kept, owner=run.owner.token, epoch=run.epoch) is None
    assert check_store(store, blobs).problems == ()
    forget_references(tmp_path / "perdure.db", whose)

    found = check_store(store, blobs).problems
    mended = repair(store, blobs, found)

    assert [problem.message.partition(": ")[0] for problem in found] == [said]
    assert tuple(mended) == found
    assert check_store(store, blobs).problems == ()


def test_references_of_steps_and_saves_that_are_not_there_are_removed(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path
) -> None:
    run = claimed(store)
    waits = (a_wait("run", "w", default=stored(blobs, b"late")),)
    store.commit([by(run, a_step("run", "s", value=stored(blobs, b"data")), waits=waits)])
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        rows = [(kind, "run", "ghost", 1, f"blake3:{64 * '0'}") for kind in ("step", "save")]
        connection.executemany("INSERT INTO blob_ref VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()

    found = check_store(store, blobs).problems
    repair(store, blobs, found)

    assert [problem.message.partition(",")[0] for problem in found] == [
        "a save of run 'run' is not there",
        "a step of run 'run' is not there",
    ]
    assert check_store(store, blobs).problems == ()
    assert check_store(store, blobs).blobs == 2


@pytest.mark.parametrize("whose", ["run", "expansion"])
def test_plans_that_runs_need_and_do_not_keep_are_kept_again(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path, whose: str
) -> None:
    run = claimed(store)
    given = an_expansion("run", "s", plan=a_plan("given"))
    store.commit([by(run, expansions=(given,))])
    assert check_store(store, blobs).problems == ()
    digest = run.plan_digest if whose == "run" else given.plan.digest
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        connection.execute("DELETE FROM plan_ref WHERE plan_digest = ?", (digest,))
    connection.close()

    found = check_store(store, blobs).problems
    repair(store, blobs, found)

    (problem,) = found
    assert "run 'run': a plan that it names is not kept for it (1 in all)" in problem.message
    assert check_store(store, blobs).problems == ()


BLOBS, MOST_BYTES = 15_000, 1_000_000


def test_memory_of_a_check_does_not_grow_with_the_blobs(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path
) -> None:
    """One set of their names alone is three times as much."""
    store.pin(PinRecord(id="backup", at=NOW))
    digests = [integrity_digest([str(number).encode()]) for number in range(BLOBS)]
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        rows = (("pin", "backup", "", 0, digest) for digest in digests[1:])
        connection.executemany("INSERT INTO blob_ref VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    blobs.put([b"nobody's"])
    (path,) = (tmp_path / "blobs").rglob("blake3-*")
    for name in (digest.removeprefix("blake3:") for digest in digests[:-1]):
        folder = path.parent.parent / name[:2]
        folder.mkdir(exist_ok=True)
        (folder / f"blake3-{name}").touch()

    check_store(store, blobs)  # what it imports and compiles stays

    tracemalloc.start()
    report = check_store(store, blobs)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (report.blobs, report.orphans, len(report.problems)) == (BLOBS - 1, 2, 1)
    assert most_bytes < MOST_BYTES


def test_what_nothing_refers_to_is_none(store: SqlRunStore, blobs: BlobRoot) -> None:
    claimed(store)
    blobs.put([b"an orphan"])
    store.condemn([Digest(f"blake3:{0:064x}")])

    report = check_store(store, blobs, deep=True)

    assert (report.runs, report.blobs, report.problems) == (1, 0, ())


def test_blobs_of_triggers_and_payloads_of_their_arrivals_are_looked_at(
    store: SqlRunStore, blobs: BlobRoot
) -> None:
    code, payload = stored(blobs, b"code").integrity, stored(blobs, b"payload")
    trigger = watched(store, blobs=(code,))
    arrivals = (an_arrival(payload=payload), an_arrival("b.csv"))
    store.triggers.accept([TriggerChange(trigger=trigger, arrivals=arrivals)])
    assert check_store(store, blobs, deep=True).problems == ()
    for blob in (code, payload.integrity):
        blobs.delete(blob)

    said = sorted(problem.message for problem in check_store(store, blobs).problems)

    assert [message.partition(": ")[0] for message in said] == [
        "arrival 'a.csv' of trigger 'landed'",
        "definition of trigger 'landed'",
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("trigger SET definition = 'evil'", "trigger 'landed'"),
        ("trigger SET state = 'evil'", "the state of trigger 'landed'"),
        ("arrival SET run_id = 'evil'", "the arrival 'a.csv' of trigger 'landed'"),
    ],
)
def test_rows_of_triggers_that_were_changed_are_problems(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path, change: str, named: str
) -> None:
    store.triggers.accept([arrived(watched(store), "a.csv")])
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        connection.execute(f"UPDATE {change}")
    connection.close()

    (problem,) = check_store(store, blobs).problems

    assert problem.kind == "row"
    assert named in problem.message


def test_blobs_of_schedules_are_looked_at(store: SqlRunStore, blobs: BlobRoot) -> None:
    there = stored(blobs, b"there").integrity
    registered(store, blobs=(there,))
    assert check_store(store, blobs, deep=True).problems == ()
    blobs.delete(there)

    (problem,) = check_store(store, blobs).problems

    assert "definition of schedule 'nightly'" in problem.message
    assert "is missing" in problem.message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("schedule SET definition = 'evil'", "schedule 'nightly'"),
        ("schedule SET state = 'evil'", "the state of schedule 'nightly'"),
        ("tick SET run_id = 'evil'", "the tick of 2026-01-01 00:00:00 UTC of schedule 'nightly'"),
    ],
)
def test_rows_of_schedules_that_were_changed_are_problems(
    store: SqlRunStore, blobs: BlobRoot, tmp_path: Path, change: str, named: str
) -> None:
    schedule = registered(store)
    store.schedules.fire([ScheduleChange(schedule=schedule, ticks=(a_tick(),))])
    with sqlite3.connect(tmp_path / "perdure.db") as connection:
        connection.execute(f"UPDATE {change}")
    connection.close()

    (problem,) = check_store(store, blobs).problems

    assert problem.kind == "row"
    assert named in problem.message


@pytest.mark.postgres
def test_references_are_mended_on_postgres_too(postgres_url: str, tmp_path: Path) -> None:
    store = open_run_store(postgres_url, key=b"k" * 32)
    blobs = open_blobs(tmp_path / "blobs", store.store_id, bind=True)
    run = claimed(store)
    value = stored(blobs, b"data")
    store.commit([by(run, a_step("run", "s", value=value))])
    store.send(a_message(value=stored(blobs, b"signal")))
    store.database.write(lambda t: t.notify("UPDATE blob_ref SET holder_id = 'gone'"))
    store.database.write(lambda t: t.notify("DELETE FROM plan_ref"))

    found = check_store(store, blobs).problems
    mended = repair(store, blobs, found)

    assert {problem.kind for problem in found} == {"reference"}
    assert "a plan that it names is not kept" in found[-1].message
    assert len(mended) == len(found) > 2
    assert check_store(store, blobs, deep=True).problems == ()
    store.close()
