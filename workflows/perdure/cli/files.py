"""Files that commands write, refused before anything is read, and files that they read."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from perdure.cli.endings import UsageError
from perdure.overwriting import always, never, refusal
from perdure_storage.temporary_folders import TemporaryFolder

STREAM = "-"
"""As the name of a file: the standard output, or the standard input."""


def target_of(
    output: str,
    *,
    force: bool,
    may_go: Callable[[Path], bool] = never,
    example: str = "value.json",
) -> Path | None:
    """Return the file to write, None for the standard output.

    Args:
        output: what was typed.
        force: whether a file that is there is overwritten.
        may_go: says of a file that is there whether it is overwritten in any case.
        example: a name for a file in a folder.

    Raises:
        UsageError: nothing can be written there, or something else would be lost.
    """
    if not output.strip():
        raise UsageError("where to? Say -o FILE, or -o - for the standard output")
    if output == STREAM:
        return None
    target = Path(output).expanduser()
    refused = refusal(
        target, may_go=always if force else may_go, forcing="--force", example=example
    )
    if refused is not None:
        said, remedy = refused
        raise UsageError(said, remedy or "-o - writes to the standard output")
    return target


@contextmanager
def given(file: Path) -> Generator[Path]:
    """Let a file be read for the time of the block; ``-`` is what comes on the standard input."""
    if str(file) != STREAM:
        yield file
        return
    folder = TemporaryFolder()
    try:
        path = folder.path / "standard-input"
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        yield path
    finally:
        folder.close()


def unwritable(target: Path, error: OSError) -> UsageError:
    """Return what is said where a file cannot be written."""
    folder = shlex.quote(str(target.parent))
    return UsageError(
        f"{target} cannot be written: {error.strerror or error}",
        f"name another place, or look at this one: `ls -ld {folder}`, `df -h {folder}`",
    )
