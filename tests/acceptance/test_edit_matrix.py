"""What runs again after an edit, row by row of the table in ``docs/howto/what-runs-again.md``.

A small project is run once. For each row it is copied with its store, edited, and run again in a
new process, taking over what has not changed. What ran is counted outside of perdure, and the
result is compared with that of the edited project run afresh.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "what-runs-again.md"

FLOW = '''\
import os
from dataclasses import dataclass
from enum import Enum

from perdure import Static, task, workflow

from prep import scale

FACTOR = 2


class Mode(Enum):
    FAST = "fast"


@dataclass
class Point:
    x: int
    y: int = 0


class Base:
    def shift(self, x):
        return x + 0


class Model(Base):
    def fit(self, x):
        return self.shift(x) * 3


def ran(name):
    with open(os.environ["RAN"], "a") as file:
        file.write(name + "\\n")


def helper(x):
    return x + 1


def make(n):
    def inner(x):
        return x + n

    return inner


closed = make(1)
by_lambda = lambda x: x - 1


@task
def load(n):
    """Load numbers."""
    # as many as were asked for
    ran("load")
    items = list(range(n))
    return items


@task(retries=1)
def constant(xs):
    ran("constant")
    return [x * FACTOR for x in xs]


@task
def helped(xs):
    ran("helped")
    return [helper(x) for x in xs]


@task
def scaled(xs):
    ran("scaled")
    return [scale(x) for x in xs]


@task
def modelled(xs):
    ran("modelled")
    return [Model().fit(x) for x in xs]


@task
def closing(xs):
    ran("closing")
    return [closed(x) for x in xs]


@task
def lambdas(xs):
    ran("lambdas")
    return [by_lambda(x) for x in xs]


@task
def pointed(xs):
    ran("pointed")
    return sum(Point(x).x for x in xs)


@task
def moded(xs):
    ran("moded")
    return Mode.FAST.value


@task
def importing(xs):
    from prep import offset

    ran("importing")
    return [x + offset for x in xs]


@task
def reading(path):
    ran("reading")
    return open(path).read()


@task
def item(x, k=10):
    ran(f"item {x}")
    return x + k


@task
def total(*parts):
    ran("total")
    return repr(parts)


@workflow
def flow(n: int = 3, times: Static[int] = 1):
    xs = load.bind(n)
    parts = [
        constant.bind(xs),
        helped.bind(xs),
        scaled.bind(xs),
        modelled.bind(xs),
        closing.bind(xs),
        lambdas.bind(xs),
        pointed.bind(xs),
        moded.bind(xs),
        importing.bind(xs),
        reading.bind("data.txt"),
        item.map(xs),
    ]
    return total.bind(*parts)
'''

PREP = """\
offset = 5


def scale(x):
    return x / 10
"""
OF_LIST = ["constant", "helped", "scaled", "modelled", "closing", "lambdas", "pointed", "moded",
           "importing"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the project, or of how it is called, and what is to run after it."""

    row: str
    ran: list[str]
    old: str = ""
    new: str = ""
    file: str = "flow.py"
    words: list[str] = field(default_factory=list)


