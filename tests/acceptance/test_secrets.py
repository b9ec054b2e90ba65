"""A secret that steps let slip everywhere is in nothing that perdure keeps, shows or sends."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.acceptance.asking import BASE
from tests.acceptance.secret_steps import NAME
from tests.acceptance.traced_steps import PLACE
from tests.prepared import ROOT, python_path

import perdure
from perdure.cli import main
from perdure.http.app import make_app
from perdure.http.door import Door
from perdure.http.service import Service
from perdure.metrics import Metrics
from perdure.view.writing import page_of

CANARY = "kanarie'vogel\\zwaluw"
"""With a quote and a backslash, so that it looks otherwise in a ``repr`` and in JSON. No part of it
is hexadecimal: ids and digests are, and one of thousands has any four digits in it."""

FORMS = [form.encode() for form in ("kanarie", "vogel", "zwaluw")]


@dataclass(frozen=True)
class Slipped:
    """A store in whose runs steps let the secret slip, and what the program itself put out."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def slipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slipped]:
    folder = tmp_path_factory.mktemp("slipped")
    done = subprocess.run(
        [sys.executable, "-c", "from tests.acceptance import secret_steps; secret_steps.main()"],
        env={
            **os.environ,
            NAME: CANARY,
            PLACE: str(folder / "spans"),
            "PYTHONPATH": python_path(ROOT),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Slipped(folder, done.stdout + done.stderr)


def found_in(data: bytes) -> list[bytes]:
    """Return what is around each place where the secret, or a part of it, is."""
    places = [data.find(form) for form in FORMS]
    return [data[max(0, at - 150) : at + 60] for at in places if at >= 0]


def test_steps_did_let_it_slip(slipped: Slipped) -> None:
    with perdure.open(slipped.folder / "perdure.db") as store:
        run = store.get_run("slips")
        says = run["says"]
        assert run["logs_in"].result() == 2
        assert run["item_that_fails"].result() == [len(CANARY)] * 3
        log = says.logs()

    assert log.count("***") >= 5


def test_it_is_in_no_file_of_the_store_and_in_no_span(slipped: Slipped) -> None:
    files = [path for path in slipped.folder.rglob("*") if path.is_file()]

    assert slipped.folder / "spans" in files
    assert {str(path): found for path in files if (found := found_in(path.read_bytes()))} == {}


def test_it_is_not_in_what_the_program_says(slipped: Slipped) -> None:
    assert "caused by" in slipped.said
    assert found_in(slipped.said.encode()) == []


def test_it_is_in_no_export(slipped: Slipped, tmp_path: Path) -> None:
    with perdure.open(slipped.folder / "perdure.db") as store:
        for run_id in ("slips", "fails"):
            store.export_run(run_id, tmp_path / f"{run_id}.perdure")

    for path in tmp_path.iterdir():
        with zipfile.ZipFile(path) as file:
            assert [found for name in file.namelist() for found in found_in(file.read(name))] == []


def test_it_is_in_no_page_answer_or_metric(slipped: Slipped) -> None:
    with perdure.open(slipped.folder / "perdure.db") as store:
        store.runtime.metrics = Metrics(store.runtime)
        asking = TestClient(make_app(Service(store), Door()), base_url=BASE)
        told = [page_of(store.get_run(run_id)) for run_id in ("slips", "fails")]
        for path in ("runs", "runs/slips", "runs/fails"):
            answer = asking.get(f"/v1/{path}")
            assert answer.status_code == 200
            told.append(answer.text)
        told.append(asking.get("/metrics").text)

    assert [found for text in told for found in found_in(text.encode())] == []


@pytest.mark.parametrize("as_json", [False, True])
def test_it_is_in_nothing_that_commands_print(
    slipped: Slipped,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(slipped.folder)
    monkeypatch.setenv("PERDURE_STORE", "perdure.db")
    with perdure.open("perdure.db") as store:
        steps = [(run.id, step.id) for run in store.list_runs() for step in run.steps()]
    asked = [["ls"], ["show", "slips"], ["show", "fails"], ["logs", "slips"], ["result", "fails"]]
    asked += [[verb, run, step] for verb in ("why", "show", "logs") for run, step in steps]

    for words in asked:
        main([*words, *(["--json"] if as_json else [])])
    said = capfd.readouterr()

    assert "is_lost" in said.out
    assert found_in((said.out + said.err).encode()) == []
