"""For every n: die before or after the n-th store, blob or executor call; resume; compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash import steps
from tests.crash.counting import Life, Tripwire, dead_owner
from tests.crash.here import Here
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
ON_RAY_STRIDE = 100
"""Of the sample on Ray, where a life takes seconds; all is done there by PERDURE_TEST_EXECUTOR."""
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "everything-step": (steps.everything, {"durability": "step"}),
    "growing-step": (steps.growing, {"durability": "step", "n": 2}),
    "growing-group": (steps.growing, {"durability": "group", "n": 2}),
    "deciding-step": (steps.deciding, {"durability": "step", "n": 2}),
    "graph-group": (steps.random_graph, {"seed": 5, "size": 12, "durability": "group"}),
}


@pytest.fixture(autouse=True)
def small_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have large values be as small as they can: the point is the calls, not what they carry."""
    monkeypatch.setattr(steps, "LARGE_BYTES", steps.BLOB_BYTES)


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
def live(case: str, here: Here, monkeypatch: pytest.MonkeyPatch) -> Live:
    definition, options = CASES[case]
    owners = iter(range(NEVER))

    def live(place: Path, wire: Tripwire) -> None:
        store = str(place / "perdure.db")
        runtime = Runtime(load_settings(store=store, executor=here.executor))
        life = Life(runtime, wire, dead_owner(next(owners)), here.make_executor)
        monkeypatch.setattr("perdure.worker.scope.open_blobs", life.open_worker_blobs)
        try:
            life.run(definition, RUN, **options)
        finally:
            life.end()

    return live


@pytest.fixture
def undisturbed(live: Live, memory: Path) -> Iterator[Undisturbed]:
    live(memory / "undisturbed", Tripwire(NEVER, "before"))
    with open_store(str(memory / "undisturbed" / "perdure.db")) as client:
        yield Undisturbed.of(client, RUN)


@pytest.mark.parametrize("when", ["before", "after"])
def test_run_is_the_same_whichever_call_its_coordinator_dies_at(
    when: str,
    memory: Path,
    here: Here,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    die_everywhere(when, memory, here, live, undisturbed, durability, stride)


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("executor", ["ray"])
@pytest.mark.parametrize("case", ["everything-step"])
@pytest.mark.parametrize("stride", [ON_RAY_STRIDE])
def test_run_on_ray_is_the_same_whichever_call_its_coordinator_dies_at(
    memory: Path,
    here: Here,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    die_everywhere("after", memory, here, live, undisturbed, durability, stride)


def die_everywhere(
    when: str,
    memory: Path,
    here: Here,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    at, deaths = 1, 0
    while True:
        place = memory / f"at-{at}"
        here.clear()
        wire = Tripwire(at, when)
        try:
            live(place, wire)
        except InjectedCrash:
            deaths += 1
        else:
            break
        note_committed(place, here.ledger)
        live(place, Tripwire(NEVER, "before"))
        compare(place, here.ledger, undisturbed, durability, wire.fell_at)
        at += stride

    tell_figures(deaths=deaths)
    assert deaths >= 30 / stride


@pytest.mark.parametrize(
    "point", [p for p in CRASH_POINTS if p.startswith(("blob.", "commit.", "expansion."))]
)
def test_run_is_the_same_whichever_pass_of_a_point_it_dies_at(
    point: str,
    memory: Path,
    here: Here,
    live: Live,
    undisturbed: Undisturbed,
    durability: str,
    stride: int,
) -> None:
    for hit in range(1, 1000, stride):
        place = memory / f"{point}-{hit}"
        here.clear()
        try:
            with armed(f"{point}:{hit}:raise"):
                live(place, Tripwire(NEVER, "before"))
        except InjectedCrash:
            pass  # the next life begins outside: it must not have this exception as its context
        else:
            tell_figures(deaths=(hit - 1) // stride)
            return
        note_committed(place, here.ledger)
        live(place, Tripwire(NEVER, "before"))
        compare(place, here.ledger, undisturbed, durability, f"{point}, pass {hit}")


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
