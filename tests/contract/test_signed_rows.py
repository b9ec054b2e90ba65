"""Rows that somebody changed behind the store's back are never believed."""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.scheduler.dispatching import NOON, World, trigger

from perdure_scheduler.conditions import AnyOf, Event, RunFinished
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    NOW,
    a_message,
    a_plan,
    a_step,
    a_value,
    a_wait,
    an_attempt,
    an_expansion,
    an_unplanned_run,
    arrived,
    by,
    claimed,
    created,
    digest,
    fired,
    registered,
    watched,
)
from perdure_storage.errors import KeyMissing, StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Cause, ErrorRecord, Place, RunEnd, RunId, RunQuery, StepKey
from perdure_storage.schedule_records import ScheduleQuery, TickQuery
from perdure_storage.signing import KeyFile, load_or_create_key
from perdure_storage.trigger_records import ArrivalQuery, TriggerQuery

KEY = bytes(range(32))
ERROR = ErrorRecord(type="E", message="m", cause=Cause.USER_ERROR, pickled=b"pickle")
_RUN = RunId("run")
_WAITER = "step 'w' of run 'run'"
_NIGHTLY = "schedule 'nightly'"
_LANDED = "trigger 'landed'"
_ARRIVAL = f"the arrival 'a.csv' of {_LANDED}"


def _from_other(*columns: str, of: str = "schedule") -> str:
    """Return the setting of columns to what another row of a table has."""
    other = f"(SELECT {{0}} FROM {of} AS o WHERE o.name = 'other')"
    return ", ".join(f"{column} = {other.format(column)}" for column in columns)


_SWAPPED_DEFINITION = _from_other("definition", "mac")
_SWAPPED_STATE = _from_other("state", "state_mac")
_FIRST = r"message 1 \('go'\)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the place of a store with a finished run, whose steps have values and errors."""
    path = tmp_path / "perdure.db"
    store = open_run_store(path, key=KEY)
    plan = a_plan("plan", "function")
    run = claimed(
        store, plan=plan, origin="package:flow", inputs={"x": a_value("1")}, inputs_digest="v1:x"
    )
    value = a_value("result", place=Place.BLOB)
    other = a_value("other", place=Place.BLOB)
    steps = (
        a_step("run", "a", value=value, code="v1:code", own="v1:own", fingerprint="v1:print"),
        a_step("run", "b", value=other, error=ERROR, inputs=("v1:1",)),
        a_step("run", "lost", value=value),
    )
    tries = (an_attempt("run", "b", cause=Cause.USER_ERROR, error=ERROR),)
    grown = (an_expansion("run", "b"),)
    waits = (a_wait("run", "w", default=value), a_wait("run", "v", name="stop"))
    store.commit([by(run, *steps, attempts=tries, expansions=grown, waits=waits)])
    store.send(a_message(value=a_value("1")))
    store.send(a_message(value=a_value("2"), match={"n": 1}))
    end = RunEnd(status=RunStatus.FAILED, error=ERROR)
    lost = (StepKey("lost", 1),)  # type: ignore[arg-type]
    store.commit([by(run, lost=lost, end=end)])
    for name in ("nightly", "other"):
        schedule = registered(store, name, definition=f'{{"run":"{name}"}}', state=f'"{name}"')
        store.schedules.fire([fired(schedule, an_unplanned_run(f"of {name}"))])
    for name in ("landed", "other"):
        wants = {"next_at": NOW, "events": ("price",), "watches_runs": True}
        trigger = watched(store, name, definition=f'{{"on":"{name}"}}', **wants)
        change = arrived(msgspec.structs.replace(trigger, state=f'"{name}"'), "a.csv", run=name)
        store.triggers.accept([change])
    store.close()
    return path


