from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perdure.errors import DefinitionError
from perdure.target import load_target


@pytest.mark.parametrize(
    ("decorator", "body", "said"),
    [
        ("@perdure.task(retry=2)", "return", "unknown option 'retry'; did you mean 'retries'?"),
        ("@perdure.task(timout='1s')", "return", "did you mean 'timeout'?"),
        ("@perdure.task(timeout='1 minuit')", "return", "timeout='1 minuit'"),
        ("@perdure.task(backoff='0.2s')", "return", "write perdure.Backoff"),
        ("@perdure.task", "yield", "a generator cannot be a task"),
    ],
)
def test_option_that_is_refused_names_the_line_in_the_file_that_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decorator: str, body: str, said: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "pipe.py"
    file.write_text(f"import perdure\n\n\n{decorator}\ndef numbers():\n    {body} 1\n")

    with pytest.raises(DefinitionError) as caught:
        load_target(str(file))

    assert f"importing {file} failed at {file}:4: " in str(caught.value)
    assert said in str(caught.value)


def test_library_that_fails_while_the_file_is_imported_is_named_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pipe.py").write_text("import brittle\n")
    (tmp_path / "brittle.py").write_text("1 / 0\n")

    with pytest.raises(DefinitionError, match=rf"failed at {tmp_path / 'brittle.py'}:1: Zero"):
        load_target(str(tmp_path / "pipe.py"))
