"""The reference is whole: what the code has is on its pages, and each page can be reached."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

import perdure
from perdure import Perdure, errors
from perdure.cli.app import app
from perdure.options import OPTION_NAMES
from perdure.settings import KEYS
from perdure_storage.lifecycle import RunStatus, StepStatus

DOCS = Path(__file__).resolve().parents[2] / "docs"
VERBS = (
    "run", "resume", "rerun", "fork", "spin", "up", "demo", "ls", "show", "logs", "why", "explain",
    "diff", "cat", "get", "cancel", "pause", "delete", "export", "import", "gc", "db check",
    "db backup", "db upgrade", "config show", "doctor",
)  # fmt: skip


def test_python_reference_has_every_public_name() -> None:
    page = (DOCS / "reference" / "api.md").read_text()

    documented = set(re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)", page, re.MULTILINE))

    assert set(perdure.__all__) - documented == set()


def test_python_reference_has_each_verb_of_a_store_too() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    members = re.search(r"^\.\. autoclass:: Perdure\n   :members: (.*)$", page, re.MULTILINE)
    verbs = [name for name in perdure.__all__ if hasattr(Perdure, name)]

    assert members is not None
    assert "run" in verbs
    assert set(verbs) - set(members[1].split(", ")) == set()


def test_command_line_reference_has_every_verb_and_option() -> None:
    page = from_code().fill_in((DOCS / "reference" / "cli.md").read_text())
    sections = {part.partition("\n")[0]: part for part in re.split(r"^#+ ", page, flags=re.M)}

    missing = [
        f"{path}: {word}"
        for path, command in commands(typer.main.get_command(app), "perdure")
        for each in command.params
        for word in each.opts
        if word.startswith("-") and f"`{word}`" not in sections.get(path, "")
    ]

    assert missing == []
    assert {f"perdure {verb}" for verb in VERBS} <= set(sections)


def test_reference_has_every_setting_option_status_and_error() -> None:
    parts = {name: make() for name, make in from_code().PARTS.items()}

    assert [key for key in KEYS if f"`PERDURE_{key.upper()}`" not in parts["settings"]] == []
    assert [name for name in OPTION_NAMES if f"| `{name}` |" not in parts["task options"]] == []
    assert [name for name in RunStatus if name not in parts["run statuses"]] == ["INTERRUPTED"]
    assert [name for name in StepStatus if name not in parts["step statuses"]] == []
    assert [name for name in errors.__all__ if name[0].isupper()] == [
        name for name in errors.__all__ if f"`{name}`" in parts["errors"] or name == "Failure"
    ]


def test_pages_that_are_filled_in_say_so_to_whoever_reads_them_in_the_repository() -> None:
    build = '`pip install -e ".[docs]"`, then `python -m sphinx -b html docs build/site`'

    for name in ("cli", "settings", "task-options", "errors"):
        page = (DOCS / "reference" / f"{name}.md").read_text()
        before, mark, _ = page.partition("<!-- from the code: ")
        assert mark
        assert build in before
        assert before.rstrip().endswith("at once.")


def test_every_page_is_in_the_index_of_the_site() -> None:
    index = (DOCS / "index.md").read_text()
    trees = re.findall(r"^```{toctree}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
    entries = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]

    listed = {path for entry in entries for path in DOCS.glob(f"{entry}.md")}

    assert set(DOCS.rglob("*.md")) - listed == {DOCS / "index.md"}


def test_index_for_language_models_leads_to_every_page_for_users() -> None:
    text = (DOCS / "llms.txt").read_text()
    pages = [*DOCS.glob("tutorial/*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("reference/*.md")]

    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", text, re.MULTILINE)

    assert re.match(r"# perdure\n\n> \S", text)
    assert [link for link in links if not (DOCS / link).is_file()] == []
    assert {str(page.relative_to(DOCS)) for page in pages} - set(links) == {"howto/index.md"}


def from_code() -> ModuleType:
    """Return the module with which the site fills in what the code says."""
    spec = importlib.util.spec_from_file_location("from_code", DOCS / "from_code.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line with the words that lead to it."""
    if not command.hidden:
        yield path, command
        for name, below in getattr(command, "commands", {}).items():
            yield from commands(below, f"{path} {name}")