def _tamper(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(sql).rowcount > 0
    connection.close()


def test_rows_that_nobody_touched_are_believed(path: Path) -> None:
    store = open_run_store(path, key=KEY)

    run = store.get_run(_RUN)
    assert len(store.list_steps(_RUN, current_only=False)) == 3
    assert len(store.list_attempts(_RUN)) == 1
    assert store.get_plan(run.plan_digest) == a_plan("plan", "function")
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "integrity = 'blake3:evil'",
        "value_digest = 'v1:evil'",
        "codec = 'pickle/1'",
        "size_bytes = 1",
        "place = 'inline', data = x'00'",
        "status = 'FAILED'",
        "generation = 2",
        "step_id = 'c'",
        "own = 'v1:evil'",
        "code = 'v1:evil'",
        "fingerprint = 'v1:evil'",
        "inputs = '[\"v1:evil\"]'",
        'parts = \'{"a":"v1:evil"}\'',
        "caught = 1",
        "error = x'80'",
        "mac = NULL",
        "mac = (SELECT mac FROM step AS s WHERE s.step_id = 'b')",
    ],
)
def test_a_step_row_that_was_changed_is_named_and_refused(path: Path, change: str) -> None:
    _tamper(path, f"UPDATE step SET {change} WHERE step_id = 'a'")
    store = open_run_store(path, key=KEY)

    with pytest.raises(StoreError, match=r"step '[ac]'.*of run 'run' was tampered with"):
        store.list_steps(_RUN)
    store.close()


def test_a_refused_row_leaves_no_cursor_open_that_complains_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tamper(path, "UPDATE step SET code = 'v1:forged'")
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    store = open_run_store(path, key=KEY)

    with pytest.raises(StoreError, match="tampered") as refused:
        store.list_steps(_RUN)
    store.close()
    del refused
    gc.collect()

    assert complaints == []


def test_a_value_that_was_swapped_with_another_rows_is_refused(path: Path) -> None:
    columns = ("integrity", "value_digest", "size_bytes", "mac")
    swapped = ", ".join(f"{c} = (SELECT {c} FROM step AS s WHERE s.step_id = 'b')" for c in columns)
    _tamper(path, f"UPDATE step SET {swapped} WHERE step_id = 'a'")
    store = open_run_store(path, key=KEY)

    with pytest.raises(StoreError, match="step 'a'"):
        store.list_steps(_RUN)
    store.close()


def _get_run(store: RunStore) -> object:
    return store.get_run(_RUN)


def _get_plan(store: RunStore) -> object:
    return store.get_plan(digest("plan"))


def _list_expansions(store: RunStore) -> object:
    return store.list_expansions(_RUN)


def _list_waits(store: RunStore) -> object:
    return store.list_waits(_RUN)


def _list_messages(store: RunStore) -> object:
    return store.messages(_RUN, ["go", "evil"])


def _get_schedule(store: RunStore) -> object:
    return store.schedules.get_schedule("nightly")


def _list_schedules(store: RunStore) -> object:
    return store.schedules.list_schedules(ScheduleQuery())


def _list_ticks(store: RunStore) -> object:
    return store.schedules.list_ticks(TickQuery(schedule="nightly"))


def _get_trigger(store: RunStore) -> object:
    return store.triggers.get_trigger("landed")


def _list_triggers(store: RunStore) -> object:
    return store.triggers.list_triggers(TriggerQuery())


def _list_arrivals(store: RunStore) -> object:
    return store.triggers.list_arrivals(ArrivalQuery(trigger="landed"))


def _known(store: RunStore) -> object:
    return store.triggers.known("landed", ["a.csv"])


def _get_unplanned(store: RunStore) -> object:
    return store.get_run(RunId("of nightly"))


def _list_runs(store: RunStore) -> object:
    return store.list_runs(RunQuery())


def _list_attempts(store: RunStore) -> object:
    return store.list_attempts(_RUN)


