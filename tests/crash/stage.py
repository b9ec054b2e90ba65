"""Where something is killed: a folder with a store, a ledger, and processes of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from tests.crash import ledger, steps
from tests.prepared import LEAN, prepared_interpreter, python_path
from tests.ray.fixtures import on_ray

from perdure.client import Perdure, open_store
from perdure_storage.faults import VARIABLE as CRASH_POINTS_VARIABLE

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

ROOT = Path(__file__).parents[2]
TIMEOUT_S = ledger.PATIENCE_S


@dataclass
class Stage:
    """A folder, and the environment of the processes that play in it.

    Attributes:
        cluster: of Ray, on which all steps run; None: where a test or scenario says.
        variables: more of the environment.
    """

    folder: Path
    store: str = ""
    cluster: LocalCluster | None = None
    variables: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    _lossy: LocalNode | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = self.store or str(self.folder / "store" / "perdure.db")
        self.blobs = str(self.folder / "store" / "blobs")
        self.ledger = ledger.Ledger(self.folder / "ledger.jsonl")

    @property
    def is_on_postgres(self) -> bool:
        return "://" in self.store

    def environment(self, crash: str = "") -> dict[str, str]:
        """Return what our processes, and the workers of theirs, are to know."""
        path = python_path(LEAN, ROOT)
        told = {**self.variables, **self.own_environment}
        if crash:
            told[CRASH_POINTS_VARIABLE] = crash
        settings = on_ray(self.cluster.address, told) if self.cluster else {}
        return {**os.environ, "PYTHONPATH": path, **settings, **told}

    @property
    def own_environment(self) -> dict[str, str]:
        """Return what leads steps to this stage."""
        return {
            ledger.VARIABLE: str(self.ledger.path),
            steps.STORE: self.store,
            "PERDURE_BLOBS": self.blobs,
            steps.GATE: str(self.folder / "gate"),
        }

    def start(
        self,
        *words: str,
        crash: str = "",
        before: Sequence[str] = (),
        talks: bool = False,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start ``python WORDS``; ``crash`` arms crash points in it and in its workers.

        Args:
            words: for Python.
            crash: crash points.
            before: a command that starts the command that follows it.
            talks: whether it is told things on its stdin.
            environment: more variables.
        """
        process = subprocess.Popen(
            [*before, sys.executable, *words],
            cwd=self.folder,
            env={**self.environment(crash), **environment},
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Return the exit code and all that was said, when the process has ended."""
        out, err = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out + err

    def play(self, scenario: str, part: str, *, crash: str = "") -> tuple[int, str]:
        """Play a part of a scenario to its end, or to its death."""
        words = [scenario, part, self.store, "--blobs", self.blobs]
        if self.cluster:
            words += ["--executor", "ray"]
        code, out, err = prepared_interpreter().run(
            "tests.crash.scenarios", words, self.folder, self.environment(crash), TIMEOUT_S
        )
        return code, out + err

    def open(self, executor: str = "inline") -> Perdure:
        """Open the store in this process."""
        return open_store(self.store, blobs=self.blobs, executor=executor)

    # --- on Ray ---------------------------------------------------------------------------------
    def workers_of_ray(self) -> list[psutil.Process]:
        """Return the processes in which Ray runs steps and mailboxes, those without work too."""
        assert self.cluster is not None
        below = [each for node in self.cluster.nodes() for each in node.processes()]
        return [each for each in below if is_worker(each)]

    def have_lossy_node(self) -> None:
        """Add the node of two CPUs that is lost again and again."""
        assert self.cluster is not None
        self._lossy = self.cluster.add(cpus=2)

    def lose_node(self) -> None:
        """Lose it, and have another like it."""
        assert self.cluster is not None
        assert self._lossy is not None
        self._lossy = self.cluster.replace(self._lossy)

    def end(self) -> None:
        """Kill what still runs here, and close the pipes."""
        for process in self.started:
            if process.poll() is None:
                for below in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        below.kill()
                process.kill()
            process.communicate()
        if self.cluster is not None and self._lossy is not None:
            self.cluster.remove(self._lossy)


def is_worker(process: psutil.Process) -> bool:
    """Say whether a process of a node lives, and is no agent, with which its node would end."""
    try:
        title = process.cmdline()[0]
    except (psutil.NoSuchProcess, IndexError):
        return False
    return title.startswith("ray::") and "Agent" not in title
