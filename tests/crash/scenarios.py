"""What the processes that die do, and how others go on: ``python -m tests.crash.scenarios``.

A scenario acts until it is killed at a crash point; then ``recover``, in another process, brings
its run to the end by its id alone. Together the scenarios pass every crash point.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from tests.crash import steps
from tests.crash.ledger import VARIABLE, wait_until

from perdure.client import Perdure, open_store
from perdure.errors import RunCancelled, RunConflict, RunFailed, RunNotDriven
from perdure.queueing import set_limits
from perdure.runs import Run
from perdure.runtime import key_of
from perdure.submission import Submission, Wishes
from perdure_storage.backups import back_up
from perdure_storage.checking import check_store
from perdure_storage.clock import ManualClock, SystemClock
from perdure_storage.collection import MARKS_KEPT
from perdure_storage.connect import upgrade
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import RunId
from perdure_storage.rotation import rotate_key
from perdure_storage.schedule_records import (
    ScheduleChange,
    ScheduleRecord,
    TickQuery,
    TickRecord,
)
from perdure_storage.schema import CURRENT, Schema
from perdure_storage.signing import KeyFile
from perdure_storage.trigger_records import (
    ArrivalQuery,
    ArrivalRecord,
    TriggerChange,
    TriggerRecord,
)

RUN = RunId("victim")
_REVISION = '''"""One more table."""
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("one_more", sa.Column("id", sa.Integer(), primary_key=True))
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is done, how it is mended, and which crash points it is there for."""

    act: Callable[[Perdure], None]
    recover: Callable[[Perdure], None]
    points: tuple[str, ...]
    executor: str = "inline"
    worker_dies: bool = False
    on_sqlite_alone: bool = False


# --- schedules ----------------------------------------------------------------------------------
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run_by_schedule(client: Perdure) -> None:
    """Do what dispatcher, coordinator and gc do about one tick of a schedule."""
    dispatch(client)
    client.resume(RUN).result()
    schedules = client.runtime.store.schedules
    schedules.trim_ticks("daily", 1)
    schedules.forget_ticks(NOON + timedelta(days=1))
    schedules.remove("daily")


def dispatch(client: Perdure) -> None:
    """Fire what is due; another may have done it, or died over it."""
    wishes = Wishes.from_options({"run_id": RUN}, find_last=lambda workflow: ())
    submission = Submission(client.runtime, client.settings, steps.everything, wishes)
    schedules = client.runtime.store.schedules
    if schedules.find_schedule("daily") is None:
        new = ScheduleRecord(
            name="daily",
            definition="{}",
            digest="v1:daily",
            plan_digest=submission.body.digest,
            state="due",
            next_at=NOON,
        )
        assert schedules.register(ScheduleChange(schedule=new), submission.body) is not None
    run = msgspec.structs.replace(submission.intend().record, schedule="daily")
    tick = TickRecord(schedule="daily", at=NOON, decision="fire", decided_at=NOON, run_id=RUN)
    for read in schedules.due(NOON):
        done = msgspec.structs.replace(read, state="done", next_at=None)
        change = ScheduleChange(schedule=done, ticks=(tick,), runs=(run,))
        assert schedules.fire([change]).refused == {}
    assert client.runtime.store.find_run(RUN) is not None, "a tick that was decided has no run"
    assert len(schedules.list_ticks(TickQuery(schedule="daily"))) <= 1


# --- queues -------------------------------------------------------------------------------------
def run_in_a_queue(client: Perdure) -> None:
    """Give a queue limits, run in it, take them away; another may have, or died over it."""
    store = client.runtime.store
    set_limits(store, "narrow", {"limit": 1}, client.runtime.clock.now())
    client.run(steps.everything, run_id=RUN, queue="narrow")
    assert store.queues.remove_queue("narrow")


# --- triggers -----------------------------------------------------------------------------------
LISTENER = "one"


def run_by_trigger(client: Perdure) -> None:
    """Do what listener, dispatcher, coordinator and gc do about one arrival and its run's end."""
    triggers = client.runtime.store.triggers
    if triggers.find_trigger("after") is None:
        assert triggers.register(TriggerChange(trigger=trigger("after", watches_runs=True)))
    bring(client)
    client.resume(RUN).result()
    tell_its_end(client)
    triggers.forget_arrivals("landed", NOON + timedelta(days=1))
    triggers.remove("landed")


def trigger(name: str, **more: Any) -> TriggerRecord:
    """Return a trigger that was never stored."""
    return TriggerRecord(name=name, definition="{}", digest=f"v1:{name}", state="begun", **more)