@pytest.mark.parametrize(
    ("change", "read", "named"),
    [
        ("run SET inputs = x'80'", _get_run, "run 'run'"),
        ("run SET inputs_digest = 'v1:evil'", _get_run, "run 'run'"),
        ("run SET origin = 'evil:flow'", _get_run, "run 'run'"),
        ("run SET mac = NULL", _get_run, "run 'run'"),
        ("run SET error = x'80'", _get_run, "the error of run 'run'"),
        ("run SET error = x'80'", _list_runs, "the error of run 'run'"),
        ("plan SET body = x'80'", _get_plan, "plan blake3:plan"),
        ("expansion SET count = 9", _list_expansions, "the graph that step 'b' of run 'run' gave"),
        (
            "expansion SET step_id = 'a'",
            _list_expansions,
            "the graph that step 'a' of run 'run' gave",
        ),
        ("plan SET body = x'80'", _list_expansions, "plan blake3:child"),
        ("wait SET deadline_us = 1 WHERE step_id = 'w'", _list_waits, f"what {_WAITER} waits for"),
        ("wait SET value = NULL WHERE step_id = 'w'", _list_waits, f"what {_WAITER} waits for"),
        ("wait SET name = 'evil' WHERE step_id = 'w'", _list_waits, f"what {_WAITER} waits for"),
        (
            "wait SET mac = (SELECT mac FROM wait AS o WHERE o.step_id = 'v') WHERE step_id = 'w'",
            _list_waits,
            f"what {_WAITER} waits for",
        ),
        ("message SET value = x'80' WHERE id = 1", _list_messages, _FIRST),
        ("message SET match = '{\"n\":1}' WHERE id = 1", _list_messages, _FIRST),
        ("message SET at_us = 1 WHERE id = 1", _list_messages, _FIRST),
        ("message SET name = 'evil' WHERE id = 1", _list_messages, r"message 1 \('evil'\)"),
        ("message SET mac = NULL WHERE id = 1", _list_messages, _FIRST),
        ("plan SET blobs = '[]'", _get_plan, "plan blake3:plan"),
        ("schedule SET definition = '{}'", _get_schedule, _NIGHTLY),
        ("schedule SET digest = 'v1:evil'", _list_schedules, _NIGHTLY),
        ("schedule SET plan_digest = 'blake3:plan'", _get_schedule, _NIGHTLY),
        ("schedule SET blobs = '[\"blake3:evil\"]'", _get_schedule, _NIGHTLY),
        ("schedule SET module = 'evil'", _get_schedule, _NIGHTLY),
        ("schedule SET mac = NULL", _get_schedule, _NIGHTLY),
        (f"schedule SET {_SWAPPED_DEFINITION} WHERE name = 'nightly'", _get_schedule, _NIGHTLY),
        ("schedule SET state = '{}'", _get_schedule, f"the state of {_NIGHTLY}"),
        ("schedule SET next_at_us = 1", _get_schedule, f"the state of {_NIGHTLY}"),
        ("schedule SET wakes_below = 1", _get_schedule, f"the state of {_NIGHTLY}"),
        ("schedule SET paused = true", _get_schedule, f"the state of {_NIGHTLY}"),
        ("schedule SET version = 9", _get_schedule, f"the state of {_NIGHTLY}"),
        (
            f"schedule SET {_SWAPPED_STATE} WHERE name = 'nightly'",
            _get_schedule,
            f"the state of {_NIGHTLY}",
        ),
        ("tick SET run_id = 'evil'", _list_ticks, f"the tick of .* UTC of {_NIGHTLY}"),
        ("tick SET decision = 'evil'", _list_ticks, f"the tick of .* UTC of {_NIGHTLY}"),
        ("trigger SET definition = '{}'", _get_trigger, _LANDED),
        ("trigger SET digest = 'v1:evil'", _list_triggers, _LANDED),
        ("trigger SET plan_digest = 'blake3:plan'", _get_trigger, _LANDED),
        ("trigger SET blobs = '[\"blake3:evil\"]'", _get_trigger, _LANDED),
        ("trigger SET events = '[\"evil\"]'", _get_trigger, _LANDED),
        ("trigger SET watches_runs = false", _get_trigger, _LANDED),
        ("trigger SET listens = true", _get_trigger, _LANDED),
        ("trigger SET mac = NULL", _get_trigger, _LANDED),
        (
            f"trigger SET {_from_other('definition', 'mac', of='trigger')} WHERE name = 'landed'",
            _get_trigger,
            _LANDED,
        ),
        ("trigger SET state = '{}'", _get_trigger, f"the state of {_LANDED}"),
        ("trigger SET heard = 9", _get_trigger, f"the state of {_LANDED}"),
        ("trigger SET next_at_us = 1", _get_trigger, f"the state of {_LANDED}"),
        ("trigger SET paused = true", _get_trigger, f"the state of {_LANDED}"),
        ("trigger SET version = 9", _get_trigger, f"the state of {_LANDED}"),
        (
            f"trigger SET {_from_other('state', 'state_mac', of='trigger')} WHERE name = 'landed'",
            _get_trigger,
            f"the state of {_LANDED}",
        ),
        ('arrival SET facts = \'{"path":"evil"}\'', _list_arrivals, _ARRIVAL),
        ("arrival SET run_id = 'evil'", _known, _ARRIVAL),
        ("arrival SET decision = 'deferred'", _list_arrivals, _ARRIVAL),
        ("arrival SET seq = 9", _list_arrivals, _ARRIVAL),
        ("arrival SET payload = x'80'", _known, _ARRIVAL),
        ("arrival SET mac = NULL", _known, _ARRIVAL),
        ("run SET origin = 'evil:flow' WHERE id = 'of nightly'", _get_unplanned, "'of nightly'"),
        (
            "run SET plan_digest = 'blake3:plan' WHERE id = 'of nightly'",
            _get_unplanned,
            "'of nightly'",
        ),
        ("attempt SET error = x'80'", _list_attempts, "attempt 1 of step 'b' of run 'run'"),
    ],
)
def test_a_row_that_was_changed_is_named_and_refused(
    path: Path, change: str, read: Callable[[RunStore], object], named: str
) -> None:
    _tamper(path, f"UPDATE {change}")
    store = open_run_store(path, key=KEY)

    with pytest.raises(StoreError, match=f"{named} was tampered with"):
        read(store)
    store.close()


