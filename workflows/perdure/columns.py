"""Rows of text as aligned columns, for objects that are printed."""

from __future__ import annotations

from collections.abc import Sequence


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and rows as lines, each column as wide as its widest cell but for the last.

    Args:
        header: names of the columns.
        rows: one text for each column.
    """
    lines = [header, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths)), line[-1]]).rstrip()
        for line in lines
    )
