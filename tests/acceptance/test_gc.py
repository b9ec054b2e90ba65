"""``Perdure.gc`` and ``perdure gc``: what goes, what stays, and what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import task, workflow
from perdure.client import Perdure
from perdure.errors import DefinitionError
from perdure_scheduler.conditions import Webhook
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_storage.checking import check_store
from perdure_storage.clock import ManualClock, SystemClock
from perdure_storage.contract_samples import a_schedule, a_tick, a_trigger, an_arrival
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import PinRecord, Place, RunId
from perdure_storage.roots import folder_of
from perdure_storage.schedule_records import ScheduleChange, TickQuery
from perdure_storage.trigger_records import ArrivalQuery, TriggerChange

SIZE = 50_000


@task
def make(n: int) -> bytes:
    return bytes([n]) * SIZE


@task
def measure(data: bytes) -> int:
    return len(data)


@workflow
def sized(n: int = 1) -> int:
    return measure.bind(make.bind(n))


@workflow
def other(n: int = 1) -> int:
    return measure.options(name="other").bind(make.bind(n))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with perdure.open(str(tmp_path / "perdure.db"), executor="inline") as client:
        yield client


def later(client: Perdure, **time: float) -> None:
    """Let this much time have passed."""
    client.runtime.clock = ManualClock(SystemClock().now() + timedelta(**time))


def names(client: Perdure) -> set[str]:
    return {run.id for run in client.list_runs()}


def is_whole(client: Perdure) -> bool:
    return not check_store(client.runtime.rows, client.runtime.blobs, deep=True).problems


# --- policies ------------------------------------------------------------------------------------
def test_without_a_policy_no_run_goes(client: Perdure) -> None:
    client.run(sized, run_id="a")
    later(client, days=1000)

    report = client.gc()

    assert (report.runs, report.blobs, report.size_bytes) == ((), 0, 0)
    assert client.get_run("a").result() == SIZE


def test_runs_older_than_keep_go_with_all_that_only_they_refer_to(client: Perdure) -> None:
    client.run(sized, n=1, run_id="old")
    later(client, days=10)

    report = client.gc(keep="5d")

    assert report.runs == ("old",)
    assert report.blobs >= 1
    assert report.size_bytes >= SIZE
    assert names(client) == set()
    assert list(client.runtime.blobs.survey()) == []


def test_the_newest_of_each_workflow_are_kept(client: Perdure) -> None:
    for number in range(3):
        client.run(sized, n=number, run_id=f"sized-{number}")
        client.run(other, n=number, run_id=f"other-{number}")
    later(client, days=2)

    report = client.gc(keep_last=1)

    assert names(client) == {"sized-2", "other-2"}
    assert report.kept["runs within the policy"] == 2
    assert is_whole(client)
    assert client.get_run("sized-2").result() == SIZE


def test_a_tag_says_which_runs_the_policy_is_about(client: Perdure) -> None:
    client.run(sized, n=1, run_id="test", tags={"env": "test"})
    client.run(sized, n=2, run_id="production", tags={"env": "production"})
    later(client, days=2)

    assert client.gc(keep="1d", tags={"env": "test"}).runs == ("test",)

    assert names(client) == {"production"}


def test_a_live_run_and_what_it_takes_over_stay(client: Perdure) -> None:
    client.run(sized, run_id="donor")
    client.submit(sized, n=2, run_id="taker", reuse="donor")
    later(client, days=100)

    report = client.gc(keep="1d")

    assert names(client) == {"donor", "taker"}
    assert report.kept == {"live runs": 1, "runs that a live run needs": 1}


def test_a_dry_run_foresees_what_then_goes_and_removes_nothing(client: Perdure) -> None:
    for number in range(3):
        client.run(sized, n=number, run_id=f"run-{number}")
    client.run(sized, n=7, run_id="deleted")
    client.runtime.store.delete_run(client.get_run("deleted").record.id)
    later(client, days=2)
    before = sorted(client.runtime.blobs.list_digests())

    foreseen = client.gc(keep_last=1, dry_run=True)

    assert len(names(client)) == 3
    assert sorted(client.runtime.blobs.list_digests()) == before
    assert client.runtime.store.list_condemned() == {}
    done = client.gc(keep_last=1)
    assert foreseen.dry_run
    assert not done.dry_run
    facts = ("runs", "blobs", "size_bytes", "files", "kept")
    assert [getattr(foreseen, n) for n in facts] == [getattr(done, n) for n in facts]
    assert done.blobs >= 3


# --- what nothing refers to ----------------------------------------------------------------------
def test_what_is_younger_than_the_grace_stays(client: Perdure) -> None:
    client.run(sized, run_id="a")
    client.delete("a")
    later(client, hours=23)

    report = client.gc()

    assert report.blobs == 0
    assert report.kept["blobs younger than the grace"] >= 1
    later(client, hours=25)
    assert client.gc().blobs >= 1


def test_what_a_killed_delete_left_is_removed_and_its_id_is_free(client: Perdure) -> None:
    client.run(sized, run_id="a")
    runtime = client.runtime
    record = client.get_run("a").record
    runtime.logs.append(record.id, "make", 1, 1, b"printed")  # type: ignore[arg-type]
    runtime.store.delete_run(record.id)
    later(client, days=2)

    report = client.gc()

    assert report.leftovers == 1
    assert runtime.store.list_tombstones(runtime.clock.now()) == []
    assert not list(runtime.blobs.leftovers())


def test_logs_of_runs_that_are_there_stay(client: Perdure) -> None:
    client.run(sized, run_id="a")
    record = client.get_run("a").record
    client.runtime.logs.append(record.id, "make", 1, 1, b"printed")  # type: ignore[arg-type]
    later(client, days=400)

    assert client.gc().leftovers == 0

    assert client.runtime.logs.read(record.id, "make", 1, 1) == b"printed"  # type: ignore[arg-type]


def test_spools_go_unless_their_run_goes_on(client: Perdure) -> None:
    client.run(sized, run_id="over")
    live = client.submit(sized, run_id="live")
    for run_id in ("over", "live", "gone"):
        client.runtime.blobs.spool(run_id).put([b"unsynced"])
    later(client, days=2)

    assert client.gc().leftovers == 2

    (left,) = [each for each in client.runtime.blobs.leftovers() if each.area == "spool"]
    assert left.name == folder_of(live.id)


def test_old_temporary_files_and_quarantined_blobs_go(client: Perdure) -> None:
    client.run(sized, run_id="a")
    folder = Path(client.settings.blobs) / client.runtime.store.store_id
    (folder / "incoming" / ".1-0123456789abcdef.tmp").write_bytes(b"half")
    client.runtime.blobs.quarantine(next(client.runtime.blobs.list_digests()))

    assert client.gc().files == 0
    later(client, days=2)
    report = client.gc()

    assert report.files == 2
    assert report.size_bytes > 4


def test_a_pinned_blob_stays_until_it_is_released(client: Perdure) -> None:
    client.run(sized, run_id="a")
    client.runtime.store.pin(PinRecord(id="backup", at=SystemClock().now()))
    client.delete("a")
    later(client, days=2)

    assert client.gc().blobs == 0
    client.runtime.store.unpin("backup")
    assert client.gc().blobs >= 1


def test_a_run_that_was_collected_can_be_run_again_at_once(client: Perdure) -> None:
    client.run(sized, run_id="a")
    client.delete("a")
    later(client, days=2)
    client.gc()
    client.runtime.clock = SystemClock()

    assert client.run(sized, run_id="a") == SIZE

    assert is_whole(client)
    assert [attempt.attempt for attempt in client.get_run("a")["make"].attempts] == [1]


@pytest.mark.parametrize(
    "wrong", [{"grace": "a while"}, {"keep": "x"}, {"keep_last": -1}, {"tags": {"a": "b"}}]
)
def test_what_cannot_be_is_refused_before_anything_goes(
    client: Perdure, wrong: dict[str, Any]
) -> None:
    with pytest.raises(DefinitionError):
        client.gc(**wrong)


def test_every_blob_that_a_run_makes_has_a_reference(client: Perdure) -> None:
    """Constants, functions, sources, inputs, values, and what a loss made history."""
    large = bytes(range(256)) * 400

    @task
    def join(constant: bytes, given: bytes) -> bytes:
        return constant + given + large  # a function that is large itself

    @workflow
    def joined(given: bytes) -> int:
        return measure.bind(join.bind(large[::-1], given))

    client.run(joined, given=large * 2, run_id="a")
    first = set(client.runtime.blobs.list_digests())

    client.run(sized, n=3, run_id="b")
    client.run(sized, n=3, run_id="c", reuse="b")
    damage_values(client, "b")
    client.resume("b").result()

    everything = list(client.runtime.blobs.list_digests())
    assert len(first) >= 4
    assert client.runtime.store.unreferenced(everything) == []
    assert is_whole(client)


def damage_values(client: Perdure, run_id: str) -> None:
    for step in client.runtime.store.list_steps(client.get_run(run_id).record.id):
        if step.value is not None and step.value.place is Place.BLOB:
            client.runtime.blobs.delete(step.value.integrity)


# --- the command line ----------------------------------------------------------------------------
FLOW = """
from perdure import task, workflow

