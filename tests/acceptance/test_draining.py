"""`perdure up` that is told to end: what runs may end, and the runs go to others."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest
from msgspec.structs import replace
from tests.crash.ledger import wait_until

import perdure as library
from perdure_storage.contract_samples import an_owner

FLOW = """
import os, time
from pathlib import Path
from perdure import current, task, workflow

@task
def first() -> int:
    with open("began", "a") as file:
        file.write("x")
    Path("begun").touch()
    while not Path("go").exists():
        time.sleep(0.02)
    return 1

@task
def second(n: int) -> int:
    return n + 1

@workflow
def flow():
    return second.bind(first.bind())

@task
def counts() -> int:
    here = current()
    saved = here.load()
    at = saved.at if saved is not None else 0
    while at < 1_000_000 and not Path("go").exists():
        at += 1
        here.save(at, at=at)
        Path("begun").touch()
        if here.should_stop():
            here.stop()
        time.sleep(0.01)
    return at

@workflow
def counting():
    return counts.bind()
"""


@pytest.fixture
def up(perdure: Any) -> Any:
    """Start a coordinator on a run whose first step goes on until ``go`` is there."""
    perdure.write("w.py", FLOW)

    def start(workflow: str = "flow", *words: str) -> Any:
        perdure("run", "--detach", "--id", "one", f"w.py:{workflow}")
        process = perdure.start("up", "--no-http", *words)
        perdure.wait_for_file("begun", process)
        return process

    return start


def status(perdure: Any) -> str:
    shown: str = perdure("show", "one").out
    return next(word for word in ("QUEUED", "RUNNING", "SUCCEEDED", "NOT DRIVEN") if word in shown)


def test_step_that_ends_in_time_is_committed_and_no_other_begins(perdure: Any, up: Any) -> None:
    process = up()

    process.send_signal(signal.SIGTERM)
    (perdure.folder / "go").touch()
    _, said = process.communicate(timeout=30)
    left = perdure("show", "one", "--json")
    ended = perdure("resume", "one")

    assert process.returncode == 0, said
    assert '"status": "QUEUED"' in left.out
    assert (ended.code, ended.out) == (0, "2\n")
    assert (perdure.folder / "began").read_text() == "x"


def test_step_that_is_asked_to_stop_goes_on_from_its_save_elsewhere(perdure: Any, up: Any) -> None:
    process = up("counting")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    (perdure.folder / "go").touch()
    ended = perdure("resume", "one")

    assert process.returncode == 0
    assert ended.code == 0, ended.err
    assert int(ended.out) >= 1


@pytest.mark.parametrize("how", ["drain", "hurry"])
def test_step_that_takes_longer_is_cut_off_and_runs_again(perdure: Any, up: Any, how: str) -> None:
    process = up("flow", "--drain", "500ms" if how == "drain" else "1h")

    process.send_signal(signal.SIGTERM)
    if how == "hurry":
        assert status(perdure) == "RUNNING"
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    (perdure.folder / "go").touch()
    ended = perdure("resume", "one")

    assert process.returncode == 0
    assert (ended.code, ended.out) == (0, "2\n")
    assert (perdure.folder / "began").read_text() == "xx"


# --- what a host lacks ----------------------------------------------------------------------------
LACKING = """
{0}import only_there
from perdure import task, workflow

@task
def there() -> int:
    {1}import only_there
    return only_there.N

@workflow
def flow():
    return there.bind()
"""


@pytest.fixture(params=["of the file", "of the step"])
def there(perdure: Any, request: pytest.FixtureRequest) -> str:
    """Return the folder of a package that only who names it has, and an import of it needs."""
    folder = perdure.folder / "packages" / "lib" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "only_there.py").write_text("N = 7\n")
    marks = ("", "# ") if request.param == "of the file" else ("# ", "")
    perdure.write("lacking.py", LACKING.format(*marks))
    return str(folder)


def serving(perdure: Any, **environment: str) -> Any:
    process = perdure.start("up", "--no-http", "--json", **environment)
    process.stdout.readline()
    return process


def test_run_is_left_to_a_host_that_has_what_is_lacking_here(perdure: Any, there: str) -> None:
    perdure("run", "--detach", "--id", "one", "lacking.py", PYTHONPATH=there)
    with library.open(str(perdure.folder / ".perdure" / "perdure.db")) as client:
        # Somebody else who serves, of whom nothing is known but that.
        other = replace(an_owner("other", host="elsewhere"), serves=True)
        client.runtime.store.register(other, 600.0)
        serving(perdure)
        run = client.get_run("one")
        wait_until(lambda: "only_there" in run.waits_for_host, 60, "nobody says why it waits")

    told = " ".join(perdure("show", "one").out.split())
    serving(perdure, PYTHONPATH=there)
    ended = perdure("run", "--id", "one", "lacking.py", PYTHONPATH=there)

    why = " ".join(perdure("why", "one", "there").out.split())
    assert "waits for another host: process " in told
    assert f"on {socket.gethostname()} left its run to another host: " in why
    assert "No module named 'only_there'" in told
    assert (ended.code, ended.out) == (0, "7\n"), ended.err


def test_run_fails_where_every_host_lacks_it(perdure: Any, there: str) -> None:
    serving(perdure)
    serving(perdure)

    perdure("run", "--detach", "--id", "one", "lacking.py", PYTHONPATH=there)
    wait_until(lambda: "FAILED" in perdure("show", "one").out, 40, "it does not fail")

    assert "only_there" in perdure("show", "one").out
