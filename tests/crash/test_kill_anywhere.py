"""For every n: die before or after the n-th store, blob or executor call; resume; compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.crash import ledger, steps
from tests.crash.counting import Life, Tripwire, dead_owner
from tests.crash.ledger import Ledger, Undisturbed, check
from tests.reliability.figures import tell_figures

from perdure.client import open_store
from perdure.runtime import Runtime
from perdure.settings import load_settings
from perdure_storage.faults import CRASH_POINTS, InjectedCrash, armed

NEVER = 1 << 30
RUN = "victim"
STRIDE = int(os.environ.get("PERDURE_KILL_STRIDE", "0"))
"""Every how many calls; 0: each one, of runs that make many calls every third."""
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "everything-step": (steps.everything, {"durability": "step"}),
    "growing-step": (steps.growing, {"durability": "step", "n": 2}),
    "growing-group": (steps.growing, {"durability": "group", "n": 2}),
    "deciding-step": (steps.deciding, {"durability": "step", "n": 2}),
    "graph-group": (steps.random_graph, {"seed": 5, "size": 12, "durability": "group"}),
}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The process lives on, so nothing depends on a disk; in memory it is ten times as fast.
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        monkeypatch.setenv(ledger.VARIABLE, str(Path(name) / "ledger.jsonl"))
        # The point is the calls, not the size of what they carry.
        monkeypatch.setattr(steps, "LARGE_BYTES", steps.BLOB_BYTES)
        yield Path(name)


Live = Callable[[Path, Tripwire], None]


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stride(case: str) -> int:
    return STRIDE or (5 if case.startswith(("growing", "deciding")) else 2)


@pytest.fixture
def durability(case: str) -> str:
    return str(CASES[case][1]["durability"])


@pytest.fixture
def live(case: str, monkeypatch: pytest.MonkeyPatch) -> Live:
    definition, options = CASES[case]
    owners = iter(range(NEVER))

    def live(place: Path, wire: Tripwire) -> None:
        runtime = Runtime(load_settings(store=str(place / "perdure.db"), executor="inline"))
        life = Life(runtime, wire, dead_owner(next(owners)))
        monkeypatch.setattr("perdure.worker.scope.open_blobs", life.open_worker_blobs)
        try:
            life.run(definition, RUN, **options)
        finally:
            life.end()

    return live


@pytest.fixture
def undisturbed(live: Live, folder: Path, durability: str) -> Iterator[Undisturbed]:
    live(folder / "undisturbed", Tripwire(NEVER, "before"))
    with open_store(str(folder / "undisturbed" / "perdure.db")) as client:
        yield Undisturbed.of(client, RUN)


@pytest.mark.parametrize("when", ["before", "after"])
def test_run_is_the_same_whichever_call_its_coordinator_dies_at(
    when: str,
    folder: Path,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    at, deaths = 1, 0
    while True:
        place = folder / f"at-{at}"
        record = fresh_ledger(folder)
        wire = Tripwire(at, when)
        try:
            live(place, wire)
        except InjectedCrash:
            deaths += 1
        else:
            break
        note_committed(place, record)
        live(place, Tripwire(NEVER, "before"))
        compare(place, record, undisturbed, durability, wire.fell_at)
        at += stride

    tell_figures(deaths=deaths)
    assert deaths > 30 / stride


@pytest.mark.parametrize(
    "point", [p for p in CRASH_POINTS if p.startswith(("blob.", "commit.", "expansion."))]
)
def test_run_is_the_same_whichever_pass_of_a_point_it_dies_at(
    point: str,
    folder: Path,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    for hit in range(1, 1000, stride):
        place, record = folder / f"{point}-{hit}", fresh_ledger(folder)
        try:
            with armed(f"{point}:{hit}:raise"):
                live(place, Tripwire(NEVER, "before"))
        except InjectedCrash:
            pass  # the next life begins outside: it must not have this exception as its context
        else:
            tell_figures(deaths=(hit - 1) // stride)
            return
        note_committed(place, record)
        live(place, Tripwire(NEVER, "before"))
        compare(place, record, undisturbed, durability, f"{point}, pass {hit}")


def fresh_ledger(folder: Path) -> Ledger:
    path = folder / "ledger.jsonl"
    path.unlink(missing_ok=True)
    return Ledger(path)


def note_committed(place: Path, record: Ledger) -> None:
    with open_store(str(place / "perdure.db")) as client:
        record.note_committed(client, RUN)


def compare(
    place: Path, record: Ledger, undisturbed: Undisturbed, durability: str, where: str
) -> None:
    with open_store(str(place / "perdure.db")) as client:
        try:
            check(record, client, RUN, undisturbed, durability=durability)
        except AssertionError as error:
            raise AssertionError(f"died {where}: {error}") from error
