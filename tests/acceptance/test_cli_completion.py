"""Completion, as a shell asks for it: real processes over one store that all tests here share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.cli.completion import CHOICES
from perdure.submission import _CHOICES

STEPS = """
from perdure import Schedule, task, workflow

@task
def load() -> int:
    return 1

@task
def length(n: int) -> int:
    return n

@workflow
def lengths() -> int:
    return length.bind(load.bind())

nightly = Schedule("nightly", lengths, cron="@daily")
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder in which ``alpha`` and ``beta`` have run."""
    command_line = command_line_in(tmp_path_factory.mktemp("completion"))
    command_line.write("steps.py", STEPS)
    for run_id in ("alpha", "beta"):
        assert command_line("run", "--id", run_id, "steps.py").code == 0
    assert command_line("schedule", "register", "steps.py").code == 0
    return command_line


def complete(command_line: Any, words: str, **environment: str) -> list[str]:
    """Return what bash would offer after ``words``; a completion that says anything else fails."""
    ended = command_line(
        _PERDURE_COMPLETE="complete_bash",
        COMP_WORDS=f"perdure {words}",
        COMP_CWORD=str(len(words.split(" "))),
        **environment,
    )
    assert (ended.code, ended.err) == (0, "")
    return sorted(ended.out.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("res", ["resume"]),
        ("show ", ["alpha", "beta"]),
        ("resume al", ["alpha"]),
        ("cat al lo", ["load"]),
        ("get - ", ["length", "load"]),
        ("run --executor in", ["inline"]),
        ("cat nothing ", []),
        ("why alpha le", ["length"]),
        ("ls --status fa", ["failed"]),
        ("ls --status FA", ["FAILED"]),
        ("ls --workflow le", ["lengths"]),
        ("schedule show ni", ["nightly"]),
        ("schedule backfill nightly --reprocess f", ["failed"]),
    ],
)
def test_words_are_completed_from_the_store(seen: Any, words: str, offered: list[str]) -> None:
    assert complete(seen, words) == offered


def test_id_that_a_shell_would_not_take_as_one_plain_word_is_not_offered(
    tmp_path: Path, command_line_in: Any
) -> None:
    command_line = command_line_in(tmp_path)
    command_line.write("steps.py", STEPS)
    for run_id in ("$(touch sprung)", "`touch sprung`", "two words", "plain/1.a"):
        assert command_line("run", "--detach", "--id", run_id, "steps.py").code == 3

    zsh = command_line(_PERDURE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="perdure show ")

    assert complete(command_line, "show ") == ["plain/1.a"]
    assert "plain/1.a" in zsh.out
    assert "sprung" not in zsh.out


def test_completion_without_a_store_is_silent_and_makes_none(
    tmp_path: Path, command_line_in: Any
) -> None:
    nowhere = command_line_in(tmp_path)

    assert complete(nowhere, "show ", PERDURE_STOR="typo") == []
    assert complete(nowhere, "show --store no/such.db ") == []
    assert list(tmp_path.iterdir()) == []


def test_completion_over_a_damaged_store_is_silent(tmp_path: Path, command_line_in: Any) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)

    assert complete(command_line_in(tmp_path), "show --store x.db ") == []


def test_script_for_a_shell_is_shown_and_installed(tmp_path: Path, command_line_in: Any) -> None:
    command_line = command_line_in(tmp_path)
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}

    shown = command_line("--show-completion", "bash", **environment)
    installed = command_line("--install-completion", "bash", **environment)

    assert shown.code == 0
    assert "_PERDURE_COMPLETE=complete_bash" in shown.out
    assert installed.code == 0
    assert (tmp_path / ".bash_completions" / "perdure.sh").read_text() in shown.out + "\n"


def test_words_that_are_offered_are_those_that_are_taken() -> None:
    for option, known in _CHOICES.items():
        assert CHOICES[option] == tuple(word for word in known if word is not None)
