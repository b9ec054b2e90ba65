"""A run's page as a file: there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.view.page import whole_page
from perdure.view.report import view_report
from perdure_storage.durable_files import temporary_name

if TYPE_CHECKING:
    from perdure.runs import Run

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = 100


def default_name(run_id: str) -> str:
    """Return the name of a run's page; what a user called it never becomes a path."""
    return f"{_UNSAFE.sub('-', run_id)[:_NAME].strip('.-') or 'run'}.html"


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
    page = whole_page(view_report(run))
    temporary = target.with_name(temporary_name())
    try:
        temporary.write_text(page, "utf-8")
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            temporary.unlink()
        raise
    return target
