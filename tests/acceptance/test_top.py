"""`perdure top`: what goes on, live and at one look."""

from __future__ import annotations

import io
import json
import re
import signal
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from rich.console import Console
from tests.acceptance import reported_steps as steps
from tests.acceptance.terminals import Terminal

from perdure import RunFailed
from perdure.cli.activity import _fitting
from perdure.client import Perdure
from perdure.view.activity import Activity
from perdure.view.model import ActiveRunView, ActivityView, CoordinatorView

HELD = dedent(
    """
    import pathlib, time
    from perdure import task, workflow

    @task
    def begin() -> int:
        pathlib.Path("begun").touch()
        return 1

    @task
    def hold(n: int) -> int:
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        return n

    @workflow
    def held() -> int:
        return hold.bind(begin.bind())
    """
)


def test_top_shows_what_runs_and_how_it_ends_until_ctrl_c(perdure: Any) -> None:
    perdure.write("held.py", HELD)
    driven = perdure.start("run", "--id", "monday", "held.py")
    perdure.wait_for_file("begun", driven)
    terminal = Terminal(
        ["-m", "perdure", "top", "--every", "0.1"], perdure.folder, columns=130, TERM="xterm"
    )
    try:
        running = terminal.wait_for(lambda shown: "hold" in shown)
        perdure.write("go", "")
        ended = terminal.wait_for(lambda shown: "SUCCEEDED" in shown)
        terminal.process.send_signal(signal.SIGINT)
        code = terminal.wait()
    finally:
        terminal.close()

    assert "monday" in running
    assert "1/2" in running
    assert f"process {driven.pid} on " in running
    assert "drives its own runs" in running
    assert "ago" in ended
    assert code == 130
    assert b"Traceback" not in terminal.sent
    assert terminal.sent.rindex(b"\x1b[?25h") > terminal.sent.rindex(b"\x1b[?25l")


def test_q_ends_top(perdure: Any) -> None:
    perdure.write("held.py", HELD)
    perdure("run", "--detach", "--id", "later", "held.py")
    terminal = Terminal(["-m", "perdure", "top"], perdure.folder, columns=130)
    try:
        terminal.wait_for(lambda shown: "QUEUED" in shown)
        terminal.type("xq")
        code = terminal.wait()
    finally:
        terminal.close()

    assert code == 0
    assert "xq" not in terminal.shown


def test_top_without_a_store_or_a_run_says_so(perdure: Any) -> None:
    nowhere = perdure("top", "--once")
    perdure.write("held.py", HELD)
    perdure("run", "--detach", "--id", "later", "held.py")
    perdure("cancel", "later")
    perdure("delete", "--yes", "later")
    nothing = perdure("top")

    assert nowhere.code == nothing.code == 0
    assert "no runs: there is no store" in nowhere.err
    assert nothing.out.splitlines()[0] == "no runs go on"
    assert "nobody drives runs: `perdure up` does" in nothing.out


def test_top_without_a_store_has_its_shape_in_json(perdure: Any) -> None:
    told = json.loads(perdure("top", "--json").out)

    assert told["runs"] == told["coordinators"] == []


def test_top_waits_for_a_store(perdure: Any) -> None:
    perdure.write("held.py", HELD)
    terminal = Terminal(["-m", "perdure", "top", "--every", "0.1"], perdure.folder, columns=130)
    try:
        nothing = terminal.wait_for(lambda shown: "no runs: there is no store" in shown)
        perdure("run", "--detach", "--id", "later", "held.py")
        found = terminal.wait_for(lambda shown: "QUEUED" in shown)
        terminal.process.send_signal(signal.SIGINT)
        code = terminal.wait()
    finally:
        terminal.close()

    assert "perdure run TARGET" in nothing
    assert "later" in found
    assert code == 130


