"""Every Python and console block of README and docs, executed in the order of its page.

How a page is read:

- ```` ```python ```` blocks share one namespace, that of a script which is the page.
- ```` ```python file=NAME ```` writes a file; with `replace`, the functions of the block take the
  place of those of the same name in it.
- ```` ```console ````: lines that begin with ``$ `` are commands; those below are the output, in
  which a line ``...`` stands for any number of lines; ``[1]`` as the last one is the exit code.
- ```` ```sh ```` blocks set up an environment, which is `.ci/run`'s part.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the words after it, its text, and where it begins."""

    language: str
    words: tuple[str, ...]
    body: str
    line: int

    @property
    def file(self) -> str | None:
        names = [word.removeprefix("file=") for word in self.words if word.startswith("file=")]
        return names[0] if names else None


@dataclass(frozen=True)
class Command:
    """One command of a console block, with what the page says that it prints."""

    text: str
    output: tuple[str, ...]
    exit_code: int


def blocks_of(text: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language, tuple(words), match["body"], line))
    return found


def commands_of(body: str) -> list[Command]:
    commands = []
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        text, *output = part.splitlines()
        code = re.fullmatch(r"\[(\d+)\]", output[-1]) if output else None
        if code:
            output.pop()
        commands.append(Command(text, tuple(output), int(code[1]) if code else 0))
    return commands


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Say whether the output is what the page shows; `...` stands for any number of lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in expected
    )
    return re.fullmatch(pattern, printed) is not None


def replace_functions(old: str, new: str) -> str:
    """Put the functions of ``new`` in the place of those of the same name in ``old``."""
    lines = old.splitlines()
    spans = {node.name: node for node in ast.parse(old).body if isinstance(node, ast.FunctionDef)}
    for node in ast.parse(new).body:
        assert isinstance(node, ast.FunctionDef)
        there = spans[node.name]
        lines[there.lineno - 1 : there.end_lineno] = ast.unparse(node).splitlines()
    return "\n".join(lines) + "\n"


def run_console(block: Block, page: str) -> None:
    for command in commands_of(block.body):
        result = subprocess.run(
            ["bash", "-c", command.text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=110,
            check=False,
        )
        where = f"{page}:{block.line}: $ {command.text}\n{result.stdout}"
        # bash may replace itself by its only command; its own report of a signal is 128 + n.
        code = result.returncode if result.returncode >= 0 else 128 - result.returncode
        assert code == command.exit_code, f"exit {code} at {where}"
        assert matches(command.output, result.stdout), f"another output at {where}"


def write_file(block: Block) -> None:
    path = Path(str(block.file))
    if "replace" in block.words:
        path.write_text(replace_functions(path.read_text(), block.body))
    else:
        path.write_text(block.body)


def script_of(page: Path) -> str:
    """Return the page as one script: Python blocks as they are, the others as calls."""
    lines = [
        "import importlib.util",
        f"_spec = importlib.util.spec_from_file_location('_page', {__file__!r})",
    ]
    lines += [
        "_page = importlib.util.module_from_spec(_spec)",
        "import sys",
        "sys.modules['_page'] = _page",
    ]
    lines += [
        "_spec.loader.exec_module(_page)",
        f"_blocks = _page.blocks_of(open({str(page)!r}).read())",
    ]
    for index, block in enumerate(blocks_of(page.read_text())):
        if block.language == "python" and block.file is None:
            lines += [f"# line {block.line} of the page", block.body]
        elif block.language == "python":
            lines.append(f"_page.write_file(_blocks[{index}])")
        elif block.language == "console":
            lines.append(f"_page.run_console(_blocks[{index}], {page.name!r})")
    return "\n".join(lines)


def has_code(page: Path) -> bool:
    return any(block.language in {"python", "console"} for block in blocks_of(page.read_text()))


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if has_code(p)]
)
def test_page_does_what_it_says_in_a_fresh_folder(page: Path, tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(script_of(page))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    result = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=115,
        check=False,
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_page_has_only_fences_that_somebody_executes(page: Path) -> None:
    languages = {block.language for block in blocks_of(page.read_text())}

    assert languages <= {"python", "console", "sh", "text", "mermaid"}


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_page_links_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_guarantees_name_tests_that_are_there() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    promised = page[page.index("## Promised") : page.index("## Not promised")]
    sources = [*(ROOT / "tests").rglob("*.py"), *ROOT.glob("*/perdure*/**/contract*.py")]
    there = set(re.findall(r"def (test_\w+)", "\n".join(path.read_text() for path in sources)))

    promises = re.split(r"^\d+\. ", promised, flags=re.MULTILINE)[1:]
    named = [set(re.findall(r"`(test_\w+)`", promise)) for promise in promises]

    assert len(promises) == 7
    assert all(named), "a promise without a test"
    assert set().union(*named) - there == set()
