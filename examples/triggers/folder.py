"""Cluster each table of irises that lands in a folder, once, whoever restarts meanwhile.

    perdure up examples/triggers/folder.py                   # watches ./incoming
    cp examples/iris/iris.csv incoming/monday.csv            # in another terminal

    perdure trigger arrivals landed
    cat iris-reports/monday/report.md

A file counts when it has been quiet for a second. Files that land while nothing serves are found
when `perdure up` is there again; what had its run gets no other, however often it is listed.
"""

import os
import sys
from pathlib import Path

from perdure import Files, Trigger, event, task, workflow

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "iris"))

from iris import iris  # noqa: E402  (it lies in the folder beside this one)

INCOMING = Path(os.environ.get("INCOMING", "incoming")).absolute()
REPORTS = Path(os.environ.get("REPORTS", "iris-reports")).absolute()


@task
def report_folder(table: Path) -> Path:
    """Return where the report of a table goes: under its own name."""
    return REPORTS / table.stem


@workflow
def clusters(table: Path, k: int | None = None) -> str:
    """Run the whole of the iris workflow on one table."""
    return iris.bind(table, k, report_folder.bind(table))


landed = Trigger(
    "landed",
    clusters,
    on=Files(f"{INCOMING}/*.csv", stable_for="1s"),
    where=event.size > 0,
    inputs={"table": event.path, "k": 3},
)
