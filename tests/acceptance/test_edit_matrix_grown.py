"""What runs again after an edit of graphs that grow, and under the id of a run that had failed.

Row by row of the tables in ``docs/howto/what-runs-again.md``.
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
DRIVER = Path(__file__).parent / "edited_project.py"

FLOW = """\
import os
import perdure
from perdure import task, workflow
from names import named
from moved import moves
import fakelib


def ran(name):
    with open("ran", "a") as file:
        file.write(name + "\\n")


@task
def listing(n):
    ran("listing")
    return list(range(n))


@task
def keyed(x):
    ran(f"keyed {x}")
    return x * 2


@task
def above(x):
    ran(f"above {x}")
    return x % 10


@task
def below(x):
    ran(f"below {x}")
    return x + 1


@task
def chunked(x):
    ran(f"chunked {x}")
    return x - 1


@task
def is_long(xs):
    ran("is_long")
    return len(xs) > 2


@task
def yes(xs):
    ran("yes")
    return "yes"


@task
def no(xs):
    ran("no")
    return "no"


def enough(x):
    return x >= 3


@task
def body(x):
    ran(f"body {x}")
    return x + 1


@task
def leaf(x):
    ran(f"leaf {x}")
    return x + 100


@task
def down(n):
    ran(f"down {n}")
    return leaf.bind(n) if n == 0 else down.bind(n - 1)


@task
def by_library(n):
    ran("by_library")
    return fakelib.twice(n)


@task
def total(*parts):
    ran("total")
    if os.path.exists("fail"):
        raise ValueError("fail")
    return repr(parts)


@workflow
def flow(n: int = 3):
    xs = listing.bind(n)
    return total.bind(
        keyed.options(key=named).map(xs),
        below.map(above.map(xs)),
        chunked.options(chunk=2).map(xs),
        perdure.when(is_long.bind(xs), yes.bind(xs), no.bind(xs)),
        perdure.loop(body, 0, until=enough, max_iterations=10),
        down.bind(2),
        by_library.bind(n),
        moves.bind(n),
    )
"""
MOVED = """\
from perdure import task


@task
def moves(n):
    with open("ran", "a") as file:
        file.write("moves\\n")
    return n
"""
FILES = {
    "flow.py": FLOW,
    "names.py": 'def named(x):\n    return f"k{x}"\n',
    "moved.py": MOVED,
    "moved_to.py": MOVED,
    "site-packages/fakelib.py": '__version__ = "1"\n\n\ndef twice(x):\n    return 2 * x\n',
}
CHUNKS = ["chunked 0", "chunked 1", "chunked 2"]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the project, and what is to run after it when a whole run is taken over."""

    row: str
    ran: list[str]
    old: str = ""
    new: str = ""
    file: str = "flow.py"
    is_seen: bool = True


EDITS = [
    Edit("nothing", []),
    Edit(
        "an item in front: of a map, of a map over a map, of one with `key=`",
        ["above -1", "below 9", "chunked -1", *CHUNKS, "is_long", "keyed -1", "listing", "total",
         "yes"],
        "list(range(n))",
        "list(range(-1, n))",
    ),
    Edit(
        "an item that comes to what another one came to",
        ["above 10", "below 0", "chunked 10", "is_long", "keyed 10", "listing", "total", "yes",
         "chunked 2"],
        "list(range(n))",
        "[*range(n), 10]",
    ),
    Edit(
        "the first stage of a map over a map, to the same values",
        ["above 0", "above 1", "above 2"],
        "x % 10",
        "x % 11",
    ),
    Edit(
        "the first stage of a map over a map, to others",
        ["above 0", "above 1", "above 2", "below 100", "below 101", "below 102", "total"],
        "x % 10",
        "x + 100",
    ),
    Edit("what `key=` calls an item", [], "k{x}", "q{x}", "names.py"),
    Edit("the task of chunks", [*CHUNKS, "total"], "x - 1", "x - 2"),
    Edit("how many items a chunk has", [], "chunk=2", "chunk=3"),
    Edit("a branch that is chosen", ["total", "yes"], 'return "yes"', 'return "YES"'),
    Edit("a branch that is not chosen", [], 'return "no"', 'return "NO"'),
    Edit("a condition, to the same answer", ["is_long"], "> 2", ">= 3"),
    Edit("a condition, to another answer", ["is_long", "no", "total"], "> 2", "> 3"),
    Edit(
        "the body of a loop",
        ["body 0", "body 1.0", "body 2.0", "total"],
        'ran(f"body {x}")\n    return x + 1',
        'ran(f"body {x}")\n    return x + 1.0',
    ),
    Edit("when a loop ends", ["total"], "x >= 3", "x >= 2"),
    Edit("how many rounds a loop may have", [], "max_iterations=10", "max_iterations=11"),
    Edit(
        "a function of a chain of calls",
        ["down 0", "down 1", "down 2", "leaf 0", "total"],
        "x + 100",
        "x + 101",
    ),
    Edit("a task that is moved to another module", [], "from moved ", "from moved_to "),
    Edit(
        "an installed package, to another version",
        [],
        'version__ = "1"\n\n\ndef twice(x):\n    return 2 * x',
        'version__ = "2"\n\n\ndef twice(x):\n    return 3 * x',
        "site-packages/fakelib.py",
        is_seen=False,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".perdure").mkdir()
    edits = [[e.row, e.file if e.old else "", e.old, e.new, {}] for e in EDITS]
    done = subprocess.run(
        [sys.executable, "-B", DRIVER],
        cwd=folder,
        env={**os.environ, "PERDURE_EXECUTOR": "inline"},
        input=json.dumps({"files": FILES, "edits": edits}),
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
    assert result == found[edit.row]["afresh"] or not edit.is_seen, "silent reuse"


@pytest.mark.parametrize("edit", EDITS, ids=[edit.row for edit in EDITS])
def test_under_the_id_of_a_failed_run_the_same_runs_and_what_had_failed(
    edit: Edit, found: dict[str, Any]
) -> None:
    result, ran = found[edit.row]["same id"]

    assert ran == sorted({*edit.ran, "total"})
    assert result == found[edit.row]["afresh"] or not edit.is_seen, "silent reuse"


def test_page_has_a_row_for_each_edit_of_a_graph() -> None:
    table = PAGE.read_text().partition("## In graphs that grow")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)

    assert [row for row in rows if row not in ("what is edited", "---")] == [e.row for e in EDITS]
