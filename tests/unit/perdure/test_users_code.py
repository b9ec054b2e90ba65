from __future__ import annotations

from pathlib import Path

import pytest

from perdure.cli.endings import ExitCode, report
from perdure.errors import DefinitionError
from perdure.target import load_target
from perdure.users_code import is_users, place_of

SCRIPT = """
from perdure import task, workflow

@task
def load(n: int) -> list[int]:
    return [n]

@workflow
def branches(k: int = 3) -> list[int]:
    if k > 3:
        return load.bind(k)
    return load.bind(0)

@workflow
def misspelt(k: int = 3) -> list[int]:
    return laod.bind(k)
"""


def error_in(body: str, folder: Path) -> Exception:
    (folder / "flow.py").write_text(SCRIPT)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever the body raises
        load_target(f"{folder / 'flow.py'}:{body}").dag()
    return caught.value


def test_error_of_a_definition_names_the_users_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_in("branches", tmp_path)

    assert isinstance(error, DefinitionError)
    assert report(error) is ExitCode.USAGE
    assert f"  at {tmp_path / 'flow.py'}:10: if k > 3:\n" in capsys.readouterr().err


def test_error_in_a_workflows_body_is_the_users_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_in("misspelt", tmp_path)

    assert is_users(error)
    assert report(error) is ExitCode.FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: NameError: name 'laod' is not defined")
    assert f"{tmp_path / 'flow.py'}:16: return laod.bind(k)" in said
    assert "perdure is wrong" not in said


def test_error_without_a_traceback_has_no_place() -> None:
    assert place_of(ValueError("never raised")) == ""
    assert not is_users(ValueError("never raised"))


def test_error_raised_by_perdure_under_the_users_line_is_not_the_users(tmp_path: Path) -> None:
    error = error_in("branches", tmp_path)

    assert not is_users(error)
    assert place_of(error).endswith("flow.py:10: if k > 3:")