@task
def make(n: int) -> bytes:
    return bytes([n]) * 50_000

@task
def measure(data: bytes) -> int:
    return len(data)

@workflow
def sized(n: int = 1) -> int:
    return measure.bind(make.bind(n))
"""


@pytest.fixture(scope="module")
def kept(command_line_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three finished runs, to look at; nobody deletes them."""
    cli = command_line_in(tmp_path_factory.mktemp("gc"))
    cli.write("flow.py", FLOW)
    for number in range(2):
        name = ("--id", f"run-{number}", "--tag", f"n={number}")
        assert cli("run", *name, "flow.py", "--n", str(number)).code == 0
    return cli


def test_gc_says_what_is_gone_and_what_was_left_alone(kept: Any) -> None:
    ended = kept("gc")

    assert ended.code == 0
    assert "gone: 0 runs, 0 blobs" in ended.out
    assert "younger than 1 d" in ended.err


def test_gc_prints_json(kept: Any) -> None:
    ended = kept("gc", "--keep-last", "1", "--dry-run", "--grace", "0s", "--json")

    report = json.loads(ended.out)
    assert (report["dry_run"], report["runs"]) == (True, ["run-0"])
    assert report["kept"]["runs within the policy"] == 1


def test_gc_asks_before_it_deletes_runs_and_nobody_is_there(kept: Any) -> None:
    ended = kept("gc", "--keep", "0s")

    assert ended.code == 2
    assert "2 runs (run-1, run-0)" in ended.err
    assert "--yes" in ended.err
    assert "--dry-run" in ended.err
    assert kept("show", "run-0", "--json").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--keep", "soon"), "not a duration"),
        (("--keep-last", "-3"), "0 or more"),
        (("--grace", "-1"), "grace"),
        (("--tag", "team"), "NAME=VALUE"),
        (("--tag", "team=a"), "--keep"),
        (("--kep", "1d"), "--keep"),
    ],
)
def test_gc_refuses_what_makes_no_sense(kept: Any, words: tuple[str, ...], said: str) -> None:
    ended = kept("gc", *words)

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_gc_makes_no_store_where_there_is_none(perdure: Any) -> None:
    ended = perdure("gc")

    assert ended.code == 2
    assert "no store" in ended.err
    assert os.listdir(perdure.folder) == []


