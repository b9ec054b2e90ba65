"""Whether somebody types Python into this process: asked of what is loaded, importing nothing."""

from __future__ import annotations

import linecache
import sys
from typing import Any


def find_ipython() -> Any:
    """Return the IPython shell of this process, a notebook's kernel or a terminal's, or None."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)  # None while it is imported
    return ask() if ask is not None else None


def cell_of(filename: str) -> str:
    """Return the number under which the cell ran whose code has this file name: ``"3"``, or ""."""
    shell = find_ipython()
    named = shell.compile.format_code_name(filename) if shell is not None else None
    return named[1].removeprefix("In[").removesuffix("]") if named and named[0] == "Cell" else ""


def cells() -> list[str]:
    """Return the file names of the cells that ran, the last one first."""
    if find_ipython() is None:
        return []
    numbers = {name: cell_of(name) for name in list(linecache.cache)}
    ran = [name for name, number in numbers.items() if number]
    return sorted(ran, key=lambda name: int(numbers[name]), reverse=True)


def current_cell() -> int | None:
    """Return what tells the cell that runs now from others, or None where nobody types Python."""
    number: int | None = getattr(find_ipython(), "execution_count", None)
    return number


def is_kernel() -> bool:
    """Say whether this process is the kernel of a notebook."""
    return getattr(find_ipython(), "kernel", None) is not None
