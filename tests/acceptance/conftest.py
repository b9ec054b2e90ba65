"""A store and a command line in a folder of their own: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from tests.prepared import prepared_interpreter

from perdure.client import Perdure, open_store

TIMEOUT_S = 60


@dataclass(frozen=True)
class Ended:
    """What a command printed and how it ended; a death by signal n is code 128 + n."""

    code: int
    out: str
    err: str


@dataclass
class CommandLine:
    """Runs ``perdure ...`` in ``folder``."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the user's and return its path."""
        path = self.folder / name
        path.write_text(text)
        return path

    def __call__(self, *words: str | Path, **environment: str) -> Ended:
        """Run a command to its end."""
        if any(name.startswith("PYTHON") for name in environment):  # an interpreter reads them
            process = self.start(*words, **environment)
            out, err = process.communicate(timeout=TIMEOUT_S)
            code = process.returncode
        else:
            texts, whole = [str(word) for word in words], {**os.environ, **environment}
            code, out, err = prepared_interpreter().run(
                "perdure", texts, self.folder, whole, TIMEOUT_S
            )
        return Ended(code if code >= 0 else 128 - code, out, err)

    def start(self, *words: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own; it is killed at the end of the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def wait_for_file(self, name: str, process: subprocess.Popen[str]) -> None:
        """Return when a step of ``process`` has made the file; fail if the process ends first."""
        while not (self.folder / name).exists():
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"ended before there was a {name}: {process.communicate()[1]}")

    def end(self) -> None:
        """Kill what still runs, with its descendants, and close the pipes."""
        while self.started:
            process = self.started.pop()
            if process.poll() is None:
                for descendant in psutil.Process(process.pid).children(recursive=True):
                    descendant.send_signal(signal.SIGKILL)
                process.kill()
            process.communicate()


@pytest.fixture
def perdure(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line in a fresh folder."""
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.end()


@pytest.fixture(scope="session")
def command_line_in() -> Iterator[Callable[[Path], CommandLine]]:
    """Command lines in folders of the test's choice, which tests may share."""
    made: list[CommandLine] = []

    def make(folder: Path) -> CommandLine:
        made.append(CommandLine(folder))
        return made[-1]

    yield make
    for command_line in made:
        command_line.end()


@pytest.fixture(params=["inline", "processes"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Perdure]:
    """A store in ``store/perdure.db``, by each executor in turn."""
    with _opened(tmp_path, request.param) as opened:
        yield opened


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[Perdure]:
    """The same, whose steps run in this process."""
    with _opened(tmp_path, "inline") as opened:
        yield opened


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Perdure]:
    """The same, whose steps run in processes of their own."""
    with _opened(tmp_path, "processes") as opened:
        yield opened


def _opened(folder: Path, executor: str) -> Perdure:
    return open_store(str(folder / "store" / "perdure.db"), executor=executor)
