"""Runs that are made without a plan: facts become what parameters take when it is built."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError
from perdure.planning import build
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, RunRecord
from perdure_storage.values import inputs_digest

SOURCE = """
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from perdure import Static, task, workflow

@dataclass
class Place:
    city: str
    since: date

@task
def note(path: Path, place: Place, code: int | str) -> str:
    return f"{path.name} {place.city} {code}"

@workflow
def flow(path: Path, place: Place, code: int | str = 0, n: Static[int] = 1) -> list[str]:
    return [note.bind(path, place, code) for _ in range(n)]
"""
PLACE = {"city": "Bonn", "since": "2026-03-01"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "places.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("places", None)


@pytest.fixture
def client(project: Path) -> Iterator[Perdure]:
    with open_store(str(project / "perdure.db"), executor="inline") as opened:
        yield opened


def unplanned(client: Perdure, inputs: dict[str, Any]) -> RunRecord:
    """Return a run of an entry point and inputs, as who knows no plan makes it."""
    stored = {name: client.runtime.values.store(value) for name, value in inputs.items()}
    return RunRecord(
        id=RunId("r1"),
        workflow="flow",
        status=RunStatus.QUEUED,
        plan_digest=None,
        origin="places:flow",
        inputs=stored,
        inputs_digest=inputs_digest(stored),
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        trigger="landed",
    )


def planned_inputs(client: Perdure, inputs: dict[str, Any]) -> dict[str, Any]:
    built = build(client.runtime, unplanned(client, inputs))
    return {name: client.runtime.values.load(value) for name, value in built.inputs.items()}


def test_json_inputs_become_what_the_parameters_take_when_the_plan_is_built(
    client: Perdure,
) -> None:
    inputs = planned_inputs(client, {"path": "in/a.csv", "place": PLACE, "n": "2"})

    assert inputs["path"] == Path("in/a.csv")
    assert inputs["place"] == sys.modules["places"].Place(city="Bonn", since=date(2026, 3, 1))


def test_input_that_fits_as_it_is_is_not_converted(client: Perdure) -> None:
    inputs = planned_inputs(client, {"path": Path("a"), "place": PLACE, "code": "007"})

    assert (inputs["path"], inputs["code"]) == (Path("a"), "007")


def test_inputs_of_a_schedule_are_python_values_and_stay_so(client: Perdure) -> None:
    record = unplanned(client, {"path": "a", "place": PLACE})

    with pytest.raises(DefinitionError, match="parameter 'path': expected Path, got str 'a'"):
        build(client.runtime, msgspec.structs.replace(record, trigger=None, schedule="nightly"))