def test_a_schedule_that_was_changed_stops_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _tamper(path, "UPDATE schedule SET definition = '{}' WHERE name = 'nightly'")
    store = open_run_store(path, key=KEY)

    due = [store.schedules.due(NOW, limit=1) for _ in range(3)]

    # Where it takes a place of the first page, it takes none of the next.
    assert [[each.name for each in page] for page in due] == [[], ["other"], ["other"]]
    assert len([each for each in caplog.records if "tampered" in each.message]) == 1
    store.close()


def test_a_trigger_that_was_changed_stops_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _tamper(path, "UPDATE trigger SET definition = '{}' WHERE name = 'landed'")
    store = open_run_store(path, key=KEY)

    due = [store.triggers.due_triggers(NOW, limit=1) for _ in range(3)]

    assert [[each.name for each in page] for page in due] == [[], ["other"], ["other"]]
    assert [each.name for each in store.triggers.hearing()] == ["other"]
    assert [each.name for each in store.triggers.watching()] == ["other"]
    assert len([each for each in caplog.records if "tampered" in each.message]) == 1
    store.close()


@pytest.mark.parametrize("table", ["trigger SET definition = '{}'", "arrival SET reason = 'evil'"])
def test_arrivals_for_a_trigger_that_was_changed_are_rejected_and_those_of_others_land(
    path: Path, table: str
) -> None:
    store = open_run_store(path, key=KEY)
    both = [store.triggers.get_trigger(name) for name in ("landed", "other")]
    column = "name" if table.startswith("trigger") else "trigger"
    _tamper(path, f"UPDATE {table} WHERE {column} = 'landed'")

    report = store.triggers.accept(
        [arrived(each, "a.csv", "b.csv", run=each.name, moves=False) for each in both]
    )

    assert report.refused["landed"].kind == "rejected"
    assert "tampered" in report.refused["landed"].message
    assert report.made == ("other-b.csv",)
    store.close()


