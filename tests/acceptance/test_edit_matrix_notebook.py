"""What runs again after a cell was edited, row by row of the second table of its page.

The cells run in IPython. Each is edited and run again, once in the session that made the run that
is taken over, and once after a restart of the kernel.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "what-runs-again.md"
SESSION = Path(__file__).parent / "notebook_session.py"

CELLS = {
    "setup": """
import os
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from perdure import task, workflow
FACTOR = 2
KNOB = SimpleNamespace(turn=1, marks={"a", "b", "c"})
def ran(name):
    with open("ran", "a") as file:
        file.write(name + "\\n")
""",
    "helper": """
def scale(x):
    return x * FACTOR
def shift(x):
    return x + 1
""",
    "classes": """
@dataclass
class Point:
    x: int
    def norm(self):
        return abs(self.x)
class Mode(Enum):
    FAST = "fast"
class Model:
    def fit(self, x):
        return shift(x)
""",
    "later": "pass",
    "tasks": """
@task
def load(n):
    ran("load")
    return list(range(n))
@task
def points(xs):
    ran("points")
    return [Point(x) for x in xs]
@task
def norms(points):
    ran("norms")
    return [each.norm() for each in points]
@task
def mode(xs):
    ran("mode")
    return Mode.FAST
@task
def shown(mode):
    ran("shown")
    return mode.value
@task
def model(xs):
    ran("model")
    return [Model().fit(x) for x in xs]
@task
def turned(xs):
    ran("turned")
    return [x * KNOB.turn for x in xs]
@task
def total(*parts):
    ran("total")
    return repr(parts)
""",
    "fit": """
@task
def fit(xs):
    ran("fit")
    return [scale(x) for x in xs]
""",
    "item": """
@task
def item(x):
    ran(f"item {x}")
    return x - 1
""",
    "flow": """
@workflow
def flow(n: int = 3):
    xs = load.bind(n)
    return total.bind(
        fit.bind(xs),
        norms.bind(points.bind(xs)),
        shown.bind(mode.bind(xs)),
        model.bind(xs),
        turned.bind(xs),
        item.map(xs),
    )
""",
}


@dataclass(frozen=True, slots=True)
class Edit:
    """A cell that is run again with another text; all cells if it has no name."""

    row: str
    ran: list[str]
    cell: str = ""
    old: str = ""
    new: str = ""


EDITS = [
    Edit("nothing; the cells are run again, under other numbers", []),
    Edit("a comment in a cell", [], "fit", "return", "# as it is\n    return"),
    Edit("a task", ["fit", "total"], "fit", "scale(x)", "scale(x) + 1"),
    Edit("a task, to the same values", ["fit"], "fit", "scale(x)", "scale(x) + 0"),
    Edit("a helper in another cell", ["fit", "total"], "helper", "* FACTOR", "* FACTOR * 2"),
    Edit("a constant in another cell", ["fit", "total"], "setup", "FACTOR = 2", "FACTOR = 3"),
    Edit(
        "an object of a plain class in another cell",
        ["total", "turned"],
        "setup",
        "turn=1",
        "turn=2",
    ),
    Edit(
        "a method of a class that a step uses", ["model", "total"], "classes", "shift(x)", "x + 2"
    ),
    Edit(
        "the same, by assignment in a later cell",
        ["model", "total"],
        "later",
        "pass",
        "Model.fit = lambda self, x: x + 3",
    ),
    Edit("a helper that such a method calls", ["model", "total"], "helper", "x + 1", "x + 4"),
    Edit(
        "a method of a dataclass whose objects steps hand on",
        ["norms", "points", "total"],
        "classes",
        "abs(self.x)",
        "abs(self.x) + 1",
    ),
    Edit(
        "a field of such a dataclass",
        ["norms", "points"],
        "classes",
        "x: int",
        "x: int\n    y: int = 0",
    ),
    Edit(
        "a member of an enum that steps hand on",
        ["mode", "shown", "total"],
        "classes",
        '"fast"',
        '"quick"',
    ),
    Edit("the task of a map", ["item 0", "item 1", "item 2", "total"], "item", "x - 1", "x - 2"),
]


def session(folder: Path, *, first: bool, executor: str) -> dict[str, Any]:
    """Run the cells and the edits in a kernel of its own; return what became of each row."""
    edits = [[edit.row, edit.cell, edit.old, edit.new] for edit in EDITS]
    done = subprocess.run(
        [sys.executable, SESSION],
        cwd=folder,
        env={**os.environ, "PERDURE_EXECUTOR": executor, "IPYTHONDIR": str(folder / "ipython")},
        input=json.dumps({"cells": CELLS, "edits": edits, "first": first}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "FOUND" in done.stdout, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND")[2])
    return found


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / ".perdure").mkdir()
    return {
        "in the same kernel": session(folder, first=True, executor="processes"),
        "after a restart": session(folder, first=False, executor="inline"),
    }


@pytest.mark.parametrize("when", ["in the same kernel", "after a restart"])
@pytest.mark.parametrize("edit", EDITS, ids=[edit.row for edit in EDITS])
def test_after_a_cell_was_edited_runs_what_it_reaches_and_nothing_else(
    edit: Edit, when: str, sessions: dict[str, dict[str, Any]]
) -> None:
    found = sessions[when][edit.row]

    assert found["ran"] == edit.ran
    assert found["result"] == found["afresh"], "silent reuse"
    assert found["afresh"] == found["eager"], "it ran what the kernel does not have any more"


def test_page_has_a_row_for_each_edit_of_a_cell() -> None:
    text = PAGE.read_text()
    table = text.partition("## In a notebook")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)

    assert [row for row in rows if row not in ("what is edited", "---")] == [e.row for e in EDITS]
