"""Runs that go from store to store: all of a run arrives, nothing goes on by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.acceptance import moving_steps
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure
from perdure.engine.ownership import this_owner
from perdure.errors import RunConflict, RunNotFound, StoreError
from perdure_storage.checking import check_store
from perdure_storage.errors import RunFileRefused
from perdure_storage.faults import InjectedCrash, armed
from perdure_storage.records import RunId, WholeRun

ROOT = Path(__file__).parents[2]

Open = Callable[[str], Perdure]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open stores by name: each in a folder of its own, or at a URL with blobs in one."""
    stores: list[Perdure] = []

    def open_(name: str, url: str | None = None) -> Perdure:
        folder = tmp_path / name
        store = url or f"sqlite:///{folder}/perdure.db"
        stores.append(perdure.open(store, blobs=f"{folder}/blobs", executor="inline"))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def whole(store: Perdure, run_id: str) -> WholeRun:
    return store.runtime.store.whole_run(RunId(run_id))


def comparable(found: WholeRun) -> WholeRun:
    """Return a run's rows without what an import adds, and numbers that each store gives."""
    history = found.history
    events = [event for event in history.events if event.kind != "imported"]
    kept = msgspec.structs.replace(
        history,
        events=tuple(msgspec.structs.replace(event, detail={}) for event in events),
        waits=tuple(msgspec.structs.replace(wait, message=None) for wait in history.waits),
    )
    run = msgspec.structs.replace(found.run, owner=None, lease_live=False, seq=0)
    messages = tuple(msgspec.structs.replace(message, id=0) for message in found.messages)
    return msgspec.structs.replace(found, run=run, history=kept, messages=messages)


def moved(source: Perdure, target: Perdure, run_id: str, **more: Any) -> perdure.Run:
    file = Path(source.settings.blobs).parent / f"{run_id}.perdure"
    source.export_run(run_id, file, overwrite=True)
    return target.import_run(file, trust=True, **more)


def everything(store: Perdure, run_id: str = "all") -> None:
    """Make a run that grows, branches, waits, keeps large values, prints, and fails at the end."""
    run = store.begin(moving_steps.everything, run_id=run_id, n=3)
    store.signal(run_id, "go", "yes", dedup_key="once")
    store.signal(run_id, "never asked for", b"x" * 50_000)
    store.emit("landed", {"path": "a.csv"}, dedup_key="a.csv")
    with pytest.raises(perdure.RunFailed):
        store.drive(run)


def there_and_back(laptop: Perdure, team: Perdure, home: Perdure) -> None:
    everything(laptop)
    before = whole(laptop, "all")

    moved(laptop, team, "all")
    moved(team, home, "all")

    assert comparable(whole(team, "all")).history == comparable(before).history
    back = comparable(whole(home, "all"))
    assert back.run == comparable(before).run
    assert back.plans == before.plans
    assert back.history == comparable(before).history
    assert [message.value for message in back.messages] == [m.value for m in before.messages]
    for step_id in ("large", "large#2"):
        assert home.get_run("all")[step_id].result() == laptop.get_run("all")[step_id].result()
    assert str(home.get_run("all").logs()) == str(laptop.get_run("all").logs())


def test_run_goes_to_another_store_and_back_with_all_that_it_has(opened: Open) -> None:
    there_and_back(opened("laptop"), opened("team"), opened("home"))


