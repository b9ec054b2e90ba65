"""A run's page as a file: there whole or not at all, and in place of no other file."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import DefinitionError
from perdure.overwriting import always, refusal
from perdure.view.page import GENERATOR, whole_page
from perdure.view.report import view_report
from perdure_storage.durable_files import replace_file

if TYPE_CHECKING:
    from perdure.runs import Run

EXAMPLE = "run.html"
_UNSAFE = re.compile(r"[^\w.-]+")
_NAME_BYTES = 100
_HEAD_BYTES = 512


def write_report(
    run: Run, path: str | os.PathLike[str] | None = None, *, force: bool = False
) -> Path:
    """Write a run's page into a file, and return where that is.

    Args:
        run: the run, as it stands now.
        path: where to; None: ``<run id>.html`` in the working folder. A page that is there is
            replaced.
        force: whether any other file is replaced too.

    Raises:
        DefinitionError: no file can be there, or one would be lost.
        OSError: it cannot be written there.
    """
    target = Path(default_name(run.id) if path is None else path).expanduser().absolute()
    refused = refusal(
        target, may_go=always if force else is_page, forcing="force=True", example=EXAMPLE
    )
    if refused is not None:
        raise DefinitionError("; ".join(filter(None, refused)))
    try:
        replace_file(target, page_of(run).encode())
    except OSError as error:  # which names the file that takes the other one's place
        raise OSError(error.errno, error.strerror, str(target)) from None
    return target


def page_of(run: Run) -> str:
    """Return a run's page, as it stands now."""
    return whole_page(view_report(run))


def default_name(run_id: str) -> str:
    """Return the name of a run's page; what a user called the run never becomes a path.

    Where a name cannot have all of the id, it ends in a digest of that: no two runs have one page.
    """
    safe = _UNSAFE.sub("-", run_id).encode()[:_NAME_BYTES].decode(errors="ignore").strip(".-")
    if safe == run_id:
        return f"{safe}.html"
    digest = hashlib.blake2b(run_id.encode(), digest_size=4).hexdigest()
    return f"{safe or 'run'}-{digest}.html"


def is_page(path: Path) -> bool:
    """Say whether a file is a page that was written here before: nothing is lost if it goes."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(_HEAD_BYTES)