def test_small_terminal_shows_the_runs_that_go_on(inline: Perdure, tmp_path: Path) -> None:
    for n in range(5):
        with pytest.raises(RunFailed):
            inline.run(steps.broken, run_id=f"ended-{n}")
    inline.submit(steps.three, run_id="goes-on")
    terminal = Terminal(
        ["-m", "perdure", "top", "--store", str(tmp_path / "store" / "perdure.db")],
        tmp_path,
        columns=50,
        lines=10,
    )
    try:
        shown = terminal.wait_for(lambda shown: "higher" in shown)
    finally:
        terminal.close()

    assert "QUEUED" in shown
    assert "DRIVEN" in shown.splitlines()[0]
    assert "more runs: make the terminal higher" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("columns", "lines", "runs"), [(80, 24, 12), (80, 14, 5), (50, 10, 1), (200, 4, 1)]
)
def test_terminal_is_filled_with_runs_before_any_is_left_out(
    monkeypatch: pytest.MonkeyPatch, columns: int, lines: int, runs: int
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    many = tuple(
        ActiveRunView(id=f"run-{n}", workflow="naps", status="RUNNING", since=now, age_s=9.0)
        for n in range(12)
    )
    processes = (CoordinatorView(pid=1, host="here", workers=2, runs=2, serves=False),)
    view = ActivityView(at=now, runs=many, coordinators=processes)
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Console(width=columns, height=lines, file=io.StringIO())

    picture = _fitting(view, screen)

    with screen.capture() as captured:
        screen.print(picture)
    told = captured.get()
    assert len(re.findall("run-", told)) >= runs
    assert len(told.splitlines()) < lines


def test_steps_of_runs_that_have_ended_are_not_counted(inline: Perdure) -> None:
    inline.run(steps.different(2), run_id="r")

    [ended] = Activity(inline.runtime, 10).look().runs

    assert (ended.done, ended.failed, ended.total) == (None, None, None)


def test_step_that_runs_is_named_with_who_drives_it(inline: Perdure, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    inline.run(steps.watched_activity, run_id="r", store=inline.settings.store, path=str(seen))

    told = json.loads(seen.read_text())

    (run,) = told["runs"]
    assert run["id"] == "r"
    assert run["status"] == "RUNNING"
    assert (run["done"], run["running"], run["total"]) == (1, 1, 2)
    assert run["steps"] == ["watch_activity"]
    (coordinator,) = told["coordinators"]
    assert run["driver"] == f"process {coordinator['pid']} on {coordinator['host']}"
    assert coordinator["runs"] == 1
    assert not coordinator["serves"]


def test_runs_that_go_on_come_before_those_that_ended(inline: Perdure) -> None:
    with pytest.raises(RunFailed):
        inline.run(steps.broken, run_id="failed")
    waiting = inline.start(steps.waiting, run_id="waiting")
    inline.wait_for(lambda: waiting.status == "WAITING")

    view = Activity(inline.runtime, 10).look()

    assert [(run.id, run.status) for run in view.runs] == [
        ("waiting", "WAITING"),
        ("failed", "FAILED"),
    ]
    assert view.runs[0].waits.startswith("its time until ")
    assert (view.runs[0].done, view.runs[0].total) == (1, 4)
    assert view.are_all


def test_run_is_followed_from_one_look_to_the_next(inline: Perdure) -> None:
    waiting = inline.start(steps.waiting, run_id="r")
    inline.wait_for(lambda: waiting.status == "WAITING")
    activity = Activity(inline.runtime, 1)
    before = activity.look()
    inline.signal("r", "approve", True)
    inline.resume("r")
    inline.wait_for(lambda: inline.get_run("r")["wait_signal"].status == "SUCCEEDED")

    after = activity.look()

    assert (before.runs[0].done, after.runs[0].done) == (1, 2)


def test_more_runs_than_fit_are_spoken_of(inline: Perdure) -> None:
    for n in range(3):
        inline.submit(steps.three, run_id=f"r{n}")

    view = Activity(inline.runtime, 2).look()

    assert [run.status for run in view.runs] == ["QUEUED", "QUEUED"]
    assert not view.are_all