@pytest.mark.postgres
def test_run_goes_from_sqlite_to_postgres_and_back(
    opened: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_KEY", "5a" * 32)

    there_and_back(opened("laptop"), opened("team", postgres_url), opened("home"))


# --- what can be done with it there ----------------------------------------------------------
def test_imported_run_is_resumed_mended_from_where_it_failed(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = opened("source"), opened("target")
    everything(source)
    run = moved(source, target, "all")
    monkeypatch.setattr(moving_steps, "MENDED", True)
    before = moving_steps.CALLS.copy()

    resumed = target.resume(run.id)

    assert resumed.result() == ["yes", "a.csv", 100_000, 3]
    assert moving_steps.CALLS - before == {"last": 1}
    assert source.get_run("all").status == "FAILED"


def test_imported_run_is_reused_forked_run_again_and_reported(opened: Open, tmp_path: Path) -> None:
    source, target = opened("source"), opened("target")
    source.run(moving_steps.plain, run_id="one", n=5)
    run = moved(source, target, "one")
    before = moving_steps.CALLS.copy()

    reused = target.run(moving_steps.plain, run_id="two", n=5, reuse=run.id)
    forked = target.fork(run.id, new_id="three")

    assert reused == forked.result() == run.result()
    assert not moving_steps.CALLS - before
    assert target.rerun(run.id, new_id="four").result() == run.result()
    assert target.report(run.id, tmp_path / "one.html").exists()
    assert "reused" in target.why("two", "square") or "taken over" in target.why("two", "square")


def test_waiting_run_arrives_paused_and_goes_on_when_told(opened: Open) -> None:
    source, target = opened("source"), opened("target")
    run = source.start(moving_steps.asks, run_id="asks")
    wait_until(lambda: run.record.status == "WAITING", 20, "it does not wait")

    arrived = moved(source, target, "asks")

    assert arrived.status == "PAUSED"
    assert target.runtime.store.claimable() == []
    target.resume("asks")
    target.signal("asks", "go", 7)
    assert arrived.result() == 8
    assert run.status == "WAITING"


def test_run_that_was_cut_off_is_interrupted_and_goes_on_elsewhere(
    opened: Open, tmp_path: Path
) -> None:
    source, target = opened("source"), opened("target")
    ended = subprocess.run(
        [sys.executable, "-c", CUT_OFF, source.settings.store, source.settings.blobs],
        cwd=ROOT,
        env={**os.environ, "PERDURE_CRASH_POINTS": "dispatch.before:2:kill"},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert source.get_run("cut").status == "INTERRUPTED"

    arrived = moved(source, target, "cut")

    assert arrived.status == "PAUSED"
    assert target.resume("cut").result() == 81


CUT_OFF = """
import sys, perdure
from tests.acceptance import moving_steps
with perdure.open(sys.argv[1], blobs=sys.argv[2], executor="inline"):
    moving_steps.plain.run(run_id="cut", n=3)
"""


# --- what is refused -------------------------------------------------------------------------
def test_run_that_is_driven_is_not_exported(opened: Open, tmp_path: Path) -> None:
    store = opened("source")
    run = store.begin(moving_steps.plain, run_id="one")
    owner = this_owner()
    store.runtime.store.register(owner, 60.0)
    store.runtime.store.claim_run(RunId(run.id), owner)

    with pytest.raises(RunConflict, match="driven by process"):
        store.export_run("one", tmp_path / "one.perdure")

    assert not list(tmp_path.glob("*.perdure"))


def test_export_replaces_no_file_unless_told(opened: Open, tmp_path: Path) -> None:
    store = opened("source")
    store.run(moving_steps.plain, run_id="one")
    file = tmp_path / "mine.txt"
    file.write_text("mine")

    with pytest.raises(StoreError, match="is there already"):
        store.export_run("one", file)

    assert file.read_text() == "mine"
    store.export_run("one", file, overwrite=True)
    assert opened("target").import_run(file).result() == 81


def test_export_of_a_run_whose_value_is_gone_says_so_and_leaves_no_file(
    opened: Open, tmp_path: Path
) -> None:
    store = opened("source")
    everything(store)
    value = whole(store, "all").history.steps
    (digest,) = {s.value.integrity for s in value if s.step_id == "large" and s.value}
    store.runtime.blobs.delete(digest)

    with pytest.raises(perdure.errors.ValueDamaged, match="perdure resume all"):
        store.export_run("all", tmp_path / "all.perdure")

    assert list(tmp_path.glob("*.perdure")) == []


def test_second_import_changes_nothing(opened: Open) -> None:
    source, target = opened("source"), opened("target")
    everything(source)
    moved(source, target, "all")
    before = whole(target, "all")

    again = moved(source, target, "all")

    assert again.id == "all"
    assert whole(target, "all") == before
    assert str(again.logs()) == str(source.get_run("all").logs())


def test_another_run_of_the_id_stays_and_the_way_out_is_named(opened: Open) -> None:
    source, target = opened("source"), opened("target")
    source.run(moving_steps.plain, run_id="one", n=2)
    target.run(moving_steps.plain, run_id="one", n=3)

    with pytest.raises(RunConflict, match=r"another run 'one'.*--as ID"):
        moved(source, target, "one")

    assert target.get_run("one").result() == 81
    renamed = moved(source, target, "one", new_id="theirs/one")
    assert renamed.result() == 16
    assert [entry.run_id for entry in whole(target, "theirs/one").history.steps] == [
        "theirs/one"
    ] * 2
    assert moved(source, target, "one", new_id="theirs/one").result() == 16


def test_pickled_values_are_refused_unless_the_file_is_trusted(
    opened: Open, tmp_path: Path
) -> None:
    source, target = opened("source"), opened("target")
    source.run(moving_steps.pickles, run_id="one")
    source.export_run("one", tmp_path / "one.perdure")

    with pytest.raises(RunFileRefused, match=r"1 pickled value: .*--trust"):
        target.import_run(tmp_path / "one.perdure")

    with pytest.raises(RunNotFound):
        target.get_run("one")


def test_import_unpickles_nothing(opened: Open, tmp_path: Path) -> None:
    source, target = opened("source"), opened("target")
    source.run(moving_steps.pickles, run_id="one")
    source.export_run("one", tmp_path / "one.perdure")
    before = moving_steps.CALLS.copy()

    run = target.import_run(tmp_path / "one.perdure", trust=True)

    assert before == moving_steps.CALLS
    assert str(run["slow_to_thaw"].preview)
    run.result()
    assert moving_steps.CALLS - before == {"thawed": 1}


@pytest.mark.parametrize("point", ["import.before", "import.in-transaction"])
def test_import_that_dies_leaves_nothing_that_anybody_sees(
    opened: Open, tmp_path: Path, point: str
) -> None:
    source, target = opened("source"), opened("target")
    everything(source)
    source.export_run("all", tmp_path / "all.perdure")

    with armed(f"{point}:1:raise"), pytest.raises(InjectedCrash):
        target.import_run(tmp_path / "all.perdure", trust=True)

    assert target.list_runs() == []
    assert target.import_run(tmp_path / "all.perdure", trust=True).status == "FAILED"
    assert check_store(target.runtime.rows, target.runtime.blobs, deep=True).problems == ()


def test_import_that_dies_before_the_logs_is_finished_by_the_same_file(
    opened: Open, tmp_path: Path
) -> None:
    source, target = opened("source"), opened("target")
    source.run(moving_steps.plain, run_id="one")
    source.export_run("one", tmp_path / "one.perdure")
    with armed("import.after:1:raise"), pytest.raises(InjectedCrash):
        target.import_run(tmp_path / "one.perdure")
    assert target.get_run("one").status == "SUCCEEDED"

    run = target.import_run(tmp_path / "one.perdure")

    assert str(run.logs()) == str(source.get_run("one").logs())


def test_gc_takes_nothing_of_an_imported_run_and_all_of_a_deleted_one(opened: Open) -> None:
    source, target = opened("source"), opened("target")
    everything(source)
    moved(source, target, "all")

    target.gc(grace=0)

    assert check_store(target.runtime.rows, target.runtime.blobs, deep=True).problems == ()
    target.delete("all")
    there = sorted(target.runtime.blobs.list_digests())
    assert target.runtime.store.unreferenced(there) == there
