"""Resources of the user's own: as many attempts at a time as the settings say there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import task
from perdure.errors import DefinitionError


@task(resources={"license": 1})
def hold(folder: str, index: int) -> int:
    """Return the most attempts that held a license at any time while this one did."""
    import os
    import time

    mine = os.path.join(folder, str(index))
    with open(mine, "x"):
        pass
    most, until = 0, time.monotonic() + 0.1
    while time.monotonic() < until:
        most = max(most, len(os.listdir(folder)))
    os.unlink(mine)
    return most


@task(resources={"license": 1})
def meet(folder: str, index: int, count: int) -> bool:
    """Wait until ``count`` attempts have held a license while this one does."""
    import os
    import time

    with open(os.path.join(folder, str(index)), "x"):
        pass
    until = time.monotonic() + 60
    while (met := len(os.listdir(folder)) >= count) is False and time.monotonic() < until:
        pass
    return met


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "holders"
    made.mkdir()
    return made


def test_no_more_steps_run_at_once_than_there_are_resources(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_RESOURCES", "license=1")

    with perdure.open(tmp_path / "store" / "perdure.db", workers=3):
        assert perdure.run([hold.bind(str(folder), index) for index in range(4)]) == [1] * 4


def test_as_many_steps_run_at_once_as_there_are_resources(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_RESOURCES", "license=2")

    with perdure.open(tmp_path / "store" / "perdure.db", workers=3):
        assert perdure.run([meet.bind(str(folder), index, 2) for index in range(2)]) == [True] * 2


def test_resource_that_is_not_here_is_refused_with_the_setting_that_declares_it(
    tmp_path: Path,
) -> None:
    with (
        perdure.open(tmp_path / "store" / "perdure.db"),
        pytest.raises(DefinitionError, match=r"license=1 asked, 0 here.*PERDURE_RESOURCES"),
    ):
        perdure.run(hold.bind(str(tmp_path), 0))
