"""Release runs: what they choose is there, and what tests tell is added up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reliability.__main__ import Round, hostility, table
from tests.reliability.cases import CASES, UNFIT, Case
from tests.reliability.figures import read_figures, tell_figures
from tests.reliability.hostile.sitecustomize import MODES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tests_of_each_case_are_there(case: Case) -> None:
    files = [word for word in case.tests if word.startswith("tests/")]

    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("mode", UNFIT)
def test_tests_that_do_not_fit_a_hostile_mode_are_there(mode: str) -> None:
    assert mode in MODES
    for name in UNFIT[mode]:
        file, *_, test = name.split("::")
        defined = (ROOT / file, *ROOT.glob("*/perdure*/**/contract*.py"))
        assert any(f"def {test.partition('[')[0]}(" in path.read_text() for path in defined)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_hostile_mode_changes_is_there(mode: str) -> None:
    command = [sys.executable, "-c", f"import {', '.join(MODES[mode])}"]

    subprocess.run(command, env={**os.environ, **hostility(mode)}, check=True)


def test_figures_that_are_told_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    tell_figures(kills=3, steps=5)
    tell_figures(kills=4)

    lines = ["a test prints more", *capsys.readouterr().out.splitlines()]
    assert read_figures(lines) == {"kills": 7, "steps": 5}


def round_of(seed: int, *, failed: int = 0) -> Round:
    figures = {"kills": 200, "steps": 90}
    return Round("storm", seed, 1 - failed, failed, 200, 9.0, "pytest", figures)


def test_rounds_of_a_case_are_one_row() -> None:
    rows = table([round_of(1), round_of(2)]).splitlines()

    assert len(rows) == 3
    assert rows[2].endswith("| 2, 1-2 | 400 | 0 | 0.75% | 180 steps |")


def test_case_that_failed_has_no_bound() -> None:
    assert "| 400 | 1 | - |" in table([round_of(1), round_of(2, failed=1)])