def bring(client: Perdure) -> None:
    """Bring an arrival with its run and the cursor after it, and leave the source."""
    wishes = Wishes.from_options({"run_id": RUN}, find_last=lambda workflow: ())
    submission = Submission(client.runtime, client.settings, steps.everything, wishes)
    triggers = client.runtime.store.triggers
    if triggers.find_trigger("landed") is None:
        new = trigger("landed", listens=True, plan_digest=submission.body.digest)
        assert triggers.register(TriggerChange(trigger=new), submission.body) is not None
    run = msgspec.structs.replace(submission.intend().record, trigger="landed")
    arrival = ArrivalRecord(
        trigger="landed", key="a.csv", at=NOON, decision="fired", decided_at=NOON, run_id=RUN
    )
    for mine in triggers.take_sources(LISTENER):
        moved = msgspec.structs.replace(mine, state="after a.csv")
        report = triggers.accept([TriggerChange(trigger=moved, arrivals=(arrival,), runs=(run,))])
        assert len(report.refused) == len(report.known), "only what is there already is refused"
    assert triggers.get_trigger("landed").state == "after a.csv"
    assert client.runtime.store.find_run(RUN) is not None, "an arrival that counts has no run"
    triggers.leave_sources(LISTENER)


def tell_its_end(client: Perdure) -> None:
    """Tell of the ends of runs, each once; another may have done it, or died over it."""
    triggers = client.runtime.store.triggers
    for end in triggers.ends():
        told = ArrivalRecord(
            trigger="after",
            key=f"{end.run_id} {end.seq}",
            at=NOON,
            decision="told",
            decided_at=NOON,
        )
        read = triggers.get_trigger("after")
        change = TriggerChange(trigger=read, moves=False, arrivals=(told,))
        assert triggers.accept([change], [end.id]).refused == {}
    assert len(triggers.list_arrivals(ArrivalQuery(trigger="after"))) == 1
    assert triggers.ends() == []


def run_without_a_plan(client: Perdure) -> None:
    """Go on with a run whose entry point led nowhere at first; it is made if it is not there."""
    store = client.runtime.store
    if store.find_run(RUN) is None:
        wishes = Wishes.from_options({"run_id": RUN}, find_last=lambda workflow: ())
        submission = Submission(client.runtime, client.settings, steps.everything, wishes)
        made = submission.intend().record
        unplanned = msgspec.structs.replace(made, plan_digest=None, inputs={}, schedule="daily")
        assert store.create_run(unplanned, None) is not None
    store.note_unplanned(RUN, "it is not there")
    client.resume(RUN).result()


# --- one run ------------------------------------------------------------------------------------
def run_everything(client: Perdure) -> None:
    client.run(steps.everything, run_id=RUN)


def submit_and_go_on(client: Perdure) -> None:
    """Record a run, and claim it by a transaction of its own: one that is driven needs none."""
    client.submit(steps.everything, run_id=RUN)
    run_everything(client)


def go_on_with(workflow: Any, **inputs: Any) -> Callable[[Perdure], None]:
    """Return the recovery that any user would do: run it if it is not there, else resume it."""

    def recover(client: Perdure) -> None:
        open_gate()
        if client.runtime.store.find_run(RUN) is None:
            client.run(workflow, run_id=RUN, **inputs)
        for _ in range(3):  # a run that was cancelled or paused in between is resumed again
            run = client.resume(RUN)
            try:
                run.result()
            except (RunCancelled, RunNotDriven):
                continue
            return

    return recover


def open_gate() -> None:
    Path(os.environ[steps.GATE]).touch()


# --- requests -----------------------------------------------------------------------------------
def cancel(client: Perdure) -> None:
    try:
        client.run(steps.wishing, wish="cancel", run_id=RUN)
    except RunCancelled:
        return


def serve_then_go_on(client: Perdure) -> None:
    """Let somebody who only serves find the run: a wish that is recorded is fulfilled by him."""
    store, stop = client.runtime.store, threading.Event()
    server = threading.Thread(target=client.serve, args=(stop,))
    server.start()
    try:
        wait_until(lambda: store.get_run(RUN).status in RUN_TERMINAL, 20, "it is not ended")
    finally:
        stop.set()
        server.join()
    print("served:", store.get_run(RUN).status)
    go_on_with(steps.wishing, wish="cancel")(client)


def pause(client: Perdure) -> None:
    try:
        client.run(steps.wishing, wish="pause", run_id=RUN)
    except RunNotDriven:
        return


def fail_and_reset(client: Perdure) -> None:
    try:
        client.run(steps.mending, run_id=RUN)
    except RunFailed:
        open_gate()
        client.resume(RUN).result()


