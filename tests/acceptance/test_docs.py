"""Every Python and console block of the pages, executed in the order of its page.

How a page is read:

- ```` ```python ```` blocks share one namespace, that of a script which is the page.
- ```` ```text output ````, after one of these: what it prints, with ``...`` as below.
- ```` ```python file=NAME ```` writes a file, in any language; with `replace`, the functions of
  the block take the place of those of the same name in it.
- ```` ```console ````: lines that begin with ``$ `` are commands, which those that begin with
  ``> `` continue; those below are the output, in
  which a line ``...`` stands for any number of lines, and ``...`` within a line for any text of
  it; ``[1]`` as the last one is the exit code.
- ``needs=postgres`` at one of them: it finds the URL of a server in ``$POSTGRES``; ``needs=s3``:
  that of a bucket in ``$S3``; ``needs=curl``:
  the page is read where there is that program; ``needs=ray``: the block is left out where there is
  no Ray.
- ```` ```sh ```` blocks are for a machine that the page is not read on: they set up an environment
  or a server.
- ```` ```{...} ```` blocks are Sphinx's: `.ci/run` builds the site.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
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
        while output and output[0].startswith("> "):
            text += "\n" + output.pop(0).removeprefix("> ")
        code = re.fullmatch(r"\[(\d+)\]", output[-1]) if output else None
        if code:
            output.pop()
        commands.append(Command(text, tuple(output), int(code[1]) if code else 0))
    return commands


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Say whether the output is what the page shows, where `...` stands for anything."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected
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
            timeout=120,
            check=False,
        )
        where = f"{page}:{block.line}: $ {command.text}\n{result.stdout}"
        # bash may replace itself by its only command; its own report of a signal is 128 + n.
        code = result.returncode if result.returncode >= 0 else 128 - result.returncode
        assert code == command.exit_code, f"exit {code} at {where}"
        assert matches(command.output, result.stdout), f"another output at {where}"


def catch_output() -> io.StringIO:
    """Take what is printed from here on."""
    sys.stdout = io.StringIO()
    return sys.stdout


def check_output(caught: io.StringIO, following: list[Block], page: str) -> None:
    """Compare what was printed with the block that shows it, if the next one does."""
    sys.stdout = sys.__stdout__
    print(caught.getvalue(), end="")
    if following and "output" in following[0].words:
        shown = tuple(following[0].body.splitlines())
        assert matches(shown, caught.getvalue()), f"another output at {page}:{following[0].line}"


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
        if "needs=ray" in block.words and importlib.util.find_spec("ray") is None:
            continue
        if block.file is not None:
            lines.append(f"_page.write_file(_blocks[{index}])")
        elif block.language == "python":
            lines += ["_caught = _page.catch_output()", f"# line {block.line}", block.body]
            lines.append(f"_page.check_output(_caught, _blocks[{index + 1}:], {page.name!r})")
        elif block.language == "console":
            lines.append(f"_page.run_console(_blocks[{index}], {page.name!r})")
    return "\n".join(lines)


def has_code(page: Path) -> bool:
    return any(block.language in {"python", "console"} for block in blocks_of(page.read_text()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if has_code(p)]
)
def test_page_does_what_it_says_in_a_fresh_folder(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needs = {word for block in blocks_of(page.read_text()) for word in block.words}
    if "needs=curl" in needs and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    (tmp_path / "page.py").write_text(script_of(page))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bucket = request.getfixturevalue("s3_bucket") if "needs=s3" in needs else ""
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "S3": bucket}
    if "needs=postgres" in needs:
        environment["POSTGRES"] = request.getfixturevalue("postgres_url")

    result = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=290,
        check=False,
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_page_has_only_fences_that_somebody_executes(page: Path) -> None:
    blocks = [each for each in blocks_of(page.read_text()) if each.file is None]

    languages = {each.language for each in blocks if not each.language.startswith("{")}

    assert languages <= {"python", "console", "sh", "text", "toml"}


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_page_links_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_guarantees_name_tests_that_are_there() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    promised = page[page.index("## Promised") : page.index("## Not promised")]

    promises = re.split(r"^\d+\. ", promised, flags=re.MULTILINE)[1:]
    proofs = [re.findall(r"`(\S+\.py)::(test_\w+)`", promise) for promise in promises]

    assert len(promises) == 13
    assert all(proofs), "a promise without a test"
    assert [
        f"{file}::{name}" for each in proofs for file, name in each if not _has(file, name)
    ] == []


def _has(file: str, name: str) -> bool:
    path = ROOT / file
    return path.exists() and re.search(rf"def {name}\b", path.read_text()) is not None
