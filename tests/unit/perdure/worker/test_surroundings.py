from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator

import pytest

from perdure.worker.surroundings import Surroundings


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Surroundings]:
    """What is around these tests; put back by monkeypatch, not by the subject."""
    folder, mask, path = os.getcwd(), os.umask(0o022), list(sys.path)
    monkeypatch.setenv("SURROUNDINGS_OLD", "old")
    monkeypatch.setenv("SURROUNDINGS_NEW", "")
    monkeypatch.delenv("SURROUNDINGS_NEW")
    yield Surroundings()
    os.chdir(folder)
    os.umask(mask)
    sys.path[:] = path


def import_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "surroundings_module", types.ModuleType("m"))


def test_environment_is_as_before_when_a_step_has_changed_it(surroundings: Surroundings) -> None:
    os.environ["SURROUNDINGS_NEW"] = "new"
    os.environ["SURROUNDINGS_OLD"] = "other"
    path = os.environ.pop("PATH")

    surroundings.restore()

    assert "SURROUNDINGS_NEW" not in os.environ
    assert os.environ["SURROUNDINGS_OLD"] == "old"
    assert os.environ["PATH"] == path


def test_environment_is_as_before_when_a_step_has_replaced_it(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ
    monkeypatch.setattr(os, "environ", {"only": "this"})

    surroundings.restore()

    assert os.environ is before


def test_path_and_mode_mask_are_as_before_when_a_step_has_changed_them(
    surroundings: Surroundings,
) -> None:
    before = list(sys.path)
    sys.path.insert(0, "/nowhere")
    os.umask(0o007)

    surroundings.restore()

    assert sys.path == before
    assert os.umask(0o022) == 0o022


def test_additions_stay_when_a_module_may_have_made_them(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_something(monkeypatch)
    os.environ["SURROUNDINGS_NEW"] = "new"
    os.environ["SURROUNDINGS_OLD"] = "other"
    sys.path.append("/nowhere")

    surroundings.restore()

    assert os.environ["SURROUNDINGS_NEW"] == "new"
    assert os.environ["SURROUNDINGS_OLD"] == "old"
    assert sys.path[-1] == "/nowhere"


def test_what_a_module_has_done_before_the_step_is_what_is_restored(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_something(monkeypatch)
    os.environ["SURROUNDINGS_OLD"] = "of the module"
    surroundings.note()
    os.environ["SURROUNDINGS_OLD"] = "of the step"

    surroundings.restore()

    assert os.environ["SURROUNDINGS_OLD"] == "of the module"
