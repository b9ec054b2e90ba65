"""``perdure demo`` as a newcomer meets it; most tests look at one that has been played."""

from __future__ import annotations

import ast
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import perdure.cli

EXAMPLE = Path(perdure.cli.__file__).parent / "demo_example" / "demo.py"
STEPS = 16


@dataclass(frozen=True)
class Played:
    """A demo that has ended; ``inside`` is the command line in its folder."""

    ended: Any
    outside: Any
    inside: Any

    def count(self, what: str) -> int:
        found = re.search(rf"^ +(\d+)  {re.escape(what)}", self.ended.out, re.MULTILINE)
        assert found is not None, self.ended.out
        return int(found[1])


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, command_line_in: Callable[[Path], Any]
) -> Played:
    """Played under settings that name another store: they must not matter to it."""
    folder = tmp_path_factory.mktemp("demo")
    outside = command_line_in(folder)
    ended = outside("demo", PERDURE_STORE=str(folder / "team.db"), PERDURE_EXECUTOR="inline")
    return Played(ended, outside, command_line_in(folder / "perdure-demo"))


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile, or is another user's
            continue
    return found


def test_demo_kills_and_resumes_a_run_and_prints_the_whole_picture(played: Played) -> None:
    lines = played.ended.out.splitlines()

    assert played.ended.code == 0, played.ended.err
    assert sum(len(line) >= 60 and "..." in line for line in lines) >= 8
    assert any(line.strip() == "drawn by perdure" for line in lines)
    assert "Traceback" not in played.ended.err


def test_demo_counts_what_ran_as_the_steps_own_file_has_it(played: Played) -> None:
    lines = (played.inside.folder / "ran.txt").read_text().splitlines()
    began = [line.split()[0] for line in lines]

    assert len(set(began)) == STEPS
    assert len(began) - STEPS == played.count("were running when it came")
    assert played.count("ran after it") == STEPS - played.count("were committed before the kill")
    assert STEPS / 2 <= played.count("were committed before the kill") < STEPS
    assert played.count("ran twice though they were committed") == 0


def test_demo_counts_as_the_store_does(played: Played) -> None:
    run = json.loads(played.inside("show", "--json", "demo").out)
    again = [step["id"] for step in run["steps"] if step["attempts"] == 2]

    assert run["status"] == "SUCCEEDED"
    assert len(again) == played.count("were running when it came")


def test_demo_leaves_no_process_and_no_run_elsewhere(played: Played) -> None:
    assert processes_in(played.outside.folder) == []
    assert [path.name for path in played.outside.folder.iterdir()] == ["perdure-demo"]


def test_demo_says_how_to_reach_its_store_where_settings_name_another(played: Played) -> None:
    exports = re.findall(r"export (PERDURE_\w+)=(\S+)", played.ended.out)

    seen = played.inside("show", "demo", **{"PERDURE_STORE": "elsewhere.db", **dict(exports)})

    assert seen.code == 0, seen.err


def test_users_go_on_in_the_folder_with_the_command_that_the_demo_names(played: Played) -> None:
    command = re.search(r'perdure (run --reuse demo) demo.py --title "Hello"', played.ended.out)
    assert command is not None, played.ended.out

    ended = played.inside(*command[1].split(), "demo.py", "--title", "Hello")

    assert ended.code == 0, ended.err
    assert ended.out.rstrip().endswith("Hello")
    assert "reused 15 of 16" in ended.err


def test_second_demo_overwrites_nothing_and_names_another_folder(played: Played) -> None:
    names = ["demo.py", "ran.txt"]
    before = [(played.inside.folder / name).read_bytes() for name in names]

    again = played.outside("demo")

    assert again.code == 2
    assert "perdure demo --folder perdure-demo-2" in again.err
    assert [(played.inside.folder / name).read_bytes() for name in names] == before


def test_demo_leaves_somebodys_folder_alone(perdure: Any) -> None:
    (perdure.folder / "mine").mkdir()
    path = perdure.write("mine/thesis.txt", "all of it")

    refused = perdure("demo", "--folder", "mine")
    on_a_file = perdure("demo", "--folder", path)

    assert (refused.code, on_a_file.code) == (2, 2)
    assert "mine is there already" in refused.err
    assert [each.name for each in (perdure.folder / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_demo_that_is_stopped_ends_all_its_processes_and_says_how_to_go_on(
    perdure: Any, number: signal.Signals
) -> None:
    process = perdure.start("demo", "--folder", "here")
    perdure.wait_for_file("here/ran.txt", process)

    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "cd here, then perdure resume demo" in err
    assert "Traceback" not in err
    assert processes_in(perdure.folder) == []


def test_example_needs_nothing_but_python_and_perdure() -> None:
    tree = ast.parse(EXAMPLE.read_text())

    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else names_of(node))
    }

    assert imported - set(sys.stdlib_module_names) == {"perdure"}


def names_of(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]
