"""What OpenTelemetry is told of a run, over all processes that have a part in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.traced_steps import PLACE
from tests.prepared import ROOT, python_path

from perdure.tracing import TRACED

Spans = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=["inline", "processes"])
def spans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Spans:
    """Return the spans of a run that failed, was mended and resumed, by name."""
    folder = tmp_path_factory.mktemp("traced")
    file = folder / "spans"
    code = "from tests.acceptance import traced_steps; traced_steps.main(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", request.param],
        env={**os.environ, PLACE: str(file), "PYTHONPATH": python_path(ROOT)},
        cwd=folder,
        check=True,
        timeout=100,
    )
    found: Spans = {}
    for line in file.read_text().splitlines():
        span = json.loads(line)
        found.setdefault(span["name"], []).append(span)
    return found


def test_a_run_is_a_span_below_the_one_that_asked_for_it(spans: Spans) -> None:
    (program,) = spans["the program"]

    runs = spans["run traced"]

    assert [run["attributes"]["perdure.run.status"] for run in runs] == ["FAILED", "SUCCEEDED"]
    assert {run["parent_id"] for run in runs} == {program["context"]["span_id"]}
    assert {run["context"]["trace_id"] for run in runs} == {program["context"]["trace_id"]}


def test_a_resumed_run_links_to_the_span_in_which_it_was_driven_before(spans: Spans) -> None:
    first, second = spans["run traced"]

    assert first["links"] == []
    (link,) = second["links"]
    assert link["context"]["span_id"] == first["context"]["span_id"]


def test_an_attempt_is_a_span_below_its_run(spans: Spans) -> None:
    (measured,) = spans["step measured"]
    tries = spans["step refused"]
    first, second = (run["context"]["span_id"] for run in spans["run traced"])

    assert measured["attributes"]["perdure.step.id"] == "measured"
    assert measured["attributes"]["code.function.name"] == "tests.acceptance.traced_steps.measured"
    assert [(each["attributes"]["perdure.attempt.outcome"]) for each in tries] == [
        "user error",
        "user error",
        "succeeded",
    ]
    assert [each["parent_id"] for each in tries] == [first, first, second]


def test_an_attempt_that_fails_says_with_what(spans: Spans) -> None:
    failed = spans["step refused"][0]

    assert failed["status"]["status_code"] == "ERROR"
    assert failed["attributes"]["error.type"] == "builtins.ValueError"
    (told,) = [event for event in failed["events"] if event["name"] == "exception"]
    assert told["attributes"]["exception.message"] == "not yet"
    assert "in refused" in told["attributes"]["exception.stacktrace"]


def test_what_a_step_traces_itself_is_below_its_attempt(spans: Spans) -> None:
    (inside,) = spans["inside the step"]
    (measured,) = spans["step measured"]

    assert inside["parent_id"] == measured["context"]["span_id"]


def test_a_run_that_nobody_traces_has_nothing_of_it_in_its_story(tmp_path: Path) -> None:
    from tests.acceptance.traced_steps import measured

    import perdure

    with perdure.open(tmp_path / "perdure.db", executor="inline") as store:
        store.run(measured.bind(1), run_id="r")
        kinds = [event.kind for event in store.get_run("r").events()]

    assert TRACED not in kinds
