"""Files that commands write: refused before anything is read, and named as they were typed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from perdure.cli.endings import UsageError

STDOUT = "-"


def target_of(
    output: str, *, force: bool, may_go: Callable[[Path], bool] = lambda path: False
) -> Path | None:
    """Return the file to write, None for the standard output.

    Args:
        output: what was typed.
        force: whether a file that is there is overwritten.
        may_go: says of a file that is there whether it is overwritten in any case.

    Raises:
        UsageError: nothing can be written there, or something else would be lost.
    """
    if not output.strip():
        raise UsageError("where to? Say -o FILE, or -o - for the standard output")
    if output == STDOUT:
        return None
    target = Path(output).expanduser()
    if target.is_dir():
        raise UsageError(
            f"{target} is a folder: name a file in it, such as {target / 'value.json'}"
        )
    if not target.parent.is_dir():
        raise UsageError(
            f"there is no folder {target.parent}", f"make it: mkdir -p {target.parent}"
        )
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no plain file", "-o - writes to the standard output")
    if target.exists() and not force and not may_go(target):
        raise UsageError(f"{target} exists", "--force overwrites it")
    return target


def unwritable(target: Path, error: OSError) -> UsageError:
    """Return what is said where a file cannot be written."""
    folder = shlex.quote(str(target.parent))
    return UsageError(
        f"{target} cannot be written: {error.strerror or error}",
        f"name another place, or look at this one: `ls -ld {folder}`, `df -h {folder}`",
    )
