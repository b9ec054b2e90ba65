"""How a run's progress is shown: on terminals of real processes, and where there is none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest
from tests.acceptance.terminals import Terminal
from tests.crash.ledger import wait_until

from perdure import task
from perdure.client import Perdure
from perdure.progress.displays import Scene
from perdure.progress.watch import Display
from perdure.settings import load_settings
from perdure.watching import Watching
from perdure_storage.records import RunCommit

STAYS = dedent(
    """
    import pathlib, time
    from perdure import Backoff, task, workflow

    @task(retries=1, backoff=Backoff("10ms"))
    def flaky(n: int) -> int:
        tried = pathlib.Path("tried")
        if not tried.exists():
            tried.touch()
            raise ValueError("no rows")
        return n

    @task
    def stay(n: int) -> int:
        print("epoch 3", flush=True)
        pathlib.Path("staying").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        return n + 1

    @workflow
    def stays() -> int:
        return stay.bind(flaky.bind(1))
    """
)
ASKS = dedent(
    """
    from perdure import task, workflow

    @task
    def ask() -> str:
        print("before")
        name = input("your name? ")
        print("hello", name)
        return name

    @workflow
    def asks() -> str:
        return ask.bind()
    """
)
SCRIPT = dedent(
    """
    from stays import stays

    print("result", stays.run(run_id="one"))
    """
)
RUN = ["-m", "perdure", "run", "--id", "one", "stays.py"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stays.py").write_text(STAYS)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "asks.py").write_text(ASKS)
    return tmp_path


@pytest.fixture
def on_a_terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts ``python WORDS...`` in the folder, on a terminal."""
    opened: list[Terminal] = []

    def start(words: list[str], **more: Any) -> Terminal:
        opened.append(Terminal(words, folder, **more))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_live_view_shows_the_run_and_leaves_one_line(
    folder: Path, on_a_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_a_terminal(RUN)

    seen = terminal.wait_for(lambda shown: "stay | epoch 3" in shown)
    (folder / "go").touch()
    code = terminal.wait()

    assert "1/2  50%" in seen
    assert "1 done · 1 running · 0 waiting · 1 retry" in seen
    assert re.search(r"^  stay  [\d.]+ m?s$", seen, re.MULTILINE)
    assert code == 0
    first, second, third = terminal.shown.splitlines()
    assert first.startswith("run one (if this process dies: perdure resume one")
    assert re.fullmatch(r"run one succeeded in [\d.]+ s: 2 steps ran, 1 retry", second)
    assert third == "2"


def test_view_fits_a_terminal_of_40_columns_without_colours(
    folder: Path, on_a_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_a_terminal(RUN, columns=40, NO_COLOR="1")

    seen = terminal.wait_for(lambda shown: "stay | epoch 3" in shown)
    (folder / "go").touch()
    terminal.wait()

    assert "1/2  50%" in seen
    assert not re.search(rb"\x1b\[3\dm", terminal.sent)


def test_terminal_that_cannot_move_its_cursor_gets_lines(
    folder: Path, on_a_terminal: Callable[..., Terminal]
) -> None:
    (folder / "go").touch()
    terminal = on_a_terminal(RUN, TERM="dumb")

    assert terminal.wait() == 0
    assert b"\x1b" not in terminal.sent
    assert "[2/2] stay: done in" in terminal.shown


def test_killed_run_leaves_the_cursor_where_people_can_see_it(
    on_a_terminal: Callable[..., Terminal],
) -> None:
    terminal = on_a_terminal(RUN)
    terminal.wait_for(lambda shown: "1/2  50%" in shown)

    os.kill(terminal.process.pid, signal.SIGKILL)
    terminal.wait()

    assert b"\x1b[?25l" not in terminal.sent


def test_question_of_an_inline_step_is_seen_and_can_be_answered(
    on_a_terminal: Callable[..., Terminal],
) -> None:
    words = ["-m", "perdure", "run", "--id", "one", "--executor", "inline", "asks.py"]
    terminal = on_a_terminal(words)
    asked = terminal.wait_for(lambda shown: "your name?" in shown)
    terminal.type("Ada\n")
    code = terminal.wait()

    assert asked.splitlines()[-2:] == ["before", "your name?"]
    assert code == 0
    assert terminal.shown.splitlines()[1:4] == ["before", "your name? Ada", "hello Ada"]


def test_script_shows_the_run_on_a_terminal(
    folder: Path, on_a_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_a_terminal(["script.py"])

    terminal.wait_for(lambda shown: "stay | epoch 3" in shown)
    (folder / "go").touch()
    code = terminal.wait()

    first, second, third = terminal.shown.splitlines()
    assert code == 0
    assert first == "perdure: run one"
    assert second.startswith("perdure: run one succeeded in ")
    assert third == "result 2"


def test_script_without_a_terminal_prints_nothing_of_its_own(folder: Path) -> None:
    (folder / "go").touch()

    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=60
    )

    assert (ended.stdout, ended.stderr) == ("result 2\n", "")


def test_command_without_a_terminal_prints_a_line_a_change(perdure: Any) -> None:
    perdure.write("stays.py", STAYS)
    (perdure.folder / "go").touch()

    lines = perdure("run", "--id", "one", "stays.py").err.splitlines()

    patterns = [
        r"run one \(if this process dies: perdure resume one.*\)",
        r"\[0/2\] flaky: attempt 1 failed after .*: ValueError: no rows; again in \d+ ms",
        r"\[1/2\] flaky: done in .*, attempt 2",
        r"\[2/2\] stay: done in .*",
        r"run one succeeded in .*: 2 steps ran, 1 retry",
    ]
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)


def test_run_that_another_process_drives_is_shown_too(perdure: Any) -> None:
    perdure.write("stays.py", STAYS)
    driver = perdure.start("run", "--id", "one", "stays.py")
    perdure.wait_for_file("staying", driver)
    attached = perdure.start("run", "--id", "one", "stays.py")
    first = attached.stderr.readline()
    looks = psutil.Process(attached.pid)
    wait_until(lambda: looks.num_threads() > 1, 30, "it does not begin to look")
    (perdure.folder / "go").touch()
    out, err = attached.communicate(timeout=60)
    driver.communicate(timeout=60)

    assert re.fullmatch(
        rf"one is RUNNING and driven by process {driver.pid} on .*: attached\n", first
    )
    assert "if this process dies" not in err
    assert out == "2\n"
    assert "[2/2] stay: done in" in err
    assert re.search(r"run one succeeded in .*: 1 step ran, 1 done before", err)


def test_resume_tells_what_was_done_before(perdure: Any) -> None:
    perdure.write("stays.py", STAYS)
    killed = perdure.start("run", "--id", "one", "stays.py")
    perdure.wait_for_file("staying", killed)
    killed.kill()
    killed.wait()
    (perdure.folder / "go").touch()

    err = perdure("resume", "one").err

    assert "[1/2] stay: attempt 1 was cut off\n" in err
    assert "[2/2] stay: done in" in err
    assert "flaky" not in err
    assert re.search(r"run one succeeded in .*: 1 step ran, 1 done before", err)


def test_what_a_dead_process_had_in_flight_does_not_run(perdure: Any) -> None:
    perdure.write("stays.py", STAYS)
    killed = perdure.start("run", "--id", "one", "stays.py")
    perdure.wait_for_file("staying", killed)
    killed.kill()
    killed.wait()
    scenes: list[Scene] = []

    def find_medium(say: object) -> Callable[[Scene], Display]:
        return lambda scene: scenes.append(scene) or Unseen()

    settings = load_settings(store=str(perdure.folder / ".perdure" / "perdure.db"))
    with Perdure(settings) as client:
        run = client.get_run("one")
        with Watching(print, find_medium).watch(run, client.runtime, lambda run_id: True):
            glance = scenes[0].board.look(client.runtime.clock.now())

    assert (glance.done, glance.running, glance.waiting) == (1, 0, 1)


class Unseen:
    """A display that nobody looks at."""

    def update(self, commits: list[RunCommit]) -> None:
        pass

    def close(self) -> None:
        pass


def test_progress_of_a_run_counts_its_steps(tmp_path: Path) -> None:
    @task
    def one() -> int:
        return 1

    @task
    def bad(n: int) -> int:
        raise ValueError("no rows")

    @task
    def never(n: int) -> int:
        return n

    settings = load_settings(store=str(tmp_path / "perdure.db"), executor="inline")
    with Perdure(settings) as perdure:
        run = perdure.start([never.bind(bad.bind(one.bind()))], run_id="r")
        run.wait()
        progress = run.progress

    assert str(progress) == "1/3"
    assert (progress.done, progress.failed, progress.running, progress.waiting) == (1, 1, 0, 1)
