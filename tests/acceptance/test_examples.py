from __future__ import annotations

import json
import os
import re
import shutil
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


def test_actor_whose_process_is_killed_comes_to_what_a_plain_object_does(perdure: Any) -> None:
    ended = subprocess.run(
        [sys.executable, EXAMPLES / "actors.py"],
        cwd=perdure.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert "count 60, mean 49.787, variance 880.789" in ended.stdout


TEAM_RUNS = int(os.environ.get("PERDURE_TEST_TEAM_RUNS", "12"))


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_team_loses_nothing_to_a_death_and_a_restart_of_its_database(tmp_path: Path) -> None:
    pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    if not sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL server's programs here: `apt-get install postgresql`")

    ended = subprocess.run(
        [sys.executable, EXAMPLES / "team" / "team.py", "--runs", str(TEAM_RUNS)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"right results: {TEAM_RUNS} of {TEAM_RUNS}" in ended.stdout
    assert count(ended.stdout, "committed steps that ran twice") == 0
    assert re.search(r"^the last \d+\.\d+ s after its death$", ended.stdout, re.MULTILINE)


@pytest.mark.usefixtures("need_the_examples_extra")
def test_iris_is_a_script_too(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, IRIS], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert ended.stdout.splitlines()[-1] == "cluster sizes 38, 50, 62"


def test_training_that_is_killed_in_each_epoch_ends_with_the_weights_of_one_that_is_not(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch", reason="pip install torch")
    pytest.importorskip("sklearn")

    ended = subprocess.run(
        [sys.executable, EXAMPLES / "training.py"], cwd=tmp_path, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^killed in 6 epochs, 7 attempts: accuracy 0\.9[6-9]", ended.stdout, re.M)
    assert ended.stdout.splitlines()[-1] == "weights equal: True"


def test_pool_of_models_works_at_the_same_time_as_the_stages_around_it(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")

    ended = subprocess.run(
        [sys.executable, EXAMPLES / "model_pool.py"], cwd=tmp_path, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert 1 <= count(ended.stdout, "processes of the model") <= 2
    together = re.search(
        r"^the model and a CPU stage at work together: ([\d.]+) s$", ended.stdout, re.M
    )
    assert together is not None, ended.stdout
    assert float(together[1]) > 0


@pytest.mark.parametrize(
    ("example", "module", "command"),
    [
        ("model_pool", "sklearn", "pip install scikit-learn"),
        ("ray_node_loss", "ray", "pip install 'perdure[ray]'"),
        (
            "training",
            "torch",
            "pip install torch --index-url https://download.pytorch.org/whl/cpu",
        ),
    ],
)
def test_example_says_how_to_install_what_it_needs(
    example: str, module: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError('not here')")

    ended = subprocess.run(
        [sys.executable, EXAMPLES / f"{example}.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert command in ended.stdout


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
NIGHTLY, FOLDER, WEBHOOK, AFTER = (
    EXAMPLES / "triggers" / f"{name}.py" for name in ("nightly", "folder", "webhook", "after")
)


def test_nightly_schedule_makes_its_runs_while_perdure_up_serves(perdure: Any) -> None:
    serving = perdure.start("up", "--json", "--no-http", NIGHTLY, EVERY="1s")
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


def serve(perdure: Any, *words: str | Path, **environment: str) -> dict[str, Any]:
    """Let `perdure up` come to where it serves; return what it has told, by event."""
    serving = perdure.start("up", "--json", *words, **environment)
    told: dict[str, Any] = {}
    while "serving" not in told:
        line = serving.stdout.readline()
        assert line, serving.communicate()[1]
        told[json.loads(line)["event"]] = json.loads(line)
    return told


def succeeded(perdure: Any, workflow: str, number: int = 1) -> list[Any]:
    """Return the runs of a workflow when so many have succeeded."""
    runs: list[Any] = []
    while len(runs) < number:
        words = ("ls", "--workflow", workflow, "--status", "succeeded", "--json")
        runs = json.loads(perdure(*words).out)
    return runs


@pytest.mark.usefixtures("need_the_examples_extra")
def test_folder_is_watched_and_each_table_in_it_is_clustered_once(perdure: Any) -> None:
    incoming = perdure.folder / "incoming"
    incoming.mkdir()
    shutil.copy(IRIS.with_name("iris.csv"), incoming / "early.csv")
    (incoming / "empty.csv").touch()

    serve(perdure, "--no-http", FOLDER)
    shutil.copy(IRIS.with_name("iris.csv"), incoming / "late.csv")
    runs = succeeded(perdure, "clusters", 2)

    arrivals = json.loads(perdure("trigger", "arrivals", "landed", "--json").out)
    told = {each["facts"]["name"]: (each["decision"], each.get("run")) for each in arrivals}
    assert {run for _, run in told.values()} == {*(run["id"] for run in runs), None}
    assert told["empty.csv"] == ("filtered", None)
    for name in ("early", "late"):
        report = (perdure.folder / "iris-reports" / name / "report.md").read_text()
        assert "cluster sizes 38, 50, 62" in report


def test_webhook_that_is_signed_makes_one_run_however_often_it_is_sent(perdure: Any) -> None:
    key = subprocess.check_output([sys.executable, WEBHOOK, "key"], text=True).strip()
    told = serve(perdure, "--port", "0", WEBHOOK, HOOK_KEY=key)
    url = f"{told['http']['url']}/v1/hooks/pushed"

    def push(*words: str, key: str = key) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, WEBHOOK, "push", *words],
            env={**os.environ, "HOOK_URL": url, "HOOK_KEY": key},
            capture_output=True,
            text=True,
            check=False,
        )

    sent = [json.loads(push("perdure", "main", "msg_1").stdout) for _ in range(2)]
    forged = push("perdure", "main", "msg_2", key="whsec_AAAA")
    passed_over = json.loads(push("perdure", "draft", "msg_3").stdout)

    [run] = succeeded(perdure, "build")
    assert [each["run_id"] for each in sent] == [run["id"]] * 2
    assert [each["is_new"] for each in sent] == [True, False]
    assert run["tags"] == {"by": "push"}
    assert "refused with 401" in forged.stderr
    assert passed_over["decision"] == "filtered"
    assert perdure("get", run["id"], "-o", "-").out == "compiled 2 files of perdure"


def test_report_is_made_after_each_load_and_a_valuation_of_two_events(perdure: Any) -> None:
    serve(perdure, "--no-http", AFTER)

    perdure("emit", "rates", "--payload", "0.8")
    loaded = perdure("run", "--id", "first", f"{AFTER}:load", "--day", "2026-03-02")
    perdure("emit", "prices", "--payload", "12.5")
    [report], [valuation] = succeeded(perdure, "report"), succeeded(perdure, "valuation")

    assert loaded.code == 0, loaded.err
    assert report["trigger"] == "report-after-load"
    assert [key.partition("/")[2] for key in report["arrivals"]] == [
        "first"
    ]  # when it was made, and its id
    assert perdure("get", report["id"], "-o", "-").out == "20 sold in 4 shops, by first"
    assert json.loads(perdure("get", valuation["id"], "-o", "-").out) == 10.0
