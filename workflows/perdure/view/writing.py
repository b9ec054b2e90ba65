"""A run's page as a file: there whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.view.page import GENERATOR, whole_page
from perdure.view.report import view_report
from perdure_storage.durable_files import replace_file

if TYPE_CHECKING:
    from perdure.runs import Run

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = 100
_HEAD_BYTES = 512


def write_report(run: Run, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a run's page into a file, and return where that is.

    Args:
        run: the run, as it stands now.
        path: where to; None: ``<run id>.html`` in the working folder. A file that is there is
            replaced.

    Raises:
        OSError: it cannot be written there.
    """
    target = Path(default_name(run.id) if path is None else path).expanduser().absolute()
    replace_file(target, page_of(run).encode())
    return target


def page_of(run: Run) -> str:
    """Return a run's page, as it stands now."""
    return whole_page(view_report(run))


def default_name(run_id: str) -> str:
    """Return the name of a run's page; what a user called the run never becomes a path."""
    return f"{_UNSAFE.sub('-', run_id)[:_NAME].strip('.-') or 'run'}.html"


def is_page(path: Path) -> bool:
    """Say whether a file is a page that was written here before: nothing is lost if it goes."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(_HEAD_BYTES)
