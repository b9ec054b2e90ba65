from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IRIS = EXAMPLES / "iris" / "iris.py"
SURVIVE = EXAMPLES / "survive_kill.py"


def count(text: str, what: str) -> int:
    found = re.search(rf"^{re.escape(what)}: (\d+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


@pytest.fixture
def need_the_examples_extra() -> None:
    for name in ("matplotlib", "numpy", "sklearn"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("need_the_examples_extra")
def test_iris_finds_three_clusters_and_writes_its_report(perdure: Any) -> None:
    ended = perdure("run", IRIS)

    report = (perdure.folder / "iris-report" / "report.md").read_text()
    inertia = re.search(r"^inertia ([\d.]+)$", ended.out, re.MULTILINE)
    assert ended.code == 0, ended.err
    assert inertia is not None
    assert float(inertia[1]) == pytest.approx(78.8514, abs=0.001)
    assert ended.out.splitlines()[-1] == "cluster sizes 38, 50, 62"
    assert "cluster sizes 38, 50, 62" in report
    assert (perdure.folder / "iris-report" / "clusters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("need_the_examples_extra")
def test_iris_takes_another_number_of_clusters_and_reuses_what_does_not_depend_on_it(
    perdure: Any,
) -> None:
    perdure("run", "--id", "three", IRIS)

    ended = perdure("run", "--id", "four", "--reuse", "three", IRIS, "--k", "4")

    assert ended.code == 0, ended.err
    assert "cluster sizes 28, 32, 40, 50" in ended.out
    assert "three" in perdure("why", "four", "load").out


@pytest.mark.usefixtures("need_the_examples_extra")
def test_iris_is_a_script_too(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, IRIS], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert ended.stdout.splitlines()[-1] == "cluster sizes 38, 50, 62"


@pytest.mark.parametrize("executor", ["processes", "inline"])
def test_killed_pipeline_is_resumed_with_the_right_sum_and_nothing_committed_runs_twice(
    perdure: Any, executor: str
) -> None:
    killed = perdure("run", "--executor", executor, SURVIVE)
    command = re.search(r"perdure (resume \S+)\)", killed.err)
    assert command is not None, killed.err

    resumed = perdure(*command[1].split(), "--executor", executor)

    assert killed.code == 128 + signal.SIGKILL
    assert resumed.code == 0, resumed.err
    assert "142913828922 (right)" in resumed.out
    assert count(resumed.out, "committed steps that ran twice") == 0
    assert count(resumed.out, "steps that ran before the kill") >= 20
    assert count(resumed.out, "steps that ran after it") >= 40 - count(
        resumed.out, "steps that ran before the kill"
    )


def test_killed_pipeline_as_a_script_does_both_and_ends_well(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, SURVIVE], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert "142913828922 (right)" in ended.stdout
    assert count(ended.stdout, "committed steps that ran twice") == 0


# --- triggers ------------------------------------------------------------------------------------
NIGHTLY = EXAMPLES / "triggers" / "nightly.py"


def test_nightly_schedule_makes_its_runs_while_perdure_up_serves(perdure: Any) -> None:
    serving = perdure.start("up", "--json", NIGHTLY, EVERY="1s")
    perdure.wait_for_file("summaries", serving)
    told = [json.loads(serving.stdout.readline()) for _ in range(2)]

    runs: list[Any] = []
    while len(runs) < 2:
        assert serving.poll() is None
        runs = json.loads(perdure("ls", "--status", "succeeded", "--json").out)
    ticks = json.loads(perdure("schedule", "ticks", "nightly", "--json").out)

    assert [each["event"] for each in told] == ["registered", "serving"]
    assert {run["id"] for run in runs} <= {tick.get("run") for tick in ticks}
    assert runs[0]["tags"] == {"team": "climate"}
    assert next((perdure.folder / "summaries").iterdir()).read_text().endswith("degrees\n")


def test_nightly_schedule_of_the_night_on_which_the_clocks_change(perdure: Any) -> None:
    perdure("schedule", "register", NIGHTLY)

    ended = perdure("schedule", "next", "nightly", "--at", "2026-03-28", "-n", "3", "--json")

    times = [(each["local"][:16], each["utc"][:16]) for each in json.loads(ended.out)]
    assert times == [
        ("2026-03-28T02:00", "2026-03-28T01:00"),
        ("2026-03-29T03:00", "2026-03-29T01:00"),
        ("2026-03-30T02:00", "2026-03-30T00:00"),
    ]
