"""SIGKILL to coordinators and workers at random, under random graphs: none lost, none doubled."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from tests.crash import steps
from tests.crash.ledger import (
    Undisturbed,
    check_blobs,
    check_end,
    check_executions,
    check_nothing_is_left,
    check_order,
    check_rows,
    wait_until,
)
from tests.crash.stage import Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus

SEED = int(os.environ.get("PERDURE_STORM_SEED", "1"))
KILLS = int(os.environ.get("PERDURE_STORM_KILLS", "0"))
MOST_KILLS_BESIDE = 40
"""So many on PostgreSQL, where those on SQLite have been: they take long there."""

COORDINATORS = 2
LIVE_RUNS = 4
GRAPH_STEPS = 25
MOST_TAKEOVERS = 2
"""A coordinator is spared while some run has been taken over so often without a commit: a run
whose owners die faster than it commits is given up on purpose, which is another test's business."""
PATIENCE_S = 1.0
"""How long after a kill some step may take to end before the next kill comes all the same."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Stage(tmp_path, url)
    yield made
    made.end()


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    asked = int(request.config.getoption("--storm"))
    return KILLS or min(asked, MOST_KILLS_BESIDE if "postgres" in request.node.name else asked)


@dataclass
class Storm:
    """Coordinators that serve a store, and who is killed next."""

    stage: Stage
    client: Perdure
    rng: random.Random
    runs: dict[str, int] = field(default_factory=dict)
    coordinators: list[subprocess.Popen[str]] = field(default_factory=list)
    killed: dict[str, int] = field(default_factory=lambda: {"coordinator": 0, "worker": 0})

    def submit(self) -> None:
        """Keep some runs going."""
        live = [run_id for run_id in self.runs if self.status(run_id) not in RUN_TERMINAL]
        for _ in range(LIVE_RUNS - len(live)):
            seed = self.rng.randrange(1 << 30)
            run = self.client.submit(
                steps.random_graph, seed=seed, size=GRAPH_STEPS, run_id=f"storm-{seed}"
            )
            self.runs[run.id] = seed

    def status(self, run_id: str) -> RunStatus:
        return self.client.get_run(run_id).record.status

    def serve(self) -> None:
        """Start coordinators in place of those that are gone."""
        self.coordinators = [each for each in self.coordinators if each.poll() is None]
        while len(self.coordinators) < COORDINATORS:
            words = ("-m", "perdure", "up", "--store", self.stage.store, "--workers", "2")
            self.coordinators.append(self.stage.start(*words, PERDURE_BLOBS=self.stage.blobs))

    def kill_one(self) -> None:
        """SIGKILL a coordinator, or a process below one, if there is one to kill."""
        records = [self.client.get_run(run_id).record for run_id in self.runs]
        tried = any(r.status not in RUN_TERMINAL and r.takeovers >= MOST_TAKEOVERS for r in records)
        if self.rng.random() < 0.4 and not tried:
            victim = self.rng.choice(self.coordinators)
            self.kill("coordinator", psutil.Process(victim.pid))
            return
        below = [
            process
            for each in self.coordinators
            for process in psutil.Process(each.pid).children(recursive=True)
        ]
        if below:
            self.kill("worker", self.rng.choice(below))

    def ended(self) -> int:
        """Count the steps that have ended; asked often, so the lines are not decoded."""
        path = self.stage.ledger.path
        return path.read_bytes().count(b'"ended"') if path.exists() else 0

    def let_work_go_on(self) -> None:
        """Wait a random while, and until a step has ended: else nothing would be at stake."""
        before, now = self.ended(), time.monotonic()
        enough, most = now + self.rng.uniform(0.0, 0.15), now + PATIENCE_S
        wait_until(
            lambda: time.monotonic() >= (enough if self.ended() > before else most), 30, "stuck"
        )

    def kill(self, kind: str, process: psutil.Process) -> None:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return
        self.killed[kind] += 1

    def end(self) -> None:
        """Let everything come to its end, then stop serving."""
        self.serve()
        for run_id in self.runs:
            wait_until(lambda: self.status(run_id) in RUN_TERMINAL, 60, f"{run_id} does not end")  # noqa: B023
        for coordinator in self.coordinators:
            coordinator.terminate()
            self.stage.finish(coordinator)


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_storm_of_kills_loses_nothing_and_doubles_nothing(stage: Stage, kills: int) -> None:
    with stage.open() as client:
        storm = Storm(stage, client, random.Random(SEED))
        while sum(storm.killed.values()) < kills:
            storm.serve()
            storm.submit()
            storm.let_work_go_on()
            storm.kill_one()
        storm.end()

        figures = [check_run(storm, run_id) for run_id in storm.runs]

    check_nothing_is_left(stage.ledger)
    executions = len(stage.ledger.began())
    tell_figures(
        kills=sum(storm.killed.values()),
        coordinators=storm.killed["coordinator"],
        runs=len(figures),
        steps=sum(figures),
        executions=executions,
    )


def check_run(storm: Storm, run_id: str) -> int:
    """Compare one run with what it comes to undisturbed; return how many steps it has."""
    client, store = storm.client, storm.client.runtime.store
    lines = storm.stage.ledger.lines(run_id)
    rows = store.list_steps(run_id, current_only=False)  # type: ignore[arg-type]
    current = {row.step_id: row.value.value_digest for row in rows if row.current and row.value}
    expected = client.execute(steps.random_graph, seed=storm.runs[run_id], size=GRAPH_STEPS)
    wanted = Undisturbed(expected, current)
    check_end(client, run_id, wanted)
    check_rows(client, run_id, rows, wanted)
    check_executions(lines, rows)
    check_order(client, run_id, lines, rows)
    check_blobs(client, run_id, rows)
    return len(current)