# --- waits --------------------------------------------------------------------------------------
def ask_and_answer(client: Perdure) -> None:
    answer(client, client.start(steps.asking, run_id=RUN))


def answer(client: Perdure, run: Run) -> None:
    """Send what the run waits for, as any sender does that may have died: under one key."""
    with suppress(RunConflict):  # it is over: it had them all
        run.signal("go", 7, dedup_key="k")
        client.emit("landed", 8, match={"n": 1}, dedup_key=RUN)
    run.result()


def ask_again_and_answer(client: Perdure) -> None:
    if client.runtime.store.find_run(RUN) is None:
        ask_and_answer(client)
    else:
        answer(client, client.resume(RUN))


# --- values and upkeep --------------------------------------------------------------------------
def lose_a_value(client: Perdure) -> None:
    try:
        client.run(steps.losing, run_id=RUN)
    except RunFailed:
        path = blob_of(client, RUN, "make_blob")
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        open_gate()
        client.resume(RUN).result()


def blob_of(client: Perdure, run_id: str, step: str) -> Path:
    """Return the file of a step's value."""
    row = client.get_run(run_id)[step].row
    assert row is not None
    assert row.value is not None
    name = row.value.integrity.removeprefix("blake3:")
    (found,) = Path(client.settings.blobs).rglob(f"blobs/*/blake3-{name}")
    return found


def delete(client: Perdure) -> None:
    run_everything(client)
    client.delete(RUN)


def delete_again_and_run_anew(client: Perdure) -> None:
    """The id is free again, or the run is there whole; then it is deleted for good."""
    record = client.runtime.store.find_run(RUN)
    if record is not None:
        assert record.status is RunStatus.SUCCEEDED
        client.delete(RUN)
    forget_ledger()
    run_everything(client)


def delete_and_collect(client: Perdure) -> None:
    """Delete the run, and leave everything so old that gc takes it."""
    run_everything(client)
    client.emit("landed", b"a value that only an event refers to" * 2000)
    client.runtime.blobs.spool("gone").put([b"a value of a run that is not there"])
    delete_rows(client)
    collect(client)


def delete_rows(client: Perdure) -> None:
    client.runtime.store.delete_run(RUN)
    make_old(client)


def make_old(client: Perdure) -> None:
    """Date what lies beside the rows back by more than any grace."""
    for path in Path(client.settings.blobs).rglob("*"):
        os.utime(path, (0, 0))


def collect(client: Perdure) -> None:
    """Let gc come by when everything that it may forget is long ago."""
    collect_after(client, 2 * MARKS_KEPT)


def collect_after(client: Perdure, time: timedelta) -> None:
    client.runtime.clock = ManualClock(SystemClock().now() + time)
    client.gc(keep="1d")
    client.runtime.clock = SystemClock()


def collect_again_and_run_anew(client: Perdure) -> None:
    if client.runtime.store.find_run(RUN) is not None:
        client.delete(RUN)
    collect(client)
    assert list(client.runtime.blobs.survey()) == []
    assert not list(client.runtime.blobs.leftovers())
    assert client.runtime.store.list_tombstones(SystemClock().now()) == []
    forget_ledger()
    run_everything(client)


def collect_then_run_anew(client: Perdure) -> None:
    """Everything that the second run puts was condemned, and is taken back."""
    run_everything(client)
    delete_rows(client)
    collect_after(client, timedelta(days=2))
    forget_ledger()
    run_everything(client)


def rotate(client: Perdure) -> None:
    run_everything(client)
    rotate_key(client.runtime.rows, key_of(client.settings))


def rotate_again(client: Perdure) -> None:
    """Wherever it died the store is usable; then one key is left, and fits every row."""
    assert check_store(client.runtime.rows, client.runtime.blobs).problems == ()
    rotate_key(client.runtime.rows, key_of(client.settings))
    key = key_of(client.settings)
    assert isinstance(key, KeyFile)
    assert len(key.load_all()) == 1
    with open_store(client.settings.store, blobs=client.settings.blobs) as anew:
        assert check_store(anew.runtime.rows, anew.runtime.blobs).problems == ()
    run_everything(client)


def back_up_and_release(client: Perdure) -> None:
    run_everything(client)
    back_up(client.runtime.rows, copy_path("first"), SystemClock().now())
    release_all(client)


