"""Programs by chance, undisturbed and killed: they come to what plain Python says beforehand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.crash import ledger
from tests.crash.counting import Life, Tripwire, dead_owner
from tests.crash.here import Here
from tests.crash.programs import (
    LATE,
    SENT,
    Program,
    World,
    edited,
    expectation,
    programs,
    with_blobs,
    with_gates,
    workflow_of,
)

import perdure
from perdure.client import open_store
from perdure.errors import RunConflict
from perdure.plan import decode_plan
from perdure.results import read_result
from perdure.runtime import Runtime
from perdure.settings import load_settings
from perdure.signalling import send_signal
from perdure_storage.faults import InjectedCrash
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Place, RunId

NEVER = 1 << 30
RUN = "victim"
EXAMPLES = int(os.environ.get("PERDURE_PROGRAMS", "15"))
"""How many programs each test tries: the same ones always, unless this is given."""

ON_RAY = 2
"""So many of the sample on Ray; all are done there by PERDURE_TEST_EXECUTOR."""
MOST_STEPS = 60
"""Programs that take more steps than this are not tried: their number is multiplied in places."""

by_chance = settings(
    max_examples=EXAMPLES,
    derandomize="PERDURE_PROGRAMS" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
deaths = st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["before", "after"])), max_size=3)
"""Before or after which call, counted from 0; a fourth without a commit is poison."""


@dataclass
class Stage:
    """A folder with one store and a ledger; coordinators live and die on it."""

    folder: Path
    here: Here
    owners: Iterator[int] = field(default_factory=lambda: iter(range(NEVER)))

    @property
    def store(self) -> str:
        return str(self.folder / "perdure.db")

    def live(self, program: Program, wire: Tripwire, run_id: str = RUN, **options: Any) -> int:
        """Drive the run until it ends, or the wire trips. Return how many calls it took."""
        runtime = Runtime(load_settings(store=self.store, executor=self.here.executor))
        life = Life(runtime, wire, dead_owner(next(self.owners)), self.here.make_executor)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("perdure.worker.scope.open_blobs", life.open_worker_blobs)
            try:
                life.submit(workflow_of(program), run_id, **options)
                send_signals(runtime, run_id, program)
                life.drive(run_id)
            finally:
                life.end()
        return wire.calls

    def die(
        self,
        program: Program,
        deaths: list[tuple[int, str]],
        calls: int,
        run_id: str = RUN,
        **options: Any,
    ) -> None:
        """Drive the run to its end with these deaths on the way, of the calls that it takes."""
        for at, when in deaths:
            try:
                self.live(program, Tripwire(at % calls + 1, when), run_id, **options)
            except InjectedCrash:
                self.note_committed(run_id)
            else:
                return
        self.live(program, Tripwire(NEVER, "before"), run_id, **options)

    def lose(self, which: int) -> None:
        """Remove the blobs of some of the run's values: those whose bit is set.

        Those are left that hold constants too, which nothing can make again.
        """
        if self.status() is None:
            return
        with open_store(self.store) as client:
            rows = client.runtime.store.list_steps(RunId(RUN))
            grown = client.runtime.store.list_expansions(RunId(RUN))
            plans = [client.get_run(RUN).plan, *(decode_plan(each.plan.body) for each in grown)]
            blobs = Path(client.settings.blobs)
        constants = {value.integrity for plan in plans for value in plan.constants}
        names = {r.value.integrity for r in rows if r.value and r.value.place is Place.BLOB}
        for at, name in enumerate(sorted(names - constants)):
            if which >> at & 1:
                for path in blobs.rglob(f"blobs/*/{name.replace(':', '-')}"):
                    path.unlink()

    def status(self) -> RunStatus | None:
        with open_store(self.store) as client:
            record = client.runtime.store.find_run(RunId(RUN))
            return record.status if record else None

    def began(self, run: str = RUN) -> Counter[str]:
        """Return the notes of all steps that began."""
        lines = self.here.ledger.lines(run)
        return Counter(line.note for line in lines if line.event == "began")

    def undisturbed(self) -> ledger.Undisturbed:
        with open_store(self.store) as client:
            return ledger.Undisturbed.of(client, RUN)

    def note_committed(self, run_id: str = RUN) -> None:
        with open_store(self.store) as client:
            self.here.ledger.note_committed(client, run_id)


def send_signals(runtime: Runtime, run_id: str, program: Program) -> None:
    """Send what its waits are to be given, as a sender does that may have died before."""
    for name, count in expectation(program)[1].signals.items():
        for number in range(count):
            with suppress(RunConflict):  # it is over: it had them all
                send_signal(runtime, run_id, name, SENT, dedup_key=str(number))


@contextmanager
def staged(here: Here) -> Iterator[Stage]:
    """Give a stage on which nothing has happened, in memory."""
    with TemporaryDirectory(dir=here.notes) as name:
        here.clear()
        here.gate.touch()
        yield Stage(Path(name), here)


def small(program: Program) -> tuple[int, World]:
    """Return what is expected of a program that is not too large."""
    value, world = expectation(program)
    assume((world.certain + world.possible).total() <= MOST_STEPS)
    return value, world


# --- what must hold -----------------------------------------------------------------------------
def check_notes(began: Counter[str], world: World, *, is_exact: bool) -> None:
    """Each step saw what it is to see: none a part of a fan-out; and each ran that has to."""
    known = world.certain + world.possible
    assert not (missing := world.certain - began), f"never ran: {missing}"
    strange = began - known if is_exact else began.keys() - known.keys()
    assert not strange, f"ran, and should not: {strange}"


def check_end(stage: Stage, value: int, run_id: str = RUN) -> None:
    with open_store(stage.store) as client:
        record = client.runtime.store.get_run(RunId(run_id))
        assert record.status is RunStatus.SUCCEEDED, f"{record.status}: {record.error}"
        assert read_result(client.runtime, record) == value


def check_ledger(
    stage: Stage, world: World, undisturbed: ledger.Undisturbed, durability: str
) -> None:
    """What holds for every run; and, if no race is in it, each row is the undisturbed one.

    So it is if no item may fail in a chunk, and so become a step, or not: as it had tries before.
    """
    lines = stage.here.ledger.lines(RUN)
    with open_store(stage.store) as client:
        rows = client.runtime.store.list_steps(RunId(RUN), current_only=False)
        if not world.kinds & {"race", "taken apart"}:
            ledger.check_rows(client, RUN, rows, undisturbed)
        ledger.check_end(client, RUN, undisturbed)
        ledger.check_executions(lines, rows, durability)
        ledger.check_order(client, RUN, lines, rows, durability)
        ledger.check_blobs(client, RUN, rows)


# --- tests --------------------------------------------------------------------------------------
@by_chance
@given(programs())
def test_program_executed_eagerly_comes_to_what_it_should(here: Here, program: Program) -> None:
    small(program)
    value, world = expectation(program, LATE)

    with staged(here) as stage:
        assert perdure.execute(workflow_of(program)) == value

        check_notes(stage.began("eager"), world, is_exact=True)


@by_chance
@given(programs(), st.sampled_from(["step", "group"]))
def test_undisturbed_program_comes_to_what_it_should(
    here: Here, program: Program, durability: str
) -> None:
    value, world = small(program)

    with staged(here) as stage:
        stage.live(program, Tripwire(NEVER, "before"), durability=durability)

        check_end(stage, value)
        check_notes(stage.began(), world, is_exact=True)


@by_chance
@given(programs(), deaths, st.sampled_from(["step", "group"]))
def test_killed_program_comes_to_what_it_should(
    here: Here, program: Program, deaths: list[tuple[int, str]], durability: str
) -> None:
    kill_and_check(here, program, deaths, durability)


@settings(by_chance, max_examples=ON_RAY, derandomize=True)
@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("executor", ["ray"])
@given(programs(), deaths.filter(bool))
def test_killed_program_on_ray_comes_to_what_it_should(
    here: Here, program: Program, deaths: list[tuple[int, str]]
) -> None:
    kill_and_check(here, program, deaths, "step")


def kill_and_check(
    here: Here, program: Program, deaths: list[tuple[int, str]], durability: str
) -> None:
    value, world = small(program)
    with staged(here) as stage:
        calls = stage.live(program, Tripwire(NEVER, "before"), durability=durability)
        undisturbed = stage.undisturbed()

    with staged(here) as stage:
        stage.die(program, deaths, calls, durability=durability)

        check_end(stage, value)
        check_notes(stage.began(), world, is_exact=not deaths)
        check_ledger(stage, world, undisturbed, durability)


@by_chance
@given(programs(), st.lists(deaths, min_size=2, max_size=2), st.sampled_from(["stop", "finish"]))
def test_program_that_was_mended_comes_to_what_it_should(
    here: Here, program: Program, deaths: list[list[tuple[int, str]]], on_failure: str
) -> None:
    program = with_gates(program)
    value, world = small(program)
    with staged(here) as stage:
        calls = stage.live(program, Tripwire(NEVER, "before"))
        undisturbed = stage.undisturbed()

    with staged(here) as stage:
        stage.here.gate.unlink()
        stage.die(program, deaths[0], calls, on_failure=on_failure)
        is_stopped = any(note.startswith("gated ") for note in world.certain)
        assert not is_stopped or stage.status() is RunStatus.FAILED
        stage.note_committed()
        stage.here.gate.touch()
        stage.die(program, deaths[1], calls, on_failure=on_failure)

        check_end(stage, value)
        again = stage.began() - world.certain - world.possible
        assert any(deaths) or {note.split()[0] for note in again} <= {"gated", "unkept"}
        check_notes(stage.began(), world, is_exact=False)
        check_ledger(stage, world, undisturbed, "step")


@by_chance
@given(programs(), deaths)
def test_program_that_is_reused_runs_nothing_again(
    here: Here, program: Program, deaths: list[tuple[int, str]]
) -> None:
    value, world = small(program)
    with staged(here) as stage:
        calls = stage.live(program, Tripwire(NEVER, "before"))
        stage.die(program, deaths, calls, "second", reuse=RUN)

        check_end(stage, value, "second")
        ran = {note.split()[0] for note in stage.began("second")}
        again = {"volatile", "unkept"} if "volatile" in world.kinds else set()
        assert "race" in world.kinds or ran <= again, "what is not kept may be needed once more"


@by_chance
@given(edited(), deaths)
def test_edited_program_that_reuses_comes_to_what_it_should(
    here: Here, versions: tuple[Program, Program], deaths: list[tuple[int, str]]
) -> None:
    (before, after) = versions
    small(before)
    value, world = small(after)
    with staged(here) as stage:
        calls = stage.live(before, Tripwire(NEVER, "before"))
        stage.die(after, deaths, calls, "second", reuse=RUN)

        check_end(stage, value, "second")
        strange = stage.began("second").keys() - (world.certain + world.possible).keys()
        assert not strange, f"ran, and should not: {strange}"


@by_chance
@given(edited(), st.lists(deaths, min_size=2, max_size=2))
def test_program_edited_after_a_death_comes_to_what_it_should(
    here: Here, versions: tuple[Program, Program], deaths: list[list[tuple[int, str]]]
) -> None:
    (before, after) = versions
    _, old = small(before)
    value, world = small(after)
    with staged(here) as stage:
        calls = stage.live(before, Tripwire(NEVER, "before"))

    with staged(here) as stage:
        for at, when in deaths[0][:1]:
            with suppress(InjectedCrash):
                stage.live(before, Tripwire(at % calls + 1, when))
        if stage.status() not in (None, RunStatus.RUNNING):
            return  # not begun, asleep or over: another program is another run
        stage.die(after, deaths[1][:2], calls)  # three in all: a fourth is poison

        check_end(stage, value)
        known = world.certain + world.possible + old.certain + old.possible
        strange = stage.began().keys() - known.keys()
        assert not strange, f"ran, and should not: {strange}"


@by_chance
@given(programs(), deaths, st.integers(0, 1 << 12))
def test_program_whose_values_are_lost_comes_to_what_it_should(
    here: Here, program: Program, deaths: list[tuple[int, str]], lost: int
) -> None:
    program = with_blobs(program)
    value, world = small(program)
    with staged(here) as stage:
        calls = stage.live(program, Tripwire(NEVER, "before"))
        undisturbed = stage.undisturbed()

    with staged(here) as stage:
        for at, when in deaths:
            with suppress(InjectedCrash):
                stage.live(program, Tripwire(at % calls + 1, when))
            stage.lose(lost)
        stage.live(program, Tripwire(NEVER, "before"))

        check_end(stage, value)
        check_notes(stage.began(), world, is_exact=False)
        with open_store(stage.store) as client:
            rows = client.runtime.store.list_steps(RunId(RUN), current_only=False)
            if not world.kinds & {"race", "taken apart"}:
                ledger.check_rows(client, RUN, rows, undisturbed)
