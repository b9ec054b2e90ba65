"""SIGKILL to coordinators and workers at random, under random graphs: none lost, none doubled."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.crash import nursery, steps
from tests.crash.ledger import (
    GONE_WITHIN_S,
    Line,
    Undisturbed,
    check_blobs,
    check_end,
    check_executions,
    check_nothing_is_left,
    check_order,
    check_rows,
    wait_until,
)
from tests.crash.stage import TIMEOUT_S, Stage
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure.worker.kinship import descendant_pids
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import RunQuery, RunRecord

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

SEED = int(os.environ.get("PERDURE_STORM_SEED", "1"))
KILLS = int(os.environ.get("PERDURE_STORM_KILLS", "0"))
MOST_KILLS_BESIDE = 30
"""So many on PostgreSQL, where those on SQLite have been: they take long there."""

ON_RAY_KILLS = 4
RAY_ENDS_S = 60.0
"""Within which Ray ends idle workers of its own whose driver is gone."""
NODES_SHARE = 0.4
"""Of the kills on Ray that are none of a coordinator."""

COORDINATORS = 2
LIVE_RUNS = 4
LIVE = tuple(each for each in RunStatus if each not in RUN_TERMINAL)
GRAPH_STEPS = 25
MOST_TAKEOVERS = 2
"""A coordinator is spared while some run has been taken over so often without a commit: a run
whose owners die faster than it commits is given up on purpose, which is another test's business."""
PATIENCE_S = 1.0
"""How long after a kill some step may take to end before the next kill comes all the same."""
PATIENCE_ON_RAY_S = 8.0
"""There the loss of a node takes seconds to be noticed."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: LocalCluster | None
) -> Iterator[Stage]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made = Stage(tmp_path, url, cluster)
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
    live: dict[str, RunRecord] = field(default_factory=dict)
    coordinators: list[psutil.Process] = field(default_factory=list)
    seen: int = 0
    killed: dict[str, int] = field(
        default_factory=lambda: {"coordinator": 0, "worker": 0, "node": 0}
    )

    def __post_init__(self) -> None:
        words = ("up", "--store", self.stage.store, "--workers", "2", "--no-http")
        self.nursery = self.stage.start("-m", "tests.crash.nursery", *words, talks=True)
        if self.stage.cluster:
            self.stage.have_lossy_node()

    def submit(self) -> None:
        """Keep some runs going."""
        for _ in range(LIVE_RUNS - len(self.live)):
            seed = self.rng.randrange(1 << 30)
            run = self.client.submit(
                steps.random_graph, seed=seed, size=GRAPH_STEPS, run_id=f"storm-{seed}"
            )
            self.runs[run.id] = seed
            self.live[run.id] = run.record

    def look(self) -> None:
        """See which runs are live, and what has become of them."""
        query = RunQuery(status=LIVE, limit=2 * LIVE_RUNS)
        self.live = {each.id: each for each in self.client.runtime.store.list_runs(query)}

    def serve(self) -> None:
        """Start coordinators in place of those that were killed; no other may be gone."""
        for each in self.coordinators:
            assert each.is_running(), (self.stage.folder / nursery.LOG).read_text()
        while len(self.coordinators) < COORDINATORS:
            print("one more", file=self.nursery.stdin, flush=True)
            assert self.nursery.stdout is not None
            self.coordinators.append(psutil.Process(int(self.nursery.stdout.readline())))

    def kill_one(self) -> None:
        """SIGKILL a coordinator, or a process below one, or a node, if there is one to kill."""
        self.look()
        tried = any(each.takeovers >= MOST_TAKEOVERS for each in self.live.values())
        if self.rng.random() < 0.4 and not tried:
            victim = self.coordinators.pop(self.rng.randrange(len(self.coordinators)))
            self.kill("coordinator", victim.pid)
            return
        if self.stage.cluster and self.rng.random() < NODES_SHARE:
            self.stage.lose_node()
            self.killed["node"] += 1
            return
        if workers := self.workers():
            self.kill("worker", self.rng.choice(workers))

    def workers(self) -> list[int]:
        """Return the processes below coordinators, or all that Ray has on its nodes."""
        if self.stage.cluster:
            return [each.pid for each in self.stage.workers_of_ray()]
        return [pid for each in self.coordinators for pid in descendant_pids(each.pid)]

    def has_ended_one(self) -> bool:
        """Say whether a step has ended since this was asked; the lines are not decoded."""
        path = self.stage.ledger.path
        if not path.exists():
            return False
        with path.open("rb") as file:
            file.seek(self.seen)
            more = file.read()
        self.seen += len(more)
        return b'"ended"' in more

    def let_work_go_on(self) -> None:
        """Wait a random while, and until a step has ended: else nothing would be at stake."""
        now = time.monotonic()
        patience_s = PATIENCE_ON_RAY_S if self.stage.cluster else PATIENCE_S
        enough, most = now + self.rng.uniform(0.0, 0.15), now + patience_s
        self.has_ended_one()
        wait_until(lambda: self.has_ended_one() or time.monotonic() >= most, 30, "stuck")
        wait_until(lambda: time.monotonic() >= enough, 30, "stuck")

    def kill(self, kind: str, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.killed[kind] += 1

    def end(self) -> None:
        """Let everything come to its end, then stop serving."""
        self.serve()
        wait_until(self.all_ended, 60 + 10 * LIVE_RUNS, f"{list(self.live)} do not end")
        for coordinator in self.coordinators:
            coordinator.terminate()
        psutil.wait_procs(self.coordinators, timeout=TIMEOUT_S)
        assert not any(each.is_running() for each in self.coordinators)
        code, said = self.stage.finish(self.nursery)
        assert code == 0, said

    def lines_by_run(self) -> dict[str, list[Line]]:
        """Return what happened to each run, in order."""
        lines: dict[str, list[Line]] = {run_id: [] for run_id in self.runs}
        for line in self.stage.ledger.lines():
            lines[line.run].append(line)
        return lines

    def all_ended(self) -> bool:
        self.look()
        return not self.live


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_storm_of_kills_loses_nothing_and_doubles_nothing(stage: Stage, kills: int) -> None:
    blow(stage, kills)


@pytest.mark.ray
@pytest.mark.storm
@pytest.mark.timeout(0)
def test_storm_of_kills_on_ray_loses_nothing_and_doubles_nothing(stage_on_ray: Stage) -> None:
    """Nodes are lost, too, and the mailboxes of coordinators."""
    blow(stage_on_ray, KILLS or ON_RAY_KILLS)


def blow(stage: Stage, kills: int) -> None:
    with stage.open() as client:
        storm = Storm(stage, client, random.Random(SEED))
        while sum(storm.killed.values()) < kills:
            storm.serve()
            storm.submit()
            storm.let_work_go_on()
            storm.kill_one()
        storm.end()

        lines = storm.lines_by_run()
        figures = [check_run(storm, run_id, lines[run_id]) for run_id in storm.runs]

    check_nothing_is_left(stage.ledger, RAY_ENDS_S if stage.cluster else GONE_WITHIN_S)
    tell_figures(
        kills=sum(storm.killed.values()),
        coordinators=storm.killed["coordinator"],
        **({"nodes": storm.killed["node"]} if stage.cluster else {}),
        runs=len(figures),
        steps=sum(figures),
        executions=sum(line.event == "began" for each in lines.values() for line in each),
    )


def check_run(storm: Storm, run_id: str, lines: list[Line]) -> int:
    """Compare one run with what it comes to undisturbed; return how many steps it has."""
    client, store = storm.client, storm.client.runtime.store
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
