"""What runs again after an edit, row by row of the table in ``docs/howto/what-runs-again.md``.

A small project is run twice: once to its end, once until its last step fails. For each row it is
edited, and run again in a new process, taking over what has not changed: of the one run into a new
one, of the other under its id. What ran is counted outside of perdure, and the result is compared
with that of the edited project run afresh.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "what-runs-again.md"
DRIVER = Path(__file__).parent / "edited_project.py"

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
    with open("ran", "a") as file:
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
    if os.path.exists("fail"):
        raise ValueError("fail")
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
    inputs: dict[str, int] = field(default_factory=dict)


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
        inputs={"n": 4},
    ),
    Edit(
        "items inserted at the front of a map",
        ["load", *OF_LIST, "item -1", "total"],
        "list(range(n))",
        "list(range(-1, n))",
    ),
    Edit("a `Static` parameter that nothing uses", [], inputs={"times": 2}),
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


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".perdure").mkdir()
    files = {"flow.py": FLOW, "prep.py": PREP, "data.txt": "one"}
    edits = [[e.row, e.file if e.old else "", e.old, e.new, e.inputs] for e in EDITS]
    done = subprocess.run(
        [sys.executable, "-B", DRIVER],
        cwd=folder,
        env={**os.environ, "PERDURE_EXECUTOR": "inline"},
        input=json.dumps({"files": files, "edits": edits}),
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )
    assert "FOUND" in done.stdout, done.stdout + done.stderr
    rows: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND")[2])
    return rows


@pytest.mark.parametrize("edit", EDITS, ids=[edit.row for edit in EDITS])
def test_after_an_edit_runs_what_it_reaches_and_nothing_else(
    edit: Edit, found: dict[str, Any]
) -> None:
    result, ran = found[edit.row]["reuse"]

    assert ran == sorted(edit.ran)
    assert result == found[edit.row]["afresh"] or edit.row in UNSEEN, "silent reuse"


@pytest.mark.parametrize("edit", EDITS, ids=[edit.row for edit in EDITS])
def test_under_the_id_of_a_failed_run_the_same_runs_and_what_had_failed(
    edit: Edit, found: dict[str, Any]
) -> None:
    result, ran = found[edit.row]["same id"]

    assert ran == sorted({*edit.ran, "total"})
    assert result == found[edit.row]["afresh"] or edit.row in UNSEEN, "silent reuse"


def test_page_has_a_row_for_each_edit() -> None:
    table = PAGE.read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)

    assert [row for row in rows if row not in ("what is edited", "---")] == [e.row for e in EDITS]
