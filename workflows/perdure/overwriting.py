"""Files that are written for somebody: why not there, said before anything is read for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def never(path: Path) -> bool:
    """Let no file go that is there."""
    return False


def always(path: Path) -> bool:
    """Let any file go that is there."""
    return True


def refusal(
    target: Path, *, may_go: Callable[[Path], bool], forcing: str, example: str
) -> tuple[str, str] | None:
    """Return why nothing is written there and what to do about it; None if it can be.

    Args:
        target: the file.
        may_go: says of a file that is there whether it is overwritten.
        forcing: what makes it so in any case.
        example: a name for a file in a folder.
    """
    if target.is_dir():
        return f"{target} is a folder", f"name a file in it, such as {target / example}"
    if not target.parent.is_dir():
        return f"there is no folder {target.parent}", f"make it: mkdir -p {target.parent}"
    if target.exists() and not target.is_file():
        return f"{target} is no plain file", ""
    if target.exists() and not may_go(target):
        return f"{target} exists", f"{forcing} overwrites it"
    return None
