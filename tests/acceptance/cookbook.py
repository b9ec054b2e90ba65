"""Runs the failure cookbook in the working directory: ``python cookbook.py``.

Prints JSON: for each section the classes of the errors that its ``perdure`` commands ended with.
All commands run in this one process, which is what makes it quick; that they print what the page
says is another test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from perdure.cli.app import app
from perdure.cli.session import Session

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cookbook.md"
_PART = re.compile(
    r"^## (?P<section>\w+)$"
    r"|^```python file=(?P<file>\S+)\n(?P<body>.*?)^```$"
    r"|^\$ (?P<line>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)


def classes_met(text: str) -> dict[str, list[str]]:
    """Return the names of the classes of errors, causes included, by section."""
    met: dict[str, list[str]] = {}
    section = ""
    for part in _PART.finditer(text):
        if part["section"]:
            section = part["section"]
            met[section] = []
        elif part["file"]:
            Path(part["file"]).write_text(part["body"])
        else:
            met[section] += _type(part["line"])
    return met


def _type(line: str) -> list[str]:
    words = shlex.split(line)
    environment = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if words[0] != "perdure" or set(words) & {">", "&&"}:
        subprocess.run(["bash", "-c", line], capture_output=True, check=False)
        return []
    os.environ.update(environment)
    try:
        return [type(error).__name__ for error in _errors(words[1:])]
    finally:
        for name in environment:
            del os.environ[name]


def _errors(words: list[str]) -> Iterator[BaseException]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            app(words, standalone_mode=False, prog_name="perdure", obj=Session())
            return
        except Exception as error:  # noqa: BLE001 - whichever the recipe provokes
            met: BaseException | None = error
    while met is not None:
        yield met
        met = met.__cause__


if __name__ == "__main__":
    # The page is executed by test_docs.py too, maybe beside this: each serves at a port of its own.
    sys.stdout.write(json.dumps(classes_met(PAGE.read_text().replace("7412", "7413"))))
