"""gc dies at every place, beside live runs that put what it takes; the next one finishes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.crash import steps
from tests.crash.counting import Counted, Tripwire
from tests.crash.ledger import Undisturbed, check, check_nothing_is_left
from tests.crash.scenarios import RUN, make_old
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure, open_store
from perdure_storage.checking import check_store
from perdure_storage.clock import ManualClock, SystemClock
from perdure_storage.faults import InjectedCrash
from perdure_storage.records import RunId

NEVER = 1 << 30
LIVE_RUN = f"{Path(__file__).with_name('steps.py')}:losing"
GC = ("-m", "perdure", "gc")


# --- in one process: at every call ----------------------------------------------------------------
@pytest.fixture
def folder() -> Iterator[Path]:
    # The process lives on, so nothing depends on a disk.
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def prepared(folder: Path) -> Path:
    """A store of old and new runs, one half deleted, with all that may be left lying about."""
    place = folder / "prepared"
    with client_of(place) as client:
        for number in range(3):
            client.run(steps.losing, n=number, run_id=f"run-{number}")
        client.run(steps.losing, n=9, run_id="half-deleted")
        client.runtime.store.delete_run(RunId("half-deleted"))
        client.runtime.blobs.spool("gone").put([b"a value of a run that is not there"])
        left = Path(client.settings.blobs) / client.runtime.store.store_id / "incoming"
        (left / ".1-half.tmp").write_bytes(b"half a blob")
        client.runtime.store.condemn([min(client.runtime.blobs.list_digests())])
        client.emit("landed", b"a value that only an event refers to" * 2000)
        make_old(client)
        client.run(steps.losing, n=4, run_id="young")
    return place


def client_of(place: Path) -> Perdure:
    return open_store(str(place / "perdure.db"), executor="inline")


def collect(place: Path, wire: Tripwire) -> None:
    """Let gc come by in a month, to keep one run of those that there are."""
    with client_of(place) as client:
        runtime = client.runtime
        runtime.clock = ManualClock(SystemClock().now() + timedelta(days=40))
        runtime.store = Counted(runtime.store, wire, "store")  # type: ignore[assignment]
        runtime.blobs = Counted(runtime.blobs, wire, "blobs")  # type: ignore[assignment]
        runtime.logs = Counted(runtime.logs, wire, "logs")  # type: ignore[assignment]
        client.gc(keep="20d", keep_last=1)


@dataclass(frozen=True)
class Contents:
    """What there is in a store."""

    runs: frozenset[str]
    blobs: frozenset[str]
    leftovers: frozenset[str]
    tombstones: frozenset[str]
    events: tuple[str, ...]
    problems: tuple[object, ...]


def contents(place: Path) -> Contents:
    with client_of(place) as client:
        runtime = client.runtime
        return Contents(
            runs=frozenset(run.id for run in client.list_runs()),
            blobs=frozenset(runtime.blobs.list_digests()),
            leftovers=frozenset(f"{left.area}/{left.name}" for left in runtime.blobs.leftovers()),
            tombstones=frozenset(runtime.store.list_tombstones(SystemClock().now())),
            events=names_of_events(place),
            problems=check_store(runtime.rows, runtime.blobs, deep=True).problems,
        )


def names_of_events(place: Path) -> tuple[str, ...]:
    with contextlib.closing(sqlite3.connect(place / "perdure.db")) as connection:
        return tuple(row[0] for row in connection.execute("SELECT name FROM message"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_next_gc_leaves_the_same_whichever_call_the_first_dies_at(
    when: str, folder: Path, prepared: Path
) -> None:
    undisturbed = folder / "undisturbed"
    shutil.copytree(prepared, undisturbed)
    collect(undisturbed, Tripwire(NEVER, when))
    wanted = contents(undisturbed)
    assert wanted.runs == {"young"}
    assert not wanted.problems
    assert not wanted.tombstones
    before = contents(prepared)
    assert len(before.blobs) > len(wanted.blobs) > 0
    assert len(before.leftovers) > len(wanted.leftovers)

    assert wanted.events == ()
    assert before.events == ("landed",)

    deaths = 0
    for at in range(1, NEVER):
        place = folder / f"at-{at}"
        shutil.copytree(prepared, place)
        wire = Tripwire(at, when)
        try:
            collect(place, wire)
        except InjectedCrash:
            deaths += 1
        else:
            break
        dead = contents(place)
        assert dead.problems == (), f"died {wire.fell_at}"
        assert dead.blobs >= wanted.blobs, f"died {wire.fell_at}"
        collect(place, Tripwire(NEVER, when))
        assert contents(place) == wanted, f"died {wire.fell_at}"
        shutil.rmtree(place)
    assert deaths > 20
    tell_figures(deaths=deaths)


# --- real processes ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def undisturbed_losing(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    with client_of(tmp_path_factory.mktemp("undisturbed")) as client:
        client.run(steps.losing, run_id=RUN)
        return Undisturbed.of(client, RUN)


@pytest.mark.parametrize(
    "point", ["condemn.before", "condemn.after", "blob.before-delete", "blob.after-delete"]
)
def test_a_live_run_that_puts_what_a_killed_gc_was_taking_is_whole(
    point: str, stage: Stage, undisturbed_losing: Undisturbed
) -> None:
    (stage.folder / "gate").touch()
    with stage.open() as client:
        for n in (1, 5):  # what the live run will put, and what gc is sure to take
            client.run(steps.losing, n=n, run_id=f"before-{n}")
            client.delete(f"before-{n}")
        make_old(client)
    # Each result lies there without a row for a while.
    slow = "worker.after-encode:*:sleep=0.5"
    live = stage.start(
        *("-m", "perdure", "run", "--id", RUN, "--executor", "inline"),
        *("--store", stage.store, LIVE_RUN),
        crash=slow,
    )
    killed = stage.start(*GC, "--store", stage.store, crash=f"{point}:1:kill")

    assert stage.finish(killed)[0] == -signal.SIGKILL
    while live.poll() is None:
        code, said = stage.finish(stage.start(*GC, "--grace", "0s", "--store", stage.store))
        assert code == 0, said
    code, said = stage.finish(live)

    assert code == 0, said
    with stage.open() as client:
        check(stage.ledger, client, RUN, undisturbed_losing)
        assert check_store(client.runtime.rows, client.runtime.blobs, deep=True).problems == ()
        client.delete(RUN)
        make_old(client)
        client.gc()
        assert list(client.runtime.blobs.survey()) == []
    check_nothing_is_left(stage.ledger)
