"""Runs a project again and again, edited otherwise each time, each time in a process of its own.

Run as a script in an empty folder. It reads JSON, ``{"files": {name: text}, "edits": [[row, file,
old, new, inputs], ...]}``, and prints JSON by row: what ran and what came of it when a finished run
was taken over, and when one that had failed at its last step was run again by its id; and the
result of a run that takes nothing over. The processes are forked from one that imported perdure.
"""

import json
import multiprocessing
import os
import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import perdure
import perdure.client
import perdure.submission
from perdure.target import load_target

FLOW = Path("flow.py")


def in_a_process(**options: Any) -> Any:
    """Run the workflow of ``flow.py`` in a fork of this process; return its result, or None."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=run, args=(theirs, options))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def run(pipe: Connection, options: dict[str, Any]) -> None:
    """Run the workflow and send its result."""
    sys.path[:0] = [os.getcwd(), os.path.join(os.getcwd(), "site-packages")]
    try:
        pipe.send(perdure.run(load_target("flow.py:flow"), executor="inline", **options))
    except perdure.RunFailed:
        pipe.send(None)


def what_ran() -> list[str]:
    """Return what ran since the last look, sorted."""
    path = Path("ran")
    lines = sorted(path.read_text().splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def write(files: dict[str, str]) -> None:
    """Write the files of the project."""
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)


def main() -> None:
    """Make the runs."""
    asked, found = json.load(sys.stdin), {}
    write(asked["files"])
    Path("fail").touch()
    in_a_process(run_id="failed")
    Path("fail").unlink()
    in_a_process(run_id="whole")
    shutil.copytree(".perdure", "kept")
    for row, file, old, new, inputs in asked["edits"]:
        text = asked["files"].get(file, "")
        assert old in text, row
        write({**asked["files"], file: text.replace(old, new, 1)} if file else asked["files"])
        shutil.rmtree(".perdure")
        shutil.copytree("kept", ".perdure")
        what_ran()
        reused = in_a_process(reuse="whole", **inputs), what_ran()
        again = in_a_process(run_id="failed", **inputs), what_ran()
        found[row] = {"reuse": reused, "same id": again, "afresh": in_a_process(**inputs)}
    print("FOUND" + json.dumps(found))


if __name__ == "__main__":
    main()
