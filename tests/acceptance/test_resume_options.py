"""What a step asks for and how often it is tried may be mended, as its code may."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.client import Perdure
from perdure.errors import RunFailed
from perdure.retry import Backoff
from perdure.task import task
from perdure.workflow import Workflow, workflow

_AT_ONCE = Backoff(0)


def flaky(folder: str) -> int:
    """Fail in the first two tries."""
    tries = Path(folder) / "tries"
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) <= 2:
        raise ConnectionError("try again")
    return 7


def flow_with(retries: int, retry_on: type[Exception]) -> Workflow[..., int]:
    step = task(flaky).options(name="flaky", retries=retries, retry_on=retry_on, backoff=_AT_ONCE)

    @workflow(name="flow")
    def flow(folder: str) -> int:
        return step.bind(folder)

    return flow


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


def test_resume_with_current_code_takes_the_options_that_a_step_has_today(
    client: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed):
        client.run(flow_with(0, KeyError), folder=str(tmp_path), run_id="r")

    mended = client.resume("r", code="current", dag=flow_with(1, ConnectionError))

    assert mended.result(30) == 7
    assert (tmp_path / "tries").read_text() == "xxx"


def test_recorded_options_hold_for_a_resume_with_the_recorded_code(
    client: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed):
        client.run(flow_with(0, KeyError), folder=str(tmp_path), run_id="r")

    with pytest.raises(RunFailed):
        client.resume("r").result(30)

    assert (tmp_path / "tries").read_text() == "xx"


def test_run_of_a_failed_id_takes_the_options_that_a_step_has_today(
    client: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed):
        client.run(flow_with(0, KeyError), folder=str(tmp_path), run_id="r")

    again = client.run(flow_with(1, ConnectionError), folder=str(tmp_path), run_id="r")

    assert again == 7
    assert (tmp_path / "tries").read_text() == "xxx"