def back_up_again(client: Perdure) -> None:
    """A copy that is there is whole; what was cut off can be released and done again."""
    if client.runtime.store.find_run(RUN) is None:
        run_everything(client)
    for pin in client.runtime.store.list_pins():
        assert not Path(pin.note).exists() or runs_in(Path(pin.note)) == [RUN]
    release_all(client)
    back_up(client.runtime.rows, copy_path("second"), SystemClock().now())
    assert runs_in(copy_path("second")) == [RUN]


def copy_path(name: str) -> Path:
    return Path(os.environ[VARIABLE]).with_name(f"{name}.db")


def release_all(client: Perdure) -> None:
    for pin in client.runtime.store.list_pins():
        assert client.runtime.store.unpin(pin.id)


def runs_in(path: Path) -> list[str]:
    """Return the runs of a copy of the rows, in which nothing is damaged."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row[0] for row in connection.execute("SELECT id FROM run")]


def forget_ledger() -> None:
    Path(os.environ[VARIABLE]).unlink(missing_ok=True)


def move(client: Perdure) -> None:
    """Put a run into a file, and make one of it again when it is gone here."""
    run_everything(client)
    client.export_run(RUN, copy_path("moved"))
    client.delete(RUN)
    client.gc(grace=0)
    client.import_run(copy_path("moved"), trust=True)


def move_again(client: Perdure) -> None:
    """A run is here or in the file, whole in either."""
    if client.runtime.store.find_run(RUN) is None:
        client.import_run(copy_path("moved"), trust=True)
    go_on_with(steps.everything)(client)


def migrate(client: Perdure) -> None:
    run_everything(client)
    client.close()
    upgrade(client.settings.store, schema=next_schema(client))


def migrate_again(client: Perdure) -> None:
    upgrade(client.settings.store, schema=next_schema(client))
    assert upgrade(client.settings.store, schema=next_schema(client)) == ()
    # The test opens the store as this code's schema again; the extra table is no obstacle.
    with sqlite3.connect(os.environ[steps.STORE]) as connection:
        assert connection.execute("SELECT count(*) FROM one_more").fetchone() == (0,)
        connection.execute("UPDATE alembic_version SET version_num = ?", (CURRENT.head,))
    connection.close()


def next_schema(client: Perdure) -> Schema:
    """Return today's line of revisions and one more, in a folder beside the store."""
    folder = Path(os.environ[steps.STORE]).parent / "migrations"
    shutil.copytree(CURRENT.location, folder, dirs_exist_ok=True)
    (folder / "versions" / "one_more.py").write_text(_REVISION.replace("HEAD", CURRENT.head))
    return Schema(folder, (*CURRENT.revisions, "next"))


