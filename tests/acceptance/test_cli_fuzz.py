"""Whatever is typed: a clear word and an exit code, never a traceback, and nothing happens.

In process, so that hundreds of command lines take seconds; derandomised, so that a failure is one
for everybody.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from perdure.cli import main

CODES = {0, 1, 2, 3, 130}

WORKFLOW = dedent(
    """
    import enum
    from dataclasses import dataclass
    from datetime import date, timedelta
    from decimal import Decimal
    from pathlib import Path
    from typing import Literal
    from uuid import UUID

    from perdure import task, workflow


    class Colour(enum.Enum):
        RED = "red"


    @dataclass
    class Config:
        lr: float = 0.1
        names: list[str] | None = None


    @task
    def one() -> int:
        return 1


    @workflow
    def fuzzed(
        k: int = 3, x: float = 0.5, xs: list[int] = [1], name: str = "", shout: bool = False,
        cfg: Config = Config(), colour: Colour = Colour.RED, path: Path = Path("x"),
        day: date = date(2026, 1, 1), wait: timedelta = timedelta(1), money: Decimal = Decimal(1),
        uid: UUID | None = None, mode: Literal["a", "b"] = "a", table: dict[str, int] = {},
        anything=None,
    ) -> int:
        return one.bind()
    """
)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def perdure(*words: str) -> Said:
    """Run a command line in this process."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(words))
    return Said(code, out.buffer.getvalue().decode(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a store with the run ``alpha``, and beside it what no id may reach."""
    outside = tmp_path_factory.mktemp("fuzz")
    inside = outside / "inside"
    inside.mkdir()
    (outside / "canary.py").write_text("open('sprung', 'w')\n")
    (inside / "fuzzed.py").write_text(WORKFLOW)
    before = Path.cwd()
    os.chdir(inside)
    try:
        assert perdure("run", "--executor", "inline", "--id", "alpha", "fuzzed.py").code == 0
        yield inside
    finally:
        os.chdir(before)


def state_of(folder: Path) -> dict[str, str]:
    """Return what there is: every file by its content, the database by its rows."""
    found: dict[str, str] = {}
    for path in sorted(folder.parent.rglob("*")):
        if path.is_file() and "perdure.db" not in path.name and "__pycache__" not in path.parts:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    database = sqlite3.connect(folder / ".perdure" / "perdure.db")
    found["rows"] = hashlib.sha256("\n".join(database.iterdump()).encode()).hexdigest()
    database.close()
    return found


def must_be_calm(said: Said) -> None:
    assert said.code in CODES
    assert "Traceback" not in said.err
    assert "perdure is wrong" not in said.err, said.err


ODD = st.sampled_from(
    [
        "../canary",
        "../../canary",
        "/etc/passwd",
        "..",
        "~root",
        "$(touch sprung)",
        "`touch sprung`",
        "; touch sprung",
        "%",
        "_",
        "'; DROP TABLE run; --",
        "\x00",
        "a\x00b",
        "\udcff",
        "\x1b[31m",
        "[red]x[/red]",
        "[/]",
        "x" * 5000,
        "--",
        "--yes",
        "-x",
        " ",
        "",
        "NaN",
        "1e999",
        "{",
        '{"a": [1, {"b": null}]}',
        "[" * 2000,
        "9" * 5000,
    ]
)
WORDS = st.one_of(ODD, st.text(max_size=30), st.from_regex(r"[./:~%*?\-a-z]{1,12}", fullmatch=True))
VERBS = st.sampled_from(
    [
        ["show", "{}"],
        ["show", "{}", "--json"],
        ["show", "alpha", "{}"],
        ["logs", "{}"],
        ["logs", "alpha", "{}"],
        ["why", "{}", "one"],
        ["why", "alpha", "{}"],
        ["cat", "{}"],
        ["cat", "alpha", "{}"],
        ["get", "{}", "-o", "-"],
        ["get", "alpha", "{}", "-o", "-"],
        ["cancel", "{}"],
        ["pause", "{}"],
        ["resume", "{}"],
        ["delete", "--yes", "{}"],
        ["rerun", "{}"],
        ["rerun", "alpha", "--input", "{}"],
        ["fork", "{}"],
        ["fork", "alpha", "--from", "{}"],
        ["fork", "alpha", "--force", "{}"],
        ["fork", "alpha", "--override", "{}"],
        ["spin", "{}", "one"],
        ["spin", "alpha", "{}"],
        ["explain", "{}"],
        ["explain", "alpha", "--verb", "{}"],
        ["diff", "{}", "alpha"],
        ["diff", "alpha", "{}"],
        ["export", "{}", "-o", "fuzzed.perdure", "--force"],
        ["export", "{}", "-o", "-"],
        ["import", "{}"],
        ["import", "fuzzed.py", "--as", "{}"],
        ["gc", "--dry-run", "--keep", "{}"],
        ["gc", "--dry-run", "--tag", "{}"],
        ["db", "{}"],
        ["db", "check", "--store", "{}"],
        ["db", "backup", "--release", "{}"],
        ["ls", "--status", "{}"],
        ["ls", "--workflow", "{}"],
        ["ls", "--tag", "{}"],
        ["ls", "--since", "{}"],
        ["ls", "--limit", "{}"],
        ["ls", "--store", "{}"],
        ["config", "show", "--store", "{}"],
        ["run", "--reuse", "{}", "fuzzed.py"],
        ["run", "--executor", "{}", "fuzzed.py"],
        ["run", "{}"],
        ["run", "fuzzed.py:{}"],
        ["run", "os:{}"],
        ["{}"],
        ["{}", "alpha"],
    ]
)


def test_strange_word_is_answered_calmly_and_changes_nothing(folder: Path) -> None:
    before = state_of(folder)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(verb=VERBS, word=WORDS)
    @example(verb=["config", "show", "--store", "{}"], word="\udcff")
    @example(verb=["delete", "--yes", "{}"], word="")
    @example(verb=["resume", "{}"], word="../../canary")
    def holds(verb: list[str], word: str) -> None:
        # What means the run that there is, or its step, would be done to it, as it should be.
        assume(not fnmatchcase("one", word))
        assume(not "alpha".startswith(word or "?"))
        assume(word not in ("-", "last", "off", "up", "demo", "fuzzed", "gc"))
        must_be_calm(perdure(*(word if part == "{}" else part for part in verb)))

    holds()
    assert state_of(folder) == before
    assert not (folder / "sprung").exists()


NAMES = st.sampled_from(
    ["k", "x", "xs", "name", "shout", "no-shout", "cfg", "cfg.lr", "cfg.names", "cfg.nope.deep",
     "colour", "path", "day", "wait", "money", "uid", "mode", "table", "anything", "nope", "",
     ".", "k.", "no-", "store", "help"]
)  # fmt: skip
PARAMETERS = st.lists(
    st.one_of(
        st.tuples(NAMES, WORDS).map(lambda pair: [f"--{pair[0]}", pair[1]]),
        st.tuples(NAMES, WORDS).map(lambda pair: [f"--{pair[0]}={pair[1]}"]),
        NAMES.map(lambda name: [f"--{name}"]),
        WORDS.map(lambda word: [word]),
    ),
    max_size=4,
)


def test_strange_parameters_are_answered_calmly(folder: Path) -> None:
    @settings(derandomize=True, max_examples=50, deadline=None)
    @given(parameters=PARAMETERS)
    def holds(parameters: list[list[str]]) -> None:
        words = [word for parameter in parameters for word in parameter]
        said = perdure("run", "--executor", "inline", "fuzzed.py:fuzzed", *words)
        must_be_calm(said)
        assert said.code != 1, said.err

    holds()
    assert not (folder / "sprung").exists()


OPTIONS = st.sampled_from(
    ["--json", "--help", "--store", "--traceback", "--version", "--id", "--yes", "-o", "--force",
     "--limit", "--nope", "alpha", "one", "fuzzed.py", "show", "ls", "-", "x.db"]
)  # fmt: skip


def test_strange_command_lines_are_answered_calmly(folder: Path) -> None:
    @settings(derandomize=True, max_examples=50, deadline=None)
    @given(
        verb=st.sampled_from(["show", "cat", "get", "logs", "why", "ls", "config", "db", "doctor"]),
        words=st.lists(st.one_of(OPTIONS, WORDS), max_size=5),
    )
    def holds(verb: str, words: list[str]) -> None:
        assume("--traceback" not in words or "--help" in words)
        said = perdure(verb, *words)
        must_be_calm(said)

    holds()
    assert not (folder / "sprung").exists()


def test_strange_words_are_answered_calmly_by_real_processes(
    folder: Path, command_line_in: Any
) -> None:
    command_line = command_line_in(folder)

    for words in (
        ["show", os.fsdecode(b"\xff\xfe")],
        ["run", os.fsdecode(b"\xff.py")],
        ["run", "--id", os.fsdecode(b"\xff"), "fuzzed.py"],
        ["run", "fuzzed.py", "--name", os.fsdecode(b"\xff")],
        ["resume", "../../canary"],
        ["--store", "x"],
    ):
        ended = command_line(*words)
        must_be_calm(Said(ended.code, ended.out, ended.err))
        assert ended.code in {0, 2}, ended.err