def test_a_row_of_another_store_does_not_pass(path: Path, tmp_path: Path) -> None:
    other = open_run_store(tmp_path / "other.db", key=KEY)
    claimed(other, plan=a_plan("plan", "function"))
    other.close()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("ATTACH ? AS first", (str(path),))
        connection.execute("INSERT INTO step SELECT * FROM first.step")
    connection.close()
    other = open_run_store(tmp_path / "other.db", key=KEY)

    with pytest.raises(StoreError, match="tampered"):
        other.list_steps(_RUN)
    other.close()


def test_a_reset_signs_the_run_with_its_new_plan(path: Path) -> None:
    store = open_run_store(path, key=KEY)

    store.reset_run(_RUN, plan=a_plan("mended"))

    assert store.get_run(_RUN).plan_digest == digest("mended")
    store.close()


# --- keys ----------------------------------------------------------------------------------------
def test_a_signed_store_needs_its_key(path: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyMissing, match="PERDURE_KEY"):
        open_run_store(path)
    with pytest.raises(KeyMissing, match="no-key"):
        open_run_store(path, key=KeyFile(tmp_path / "no-key"))

    assert not (tmp_path / "no-key").exists()


def test_a_store_refuses_another_key_and_shows_none(path: Path) -> None:
    wrong = b"w" * 32

    with pytest.raises(StoreError, match="put the right one") as refused:
        open_run_store(path, key=wrong)

    assert wrong.hex() not in str(refused.value)


def test_an_unsigned_store_refuses_a_key(tmp_path: Path) -> None:
    open_run_store(tmp_path / "plain.db").close()

    with pytest.raises(StoreError, match="not signed"):
        open_run_store(tmp_path / "plain.db", key=KEY)


def test_a_key_file_is_made_with_the_store_and_for_its_owner_only(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "folder" / "key")

    store = open_run_store(tmp_path / "perdure.db", key=key)
    created(store)
    store.close()

    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert os.listdir(key.path.parent) == ["key"]
    again = open_run_store(tmp_path / "perdure.db", key=key)
    assert again.get_run(_RUN).id == _RUN
    again.close()


def test_a_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    first = load_or_create_key(tmp_path)

    assert load_or_create_key(tmp_path) == first
    assert len(first) == 32


@pytest.mark.parametrize("text", ["", "not hexadecimal", "abcd"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)

    with pytest.raises(StoreError, match="holds no key") as refused:
        load_or_create_key(tmp_path)

    assert "not hexadecimal" not in str(refused.value)


def test_a_trigger_with_a_changed_row_keeps_events_and_ends_from_no_other(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    world = World(NOON, lambda clock: open_run_store(path, key=KEY, clock=clock))
    for name in ("arrival", "trigger", "other"):
        on = AnyOf(of={"e": Event(name="e"), "r": RunFinished(workflow="load")})
        world.triggers.register(trigger(name, on))
    world.emit("e")
    world.at(NOON)
    _tamper(path, "UPDATE arrival SET reason = 'evil' WHERE trigger = 'arrival'")
    _tamper(path, "UPDATE trigger SET state = '{}' WHERE name = 'trigger'")

    world.bring_run("load", "r")
    world.end("r")
    world.emit("e")
    world.at(NOON)

    end = f"{NOON.isoformat()}/r"
    assert world.became("other") == {"event-1": "fired", end: "fired", "event-2": "fired"}
    world.store.close()
