"""A session of a notebook: runs cells in IPython, edits them one at a time, tells what ran.

Run as a script in the notebook's folder. It reads JSON, ``{"cells": {name: text}, "edits": [[row,
name, old, new], ...], "first": bool}``, and prints JSON by row: what ran, the result, and the
results of a run that takes nothing over and of the kernel itself, eagerly. In the first session the
run "base" is made.
"""

import json
import sys
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
RAN = Path("ran")


def cell(text: str) -> Any:
    """Run a cell under the next number and return its value."""
    done = shell.run_cell(text, store_history=True)
    done.raise_error()
    return done.result


def what_ran() -> list[str]:
    """Return what ran since the last look, sorted."""
    lines = sorted(RAN.read_text().splitlines()) if RAN.exists() else []
    RAN.unlink(missing_ok=True)
    return lines


def main() -> None:
    """Run the session."""
    asked = json.load(sys.stdin)
    cells, found = asked["cells"], {}
    for text in cells.values():
        cell(text)
    if asked["first"]:
        cell('flow.run(run_id="base")')
    what_ran()
    for row, name, old, new in asked["edits"]:
        edited = [cells[name].replace(old, new, 1)] if name else list(cells.values())[1:]
        for text in edited:
            cell(text)
        result = cell('flow.run(reuse="base")')
        ran = what_ran()
        afresh, eager = cell("flow.run()"), cell("flow()")
        found[row] = {"ran": ran, "result": result, "afresh": afresh, "eager": eager}
        what_ran()
        for text in cells.values():
            cell(text)
    print("FOUND" + json.dumps(found))


if __name__ == "__main__":
    main()