def test_gc_deletes_by_policy_when_told_to(perdure: Any) -> None:
    perdure.write("flow.py", FLOW)
    perdure("run", "--id", "one", "--tag", "env=test", "flow.py", "--n", "1")

    ended = perdure("gc", "--keep", "0s", "--tag", "env=test", "--yes")

    assert (ended.code, ended.out.splitlines()[0]) == (0, "run one")
    assert "1 run" in ended.out
    assert perdure("show", "one").code == 2


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({}, ["of a week ago", "of 80 days ago"]),
        ({"keep": "30d"}, ["of a week ago"]),
        ({"keep": "30d", "dry_run": True}, ["of a week ago", "of 80 days ago", "of 100 days ago"]),
        (
            {"keep": "1d", "tags": {"team": "a"}},
            ["of a week ago", "of 80 days ago", "of 100 days ago"],
        ),
    ],
)
def test_ticks_go_with_the_runs_of_their_time(
    client: Perdure, rules: dict[str, Any], left: list[str]
) -> None:
    now, schedules = client.runtime.clock.now(), client.runtime.store.schedules
    ages = {"of a week ago": 7, "of 80 days ago": 80, "of 100 days ago": 100}
    ticks = tuple(a_tick(at=now - timedelta(days=days), reason=name) for name, days in ages.items())
    schedules.register(ScheduleChange(schedule=a_schedule(), ticks=ticks))

    client.gc(**rules)

    found = schedules.list_ticks(TickQuery(schedule="nightly"))
    assert [tick.reason for tick in found] == left


def test_arrivals_go_when_they_are_older_than_anybody_sends_them_again(client: Perdure) -> None:
    now, triggers = client.runtime.clock.now(), client.runtime.store.triggers
    on = Trigger(
        name="landed", on=Webhook(keys=("K",)), run=RunTemplate(workflow="w", origin="m:w")
    )
    ages = {"of a week ago": 7, "of 80 days ago": 80, "of 100 days ago": 100}
    arrivals = tuple(
        an_arrival(key, decided_at=now - timedelta(days=days)) for key, days in ages.items()
    )
    new = a_trigger(definition=on.to_json())
    triggers.register(TriggerChange(trigger=new, arrivals=arrivals))

    client.gc(keep="1d")

    found = triggers.list_arrivals(ArrivalQuery(trigger="landed", oldest_first=True))
    assert [arrival.key for arrival in found] == ["of a week ago", "of 80 days ago"]


@task
def fails_after_two_saves(folder: Path) -> None:
    for at in (1, 2):
        (folder / "changes").write_bytes(bytes([at]) * SIZE)
        perdure.current().save(folder, at=at)
    raise OSError("enough")


def test_gc_leaves_what_the_newest_save_names_and_takes_the_one_before(
    client: Perdure, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "stays").write_bytes(b"same" * SIZE)
    with pytest.raises(perdure.RunFailed):
        client.run(fails_after_two_saves.bind(folder), run_id="r")
    [save] = client.runtime.store.list_saves(RunId("r"))
    later(client, days=3)

    client.gc()
    left = set(client.runtime.blobs.list_digests())
    client.delete("r")
    client.gc()

    assert set(save.value.files) <= left
    assert integrity_digest([b"\x01" * SIZE]) not in left
    assert not set(save.value.files) & set(client.runtime.blobs.list_digests())
    assert is_whole(client)
