"""What commands import: most of what people wait for is imports, and those can be counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.many_runs import fill

HEAVY = {"alembic", "apscheduler", "cloudpickle", "fsspec", "numpy", "pandas", "psycopg", "pyarrow"}
HEAVY |= {"IPython", "anywidget", "perdure.notebook"}
FIRST = """
from perdure import task, workflow

@task
def answer():
    return 42

@workflow
def first():
    return answer.bind()

assert first.run() == 42
"""
DRIVING = {"perdure.engine.coordinator", "perdure.executors.processes", "perdure.submission"}


def imported_by(*words: str, folder: Path) -> set[str]:
    """Return the modules that a Python imports which gets these words."""
    command = [sys.executable, "-X", "importtime", *words]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}


def test_import_of_perdure_loads_nothing_heavy(tmp_path: Path) -> None:
    imported = imported_by("-c", "import perdure", folder=tmp_path)

    assert "perdure.task" in imported
    assert not imported & (HEAVY | DRIVING | {"sqlalchemy", "rich", "typer", "asyncio"})


def test_command_that_looks_loads_nothing_that_drives_runs(tmp_path: Path) -> None:
    home = tmp_path / ".perdure"
    fill(f"sqlite:///{home / 'perdure.db'}", str(home / "blobs"), 2)

    imported = imported_by("-m", "perdure", "ls", folder=tmp_path)

    assert "perdure_storage.sql_runs" in imported
    assert not imported & (HEAVY | DRIVING | {"sqlalchemy", "asyncio"})


def test_first_run_over_a_new_file_loads_neither_sqlalchemy_nor_an_event_loop(
    tmp_path: Path,
) -> None:
    (tmp_path / "first.py").write_text(FIRST)

    imported = imported_by("first.py", folder=tmp_path)

    assert imported >= DRIVING
    assert not imported & {"alembic", "sqlalchemy", "asyncio"}