EDITS = [
    Edit("nothing", []),
    Edit("a comment", [], "# as many as were asked for", "# just as many"),
    Edit("a docstring", [], '"""Load numbers."""', '"""Load the first numbers."""'),
    Edit(
        "whitespace, line breaks, brackets",
        [],
        "list(range(n))",
        "(list(\n        range( n )\n    ))",
    ),
    Edit(
        "the name of a local variable",
        [],
        "items = list(range(n))\n    return items",
        "found = list(range(n))\n    return found",
    ),
    Edit("an annotation", ["load"], "def load(n):", "def load(n: int):"),
    Edit("a default of a parameter", ["item 0", "item 1", "item 2", "total"], "k=10", "k=11"),
    Edit(
        "a signature",
        ["item 0", "item 1", "item 2"],
        'def item(x, k=10):\n    ran(f"item {x}")\n    return x + k',
        'def item(y, k=10):\n    ran(f"item {y}")\n    return y + k',
    ),
    Edit("a module constant", ["constant", "total"], "FACTOR = 2", "FACTOR = 3"),
    Edit("a helper in the same file", ["helped", "total"], "return x + 1", "return x + 2"),
    Edit("a helper, to the same values", ["helped"], "return x + 1", "return 1 + x"),
    Edit("a helper in another file", ["scaled", "total"], "x / 10", "x / 20", "prep.py"),
    Edit(
        "what a function-level import brings",
        ["importing", "total"],
        "offset = 5",
        "offset = 6",
        "prep.py",
    ),
    Edit("a method", ["modelled", "total"], "* 3", "* 4"),
    Edit("a base class", ["modelled", "total"], "return x + 0", "return x + 9"),
    Edit("a value in a closure", ["closing", "total"], "closed = make(1)", "closed = make(2)"),
    Edit("a lambda", ["lambdas", "total"], "lambda x: x - 1", "lambda x: x - 2"),
    Edit("a field of a dataclass", ["pointed"], "y: int = 0", "y: int = 1"),
    Edit("a member of an enum", ["moded", "total"], 'FAST = "fast"', 'FAST = "quick"'),
    Edit(
        "an option that enters no result",
        [],
        "@task(retries=1)",
        "@task(retries=5, lost_retries=9, cpus=0.5)",
    ),
    Edit(
        "`catch=` or `outputs=`", ["constant"], "@task(retries=1)", "@task(retries=1, catch=True)"
    ),
    Edit(
        "`version=`, given for the first time",
        ["constant"],
        "@task(retries=1)",
        '@task(retries=1, version="2")',
    ),
    Edit(
        "the child task of a map",
        ["item 0", "item 1", "item 2", "total"],
        "return x + k",
        "return x + k + 1",
    ),
    Edit(
        "an input, with one more item at the end",
        ["load", *OF_LIST, "item 3", "total"],
        words=["--n", "4"],
    ),
    Edit(
        "items inserted at the front of a map",
        ["load", *OF_LIST, "item -1", "total"],
        "list(range(n))",
        "list(range(-1, n))",
    ),
    Edit("a `Static` parameter that nothing uses", [], words=["--times", "2"]),
    Edit(
        "a call that is inserted",
        ["helped", "total"],
        "helped.bind(xs),",
        "helped.bind(xs),\n        helped.bind([7]),",
    ),
    Edit("a call that is removed", ["total"], "        helped.bind(xs),\n", ""),
    Edit(
        "calls in another order",
        ["total"],
        "constant.bind(xs),\n        helped.bind(xs),",
        "helped.bind(xs),\n        constant.bind(xs),",
    ),
    Edit("a data file that a step reads", [], "one", "two", "data.txt"),
]

UNSEEN = {"a data file that a step reads"}
"""Rows in which perdure cannot see that the result is another: the page says so."""


def perdure(folder: Path, *words: str) -> str:
    """Run the project and return its result."""
    command = [sys.executable, "-m", "perdure", "run", "--executor", "inline"]
    flags = [word for word in words if word.startswith(("--id=", "--reuse="))]
    rest = [word for word in words if word not in flags]
    done = subprocess.run(
        [*command, *flags, "flow.py:flow", *rest],
        cwd=folder,
        env={**os.environ, "RAN": str(folder / "ran")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def what_ran(folder: Path) -> list[str]:
    path = folder / "ran"
    return sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that has run once, as ``one``."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "flow.py").write_text(FLOW)
    (folder / "prep.py").write_text(PREP)
    (folder / "data.txt").write_text("one")
    perdure(folder, "--id=one")
    assert len(what_ran(folder)) == 15
    (folder / "ran").unlink()
    return folder


@pytest.mark.parametrize("edit", EDITS, ids=[edit.row for edit in EDITS])
def test_after_an_edit_runs_what_it_reaches_and_nothing_else(
    edit: Edit, project: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(project, tmp_path / "edited")
    path = folder / edit.file
    assert edit.old in path.read_text()
    path.write_text(path.read_text().replace(edit.old, edit.new, 1))

    result = perdure(folder, "--id=two", "--reuse=one", *edit.words)

    assert what_ran(folder) == sorted(edit.ran)
    if edit.ran and edit.row not in UNSEEN:
        assert result == perdure(folder, "--id=afresh", *edit.words), "silent reuse"


def test_page_has_a_row_for_each_edit() -> None:
    table = PAGE.read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)

    assert [row for row in rows if row not in ("what is edited", "---")] == [e.row for e in EDITS]