SCENARIOS = {
    "fresh": Scenario(
        act=run_everything,
        recover=go_on_with(steps.everything),
        points=(
            *("store.creating", "store.created", "marker.before-rename", "bind.before"),
            *("bind.after", "plan.stored"),
            *("run.before-insert", "run.after-insert"),
            *("dispatch.before", "dispatch.after", "spool.after-put", "log.after-append"),
            *("blob.opened", "blob.first-byte", "blob.mid-write", "blob.before-close"),
            *("blob.after-fsync", "blob.after-rename", "blob.after-folder-fsync"),
            *("blob.already-there", "commit.before", "commit.in-transaction", "commit.after"),
            *("commit.before-telling", "terminal.before", "terminal.after"),
        ),
    ),
    "submitted": Scenario(
        act=submit_and_go_on,
        recover=go_on_with(steps.everything),
        points=("claim.before", "claim.after"),
    ),
    "scheduled": Scenario(
        act=run_by_schedule,
        recover=run_by_schedule,
        points=(
            *("schedule.before-register", "schedule.after-register"),
            *("fire.before", "fire.in-transaction", "fire.after"),
            *("tick.before-forget", "tick.after-forget"),
            *("schedule.before-remove", "schedule.after-remove"),
        ),
    ),
    "queued": Scenario(
        act=run_in_a_queue,
        recover=run_in_a_queue,
        points=(
            *("queue.before-put", "queue.after-put"),
            *("queue.before-remove", "queue.after-remove"),
        ),
    ),
    "triggered": Scenario(
        act=run_by_trigger,
        recover=run_by_trigger,
        points=(
            *("trigger.before-register", "trigger.after-register"),
            *("accept.before", "accept.in-transaction", "accept.after"),
            *("listen.before-take", "listen.after-take"),
            *("listen.before-leave", "listen.after-leave"),
            *("arrival.before-forget", "arrival.after-forget"),
            *("trigger.before-remove", "trigger.after-remove"),
        ),
    ),
    "unplanned": Scenario(
        act=run_without_a_plan,
        recover=run_without_a_plan,
        points=("unplanned.before", "unplanned.after"),
    ),
    "growing": Scenario(
        act=lambda client: client.run(steps.growing, run_id=RUN),
        recover=go_on_with(steps.growing),
        points=("expansion.before", "expansion.after"),
    ),
    "waiting": Scenario(
        act=ask_and_answer,
        recover=ask_again_and_answer,
        points=(
            *("wait.before", "wait.after", "send.before", "send.after"),
            *("deliver.before", "deliver.after"),
        ),
    ),
    "busy": Scenario(
        act=run_everything,
        recover=go_on_with(steps.everything),
        points=("renew.before", "renew.after"),
        executor="processes",
    ),
    "worker": Scenario(
        act=run_everything,
        recover=go_on_with(steps.everything),
        points=(
            *("worker.start", "worker.before-user-code", "worker.after-user-code"),
            *("worker.after-encode", "worker.before-outcome", "worker.after-outcome"),
        ),
        executor="processes",
        worker_dies=True,
    ),
    "acting": Scenario(
        act=lambda client: client.run(steps.acting, run_id=RUN),
        recover=go_on_with(steps.acting),
        points=("actor.snapshot-stored", "actor.before-replay"),
        executor="processes",
        worker_dies=True,
    ),
    "saving": Scenario(
        act=lambda client: client.run(steps.training, run_id=RUN),
        recover=go_on_with(steps.training),
        points=("save.before", "save.in-transaction", "save.after", "save.before-telling"),
        executor="processes",
    ),
    "worker that saves": Scenario(
        act=lambda client: client.run(steps.training, run_id=RUN),
        recover=go_on_with(steps.training),
        points=("save.before-blob", "directory.before-manifest", "save.after-blob"),
        executor="processes",
        worker_dies=True,
    ),
    "cancel": Scenario(
        act=cancel, recover=serve_then_go_on, points=("cancel.before", "cancel.after")
    ),
    "pause": Scenario(
        act=pause,
        recover=go_on_with(steps.wishing, wish="pause"),
        points=("pause.before", "pause.after", "release.before", "release.after"),
    ),
    "reset": Scenario(
        act=fail_and_reset,
        recover=go_on_with(steps.mending),
        points=("reset.before", "reset.after"),
    ),
    "lose": Scenario(
        act=lose_a_value,
        recover=go_on_with(steps.losing),
        points=("lost.before", "lost.after", "blob.before-quarantine", "blob.after-quarantine"),
    ),
    "delete": Scenario(
        act=delete,
        recover=delete_again_and_run_anew,
        points=("delete.before", "delete.after"),
    ),
    "collect": Scenario(
        act=delete_and_collect,
        recover=collect_again_and_run_anew,
        points=(
            *("condemn.before", "condemn.after", "blob.before-delete", "blob.after-delete"),
            *("free.before", "free.after", "forget.before", "forget.after"),
            *("expire.before", "expire.after"),
            *("leftover.before-remove", "leftover.after-remove"),
        ),
    ),
    "reclaim": Scenario(
        act=collect_then_run_anew,
        recover=go_on_with(steps.everything),
        points=("absolve.before", "absolve.after"),
    ),
    "backup": Scenario(
        act=back_up_and_release,
        recover=back_up_again,
        points=(
            *("pin.before", "pin.after", "backup.before-rename", "unpin.before", "unpin.after"),
        ),
        on_sqlite_alone=True,  # PostgreSQL has a tool of its own
    ),
    "move": Scenario(
        act=move,
        recover=move_again,
        points=(
            *("export.before-rename", "import.before", "import.in-transaction", "import.after"),
        ),
    ),
    "rotate": Scenario(
        act=rotate,
        recover=rotate_again,
        points=(
            *("rotation.key-kept", "rotation.begun", "rotation.mid"),
            *("rotation.before-end", "rotation.after-end"),
        ),
        on_sqlite_alone=True,  # on PostgreSQL too in tests/contract/test_rotation.py
    ),
    "migrate": Scenario(
        act=migrate,
        recover=migrate_again,
        points=("migration.before", "migration.in-transaction", "migration.after"),
        on_sqlite_alone=True,  # on PostgreSQL too in tests/migration
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("part", choices=("act", "recover"))
    parser.add_argument("store")
    parser.add_argument("--blobs")
    parser.add_argument("--executor", help="in place of the scenario's own")
    given = parser.parse_args()
    scenario = SCENARIOS[given.scenario]
    executor = given.executor or scenario.executor
    with open_store(given.store, blobs=given.blobs, executor=executor) as client:
        getattr(scenario, given.part)(client)


if __name__ == "__main__":
    main()
