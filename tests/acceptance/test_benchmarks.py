"""The benchmark programs run; what they measure is no matter of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.many_runs import fill
from tests.benchmarks.rounds import Case, measure, table

ROOT = Path(__file__).resolve().parents[2]


def printed(*words: str) -> list[str]:
    """Run a program; return the lines that it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def benchmark(*words: str) -> list[list[str]]:
    """Run a program; return the cells of the table that it printed, below its head."""
    lines = [line for line in printed(*words) if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_benchmark_of_the_surface_prints_a_line_a_case() -> None:
    rows = benchmark("tests.benchmarks.surface", "--runs=9", "--rounds=1", "--only=ls --status")

    assert [row[0] for row in rows] == ["bare start", "`perdure ls --status failed`, 9 runs"]
    assert all(float(row[2]) > 0 for row in rows)


def test_benchmark_of_reports_says_how_long_pages_take() -> None:
    rows = benchmark("tests.benchmarks.report", "--rounds=1", "--steps=12", "--items=20")

    assert [row[0] for row in rows if row[0].startswith("write")] == [
        "write the page of 12 different steps",
        "write the page of a map of 20",
    ]


def test_benchmark_of_schedules_ends_with_as_many_ticks_as_are_kept() -> None:
    words = ("3", "3h", "--full", "--keep-last=20", "--dense=1m", "--each=1h", "--keep-runs=30m")
    lines = printed("tests.benchmarks.schedules", *words)

    days = [line for line in lines if line.startswith("day ")]
    assert days[0].startswith("day 0.0: 60 ticks, 0 runs")
    assert days[-1].startswith("day 0.1: 60 ticks, ")
    assert "tick on time: 54, " in "\n".join(lines)
    assert any(line.startswith("perdure schedule ls: ") for line in lines)


def test_benchmark_of_saves_says_that_only_what_changed_is_written() -> None:
    rows = benchmark("tests.benchmarks.saves", "--mib=4", "--rounds=1")

    assert {row[0]: row[3] for row in rows} == {
        "save all": "4.00",
        "save unchanged": "0.00",
        "save with one file changed": "0.06",
        "load": "0.00",
    }


def test_benchmark_of_states_says_that_only_what_changed_is_stored() -> None:
    rows = benchmark("tests.benchmarks.states", "--mib=4", "--rounds=1")

    assert [float(cell) for cell in rows[-1][1:]] == [4.2, 4.2]


def test_benchmark_of_inputs_says_what_sending_and_reading_take_of_a_step() -> None:
    words = ("--kinds", "array", "--sizes", "1000", "100000", "--rounds=1", "--steps=50")
    rows = benchmark("tests.benchmarks.inputs", *words)

    assert [row[0] for row in rows] == ["array, 1,000", "array, 100,000"]
    assert [row[1] == "-" for row in rows] == [False, True]
    assert all(float(row[column].replace(",", "")) > 0 for row in rows for column in (3, 4, 5, 7))


def test_filled_store_is_one_that_the_command_line_takes_for_its_own(perdure: Any) -> None:
    home = perdure.folder / ".perdure"
    fill(f"sqlite:///{home / 'perdure.db'}", str(home / "blobs"), 60)

    listed = json.loads(perdure("ls", "--json").out)
    shown = perdure("show", "run-0000003")

    assert len(listed) == 60
    assert listed[0]["id"] == "seed"
    assert shown.code == 0, shown.err


def test_rounds_divide_by_what_the_first_case_took_in_the_same_round() -> None:
    bare, slow = iter([9.0, 1.0, 2.0, 4.0]), iter([9.0, 3.0, 6.0, 12.0])

    figures = measure([Case("bare", bare.__next__), Case("slow", slow.__next__, 5.0)], rounds=3)

    assert [each.ratio for each in figures] == [1.0, 3.0]
    assert "| slow | < 5 | 6.000 | 3.000-12.000 | 3.0 |" in table(figures)


def test_benchmark_of_the_engine_says_what_part_of_the_rate_by_hand_is_reached() -> None:
    rows = benchmark("tests.benchmarks.engine", "--scale=0.002", "--rounds=1", "--only=fan_out")

    assert [row[1] for row in rows] == ["by hand", "inline", "processes"]
    assert [row[0] for row in rows] == ["fan_out, 20 steps"] * 3


def test_benchmark_of_growing_graphs_says_what_an_item_takes_as_graphs_get_larger() -> None:
    rows = benchmark("tests.benchmarks.growing", "--scale=0.01", "--rounds=1", "--only=chain")

    assert [row[0] for row in rows] == ["chain of 5", "chain of 50"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])


def test_one_engine_on_one_workload_prints_one_line_of_json() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "perdure", "W2", "--size", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert (figures["engine"], figures["workload"], figures["size"]) == ("perdure", "W2", 20)
    assert figures["seconds"] > 0
    assert "perdure" in figures["versions"]


def test_engines_are_compared_side_by_side() -> None:
    rows = benchmark(
        "tests.benchmarks", "compare", "W5", "--engines=perdure", "--scale=0.01", "--rounds=1"
    )

    assert [row[0] for row in rows] == ["perdure"]
    assert rows[0][3] == "1.00"
    assert "run twice 0" in rows[0][5]


def test_comparison_fails_where_an_engine_does_and_not_where_it_has_no_such_workload(
    tmp_path: Path,
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not today')")  # its steps import it

    def compared(**environ: str) -> subprocess.CompletedProcess[str]:
        words = ["compare", "fsync", "W1", "--engines=limits,perdure", "--scale=0.01", "--rounds=1"]
        return subprocess.run(
            [sys.executable, "-m", "tests.benchmarks", *words],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    well, broken = compared(), compared(PYTHONPATH=str(tmp_path))

    assert well.returncode == 0, well.stderr
    assert "perdure_engine has no fsync" in well.stderr
    assert broken.returncode == 1
    assert "RuntimeError: not today" in broken.stderr


def test_wrong_words_are_refused_with_what_there_is() -> None:
    def refused(*words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2, ended.stderr
        return ended.stderr.splitlines()[-1]

    assert "invalid positive value: '-3'" in refused(
        "tests.benchmarks", "perdure", "W1", "--size=-3"
    )
    assert "the figures of W2, W4, W5, W6, W7, W9 are here" in refused(
        "tests.benchmarks.targets", "W1"
    )
    assert "with :inline or :processes" in refused("tests.benchmarks.parts", "W1:nonsense")


def test_targets_are_told_beside_what_is_reached_and_the_limit() -> None:
    rows = benchmark("tests.benchmarks.targets", "W6", "--rounds=1")

    assert [row[:3] for row in rows] == [
        ["W6, 1", "perdure", "cold start, s"],
        ["W6, 1", "perdure-processes", "cold start, s"],
    ]
    assert all(0 < float(row[5]) < float(row[4]) for row in rows)


def test_benchmark_of_a_large_value_says_where_time_and_memory_went() -> None:
    (line,) = printed("tests.benchmarks", "perdure", "W4", "--size=16")

    figures = json.loads(line)
    assert figures["producer_own_mb"] > 16
    assert figures["again_written_mb"] < 16
    assert 0 < figures["stored_s"] < figures["seconds"]
    assert figures["first_byte_s"] > 0
