"""What users see in their editors: programs that both checkers accept, and mistakes both find."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ROOTS = [str(ROOT / name) for name in ("workflows", "storage", "scheduler")]

Found = set[tuple[str, int]]
"""File names and lines with an error."""


def mypy() -> Found:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context",
         "--follow-imports=silent", "--explicit-package-bases",
         *map(str, sorted(HERE.glob("programs/*.py"))), *map(str, HERE.glob("mistakes/*.py"))],
        cwd=ROOT,
        env={"MYPYPATH": ":".join(ROOTS), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    lines = re.findall(r"^(\S+?):(\d+): error:", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {(Path(name).name, int(line)) for name, line in lines}


def find_pyright() -> str | None:
    beside = str(Path(sys.executable).parent)
    return shutil.which("pyright", path=f"{beside}:{os.environ.get('PATH', '')}")


def pyright(command: str) -> Found:
    settings = str(HERE / "pyrightconfig.json")
    done = subprocess.run(
        [command, "--project", settings, "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not start here: {done.stderr or done.stdout}")
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 16
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.fixture(scope="module")
def findings() -> dict[str, Found]:
    # Without mypy its exit code is 1, as with findings: it must not pass for a clean bill.
    found = {"mypy": mypy()} if find_spec("mypy") is not None else {}
    command = find_pyright()
    if command is not None:
        found["pyright"] = pyright(command)
    return found


@pytest.fixture(params=["mypy", "pyright"])
def checked(request: pytest.FixtureRequest, findings: dict[str, Found]) -> Found:
    if request.param not in findings:
        pytest.skip(f"{request.param} is not installed: pip install -e '.[dev]'")
    return findings[request.param]


def planted() -> Found:
    return {
        (path.name, number)
        for path in HERE.glob("mistakes/*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "# mistake:" in line
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_programs_over_the_whole_api_are_accepted(checked: Found) -> None:
    names = {path.name for path in HERE.glob("programs/*.py")}

    assert len(names) == 15
    assert {each for each in checked if each[0] in names} == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_planted_mistake_is_found_and_nothing_else(checked: Found) -> None:
    assert len(planted()) >= 10
    assert {each for each in checked if each[0] == "mistakes.py"} == planted()


@pytest.mark.parametrize("program", sorted(HERE.glob("programs/*.py")), ids=lambda path: path.stem)
def test_a_program_that_is_checked_can_be_imported(program: Path) -> None:
    names = runpy.run_path(str(program))

    assert names["__doc__"]
