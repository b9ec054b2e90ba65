"""The failure cookbook: every class of error is on it, as its docstring says, and is met there."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import perdure
from perdure.cli.app import app
from perdure.cli.session import Session
from perdure.options import OPTION_NAMES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for package in (
        "workflows/perdure",
        "scheduler/perdure_scheduler",
        "storage/perdure_storage",
    )
    for path in (ROOT / package).rglob("*.py")
    if not path.name.startswith("contract")
]


def load_filler() -> ModuleType:
    """Import the script that fills the page, which is in no package."""
    spec = importlib.util.spec_from_file_location("fill_cookbook", ROOT / "docs/fill_cookbook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILLER = load_filler()
TEXT = FILLER.PAGE.read_text()
CLASSES: dict[str, type[Exception]] = FILLER.error_classes()


def section_of(name: str) -> str:
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_page_says_what_the_classes_say_of_themselves() -> None:
    assert FILLER.filled(TEXT) == TEXT, "run: python docs/fill_cookbook.py"


def test_every_class_of_error_that_users_meet_is_on_the_page() -> None:
    assert sorted(FILLER.entries(TEXT)) == sorted(CLASSES)


def constructed() -> set[str]:
    """Return the names of classes that are called somewhere in the sources."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found.add(getattr(node.func, "id", getattr(node.func, "attr", "")))
    return found


def test_every_class_of_error_is_raised_somewhere() -> None:
    assert set(CLASSES) - constructed() == set()


@pytest.mark.timeout(300)
def test_every_recipe_meets_its_error(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    ended = subprocess.run(
        [sys.executable, ROOT / "tests/acceptance/cookbook.py"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    met: dict[str, list[str]] = json.loads(ended.stdout)
    # What a Python program meets, the page itself shows in its output, which is compared.
    printed = {
        name: "".join(re.findall(r"```console.*?```", section_of(name), re.S)) for name in met
    }
    unmet = [n for n in CLASSES if n not in met[n] and not re.search(rf"\b{n}\b", printed[n])]
    assert unmet == []


# --- what to type ---------------------------------------------------------------------------
def typed_commands() -> list[str]:
    """Return the commands that the page tells people to type."""
    told = re.findall(r"`(perdure [^`]+)`", TEXT)
    told += re.findall(r"(?:next|then|with): (perdure .+)$", TEXT, re.MULTILINE)
    return sorted({command for command in told if "VERB" not in command})


@pytest.mark.parametrize("command", typed_commands())
def test_command_that_is_to_be_typed_is_one(command: str) -> None:
    verb: Any = typer.main.get_command(app)
    session = Session()
    context = verb.make_context("perdure", [], obj=session, resilient_parsing=True)
    words = shlex.split(command)[1:]

    while hasattr(verb, "resolve_command") and words and not words[0].startswith("-"):
        _, verb, words = verb.resolve_command(context, words)
    try:
        verb.make_context(verb.name, words, parent=None, obj=session)
    except typer.Exit:  # --help
        pass


def test_python_that_is_to_be_typed_is_there() -> None:
    types = " ".join(re.findall(r"\*\*Type:\*\* (.*)", TEXT))

    names = set(re.findall(r"perdure\.([A-Za-z_]+)", types))
    options = set(re.findall(r"(?<![\w-])([a-z_]+)=", types))

    assert names <= set(perdure.__all__)
    assert names
    assert options <= {*OPTION_NAMES, *inspect.signature(perdure.run).parameters}
    assert options
