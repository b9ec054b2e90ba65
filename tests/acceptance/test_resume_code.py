"""Which code a resumed run takes: the recorded one, or today's for what has not committed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.acceptance.conftest import CommandLine

HELPER = """
def scale(x):
    return x * FACTOR

FACTOR = 10
"""

FLOW = """
from perdure import task, workflow
from helper import scale


def note(name):
    with open("ledger", "a") as file:
        file.write(name + " ")


@task
def load(n: int) -> int:
    note("load")
    return scale(n)


@task
def check(x: int, limit: int) -> int:
    note("check")
    if x > limit:
        raise ValueError(f"{x} is too much")
    return x


@task
def report(x: int) -> str:
    note("report")
    return f"{x} it is"


@workflow
def flow(n: int = 3) -> str:
    return report.bind(check.bind(load.bind(n), 20))
"""


def project(perdure: CommandLine) -> Path:
    perdure.write("helper.py", HELPER)
    return perdure.write("flow.py", FLOW)


def ledger(perdure: CommandLine) -> list[str]:
    return (perdure.folder / "ledger").read_text().split()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_resume_takes_the_recorded_code_though_the_files_have_changed(
    perdure: CommandLine,
) -> None:
    path = project(perdure)
    first = perdure("run", "--id", "r", path)
    assert first.code == 1
    edit(path, "if x > limit", "if x > 10 * limit")

    again = perdure("resume", "r")

    assert again.code == 1
    assert "30 is too much" in again.err
    assert ledger(perdure) == ["load", "check", "check"]
    assert "(flow.py has changed since this code was recorded)" in again.err
    assert "raise ValueError" not in again.err


def test_line_that_raised_is_shown_once_also_with_traceback(perdure: CommandLine) -> None:
    path = project(perdure)

    plain = perdure("run", "--id", "r", path)
    full = perdure("resume", "--traceback", "r")

    assert plain.err.count("raise ValueError") == full.err.count("raise ValueError") == 1


def test_resume_with_current_code_runs_only_what_has_not_committed(perdure: CommandLine) -> None:
    path = project(perdure)
    failed = perdure("run", "--id", "r", path)
    assert "perdure resume r --code current" in failed.err
    edit(path, "if x > limit", "if x > 10 * limit")

    mended = perdure("resume", "r", "--code", "current")

    assert mended.code == 0, mended.err
    assert "30 it is" in mended.out
    assert ledger(perdure) == ["load", "check", "check", "report"]
    assert re.search("its code changed", perdure("why", "r", "check").out)


def test_resume_with_current_code_takes_todays_arguments_too(perdure: CommandLine) -> None:
    path = project(perdure)
    perdure("run", "--id", "r", path)
    edit(path, "load.bind(n), 20)", "load.bind(n), limit=50)")

    mended = perdure("resume", "r", "--code", "current")

    assert mended.code == 0, mended.err
    assert "30 it is" in mended.out
    assert ledger(perdure) == ["load", "check", "check", "report"]
    assert "its arguments changed" in perdure("why", "r", "check").out


@pytest.mark.parametrize(
    ("call", "mended", "result"),
    [
        ("wait_signal('x', timeout='0.1s')", "wait_signal('x', timeout='0.1s', default=7)", "7"),
        ("loop(more, 0, until=is_enough, max_iterations=2)", "loop(more, 0, until=is_enough, "
         "max_iterations=9)", "5"),
        ("sum_up.bind(more.map([1, 'two']))", "sum_up.bind(more.map([1, 2]))", "5"),
    ],
    ids=["a wait", "a loop", "items of a map"],
)  # fmt: skip
def test_call_that_is_mended_goes_on_as_the_message_says(
    perdure: CommandLine, call: str, mended: str, result: str
) -> None:
    path = perdure.write(
        "calls.py",
        f"""
import perdure
from perdure import task, workflow

@task
def more(x: int) -> int:
    return x + 1

@task
def sum_up(xs: list[int]) -> int:
    return sum(xs)

def is_enough(x: int) -> bool:
    return x >= 5

@workflow
def flow() -> int:
    return {"" if call.startswith("sum") else "perdure."}{call}
""",
    )
    failed = perdure("run", "--id", "r", path)
    assert "perdure resume r --code current" in failed.err, failed.err
    edit(path, call, mended)

    again = perdure("resume", "r", "--code", "current")

    assert again.out.strip() == result, again.err


def test_resume_with_current_code_refuses_other_ways_between_the_same_steps(
    perdure: CommandLine,
) -> None:
    path = project(perdure)
    perdure("run", "--id", "r", path)
    edit(
        path,
        "report.bind(check.bind(load.bind(n), 20))",
        "report.bind(check.bind(n, load.bind(n)))",
    )

    refused = perdure("resume", "r", "--code", "current")

    assert refused.code == 2
    assert "today check takes the values of other steps" in refused.err
    assert "perdure fork r" in refused.err


def test_resume_with_current_code_refuses_another_graph(perdure: CommandLine) -> None:
    path = project(perdure)
    perdure("run", "--id", "r", path)
    edit(path, "report.bind(check.bind(load.bind(n), 20))", "report.bind(load.bind(n))")

    refused = perdure("resume", "r", "--code", "current")

    assert refused.code == 2
    assert "`perdure fork r`" in refused.err


def test_change_in_a_helper_of_another_file_runs_the_step_that_uses_it(
    perdure: CommandLine,
) -> None:
    path = project(perdure)
    perdure("run", "--id", "r", path)
    edit(perdure.folder / "helper.py", "FACTOR = 10", "FACTOR = 2")

    mended = perdure("run", "--id", "r", path)

    assert mended.code == 0, mended.err
    assert "6 it is" in mended.out
    assert ledger(perdure) == ["load", "check", "load", "check", "report"]
    assert "FACTOR" in perdure("why", "r", "load").out or "scale" in perdure("why", "r", "load").out


# --- the recorded sources -------------------------------------------------------------------------
PACKAGE = {
    "pkg/__init__.py": "RATE = 2\n",
    "pkg/calc.py": "from pkg import RATE\nfrom . import deep\n\n\n"
    "def scale(x):\n    return deep.add(x) * RATE\n",
    "pkg/deep.py": "def add(x):\n    return x + 1\n",
    "bill.py": """
import os

from perdure import task, workflow
from pkg.calc import scale


@task
def first(n: int) -> int:
    return scale(n)


@task
def last(n: int) -> int:
    if not os.path.exists(os.environ["GATE"]):
        raise ValueError("closed")
    import pkg.deep

    return pkg.deep.add(scale(n))


@workflow
def bill(n: int = 3) -> int:
    return last.bind(first.bind(n))
""",
}


@pytest.mark.parametrize("target", ["bill.py", "bill:bill"])
@pytest.mark.parametrize("checkout", ["edited", "without its files"])
def test_recorded_sources_of_a_package_go_on_in_a_checkout_that_is(
    checkout: str, target: str, perdure: CommandLine
) -> None:
    gate = perdure.folder / "gate"
    (perdure.folder / "pkg").mkdir()
    for name, text in PACKAGE.items():
        perdure.write(name, text)
    assert perdure("run", "--id", "r", target, GATE=str(gate)).code == 1
    gate.touch()
    if checkout == "edited":
        edit(perdure.folder / "pkg" / "deep.py", "x + 1", "x + 1000")
        edit(perdure.folder / "pkg" / "__init__.py", "2", "3")
    else:
        for name in PACKAGE:
            (perdure.folder / name).unlink()

    resumed = perdure("resume", "r", GATE=str(gate))

    assert resumed.code == 0, resumed.err
    assert resumed.out.strip() == "19"
