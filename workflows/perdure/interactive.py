"""Whether somebody types Python into this process: asked of what is loaded, importing nothing."""

from __future__ import annotations

import linecache
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any


def find_ipython() -> Any:
    """Return the IPython shell of this process, a notebook's kernel or a terminal's, or None."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)  # None while it is imported
    return ask() if ask is not None else None


_recorded: dict[str, str] = {}
"""Cells of kernels that are elsewhere, or gone: their numbers by file name, as runs have them."""


def is_cell(filename: str) -> bool:
    """Say whether code of this file name was typed, as into a notebook's cell."""
    return filename.startswith("<") or is_notebooks(filename)


def is_notebooks(filename: str) -> bool:
    """Say whether a file name is one that IPython makes up for a cell."""
    return f"{os.sep}ipykernel_" in filename or filename.startswith("<ipython-input")


def cell_of(filename: str) -> str:
    """Return the number under which the cell ran whose code has this file name: ``"3"``, or "".

    Asked of the shell of this process, then of what was recorded with the runs that it knows.
    """
    return _own_cell_of(filename) or _recorded.get(filename, "")


def note_cells(numbers: Mapping[str, str]) -> None:
    """Keep in mind which cells these are, by file name: a worker has no shell to ask."""
    _recorded.update(numbers)


def _own_cell_of(filename: str) -> str:
    shell = find_ipython()
    named = shell.compile.format_code_name(filename) if shell is not None else None
    return named[1].removeprefix("In[").removesuffix("]") if named and named[0] == "Cell" else ""


def cells() -> list[str]:
    """Return the file names of the cells that ran, the last one first."""
    if find_ipython() is None:
        return []
    numbers = {name: _own_cell_of(name) for name in list(linecache.cache)}
    ran = [name for name, number in numbers.items() if number]
    return sorted(ran, key=lambda name: int(numbers[name]), reverse=True)


def current_cell() -> int | None:
    """Return what tells the cell that runs now from others, or None where nobody types Python."""
    number: int | None = getattr(find_ipython(), "execution_count", None)
    return number


def is_kernel() -> bool:
    """Say whether this process is the kernel of a notebook."""
    return getattr(find_ipython(), "kernel", None) is not None


_FRAME = re.compile(r'  File "([^"]+)", line (\d+)(, in .*)?')


def with_cells(text: str) -> str:
    """Return a traceback with cells by their numbers, as IPython calls them.

    A worker has no source of a cell; in its kernel it is at hand, under a name that is made of
    its text.
    """
    knows_cells = find_ipython() is not None or bool(_recorded)
    return "".join(_lines_with_cells(text)) if knows_cells else text


def has_frames(text: str) -> bool:
    """Say whether a traceback says where, in a file or a cell: some have the message alone."""
    return "  File " in text or "  Cell In[" in text


def _lines_with_cells(text: str) -> Iterator[str]:
    lines = text.splitlines(keepends=True)
    for line, following in zip(lines, [*lines[1:], ""]):
        frame = _FRAME.fullmatch(line.rstrip("\n"))
        cell = cell_of(frame[1]) if frame else ""
        if frame is None or not cell:
            yield line
            continue
        yield f"  Cell In[{cell}], line {frame[2]}{frame[3] or ''}\n"
        source = linecache.getline(frame[1], int(frame[2])).strip()
        if source and not following.startswith("    "):
            yield f"    {source}\n"
