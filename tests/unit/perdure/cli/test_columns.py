from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perdure.cli.columns import Columns

ROWS = [
    ("nightly", "0 2 * * *", "[green]SUCCEEDED[/green]", "5 min ago"),
    ("每夜的运行", escape("[a] of [b]"), "[red]FAILED[/red]", ""),
    ("two\nlines", "", "QUEUED", "the last one, which says rather more than others do"),
]
NAMES = ("NAME", "WHEN", "STATUS", "LAST")


def drawn(table: object, width: int, *, colour: bool = False) -> list[str]:
    out = io.StringIO()
    system = "standard" if colour else None
    console = Console(file=out, width=width, color_system=system, highlight=False)
    console.print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def of_rich(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in NAMES:
        table.add_column(name, no_wrap=name == "STATUS", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def ours(rows: Sequence[Sequence[str]]) -> Columns:
    table = Columns(NAMES, whole=frozenset({"STATUS"}))
    for row in rows:
        table.add_row(*row)
    return table


@pytest.mark.parametrize("width", [1000, 90, 60, 40])
def test_columns_look_as_a_table_of_rich_without_frames(width: int) -> None:
    assert drawn(ours(ROWS), width) == drawn(of_rich(ROWS), width)


def test_columns_have_colours_on_a_terminal_alone() -> None:
    coloured, plain = drawn(ours(ROWS), 100, colour=True), drawn(ours(ROWS), 100)

    assert "\x1b[1mNAME" in coloured[0]
    assert "\x1b[32mSUCCEEDED\x1b[0m" in coloured[1]
    assert "\x1b" not in "".join(plain)


def test_columns_end_no_line_in_blanks() -> None:
    out = io.StringIO()
    Console(file=out, width=1000).print(ours(ROWS))

    assert not any(line.endswith(" ") for line in out.getvalue().splitlines())


@pytest.mark.parametrize("width", range(12, 60, 7))
def test_columns_are_never_wider_than_there_is_room(width: int) -> None:
    assert max(map(len, drawn(ours(ROWS), width))) <= width


def test_columns_without_a_line_are_a_header() -> None:
    assert drawn(ours([]), 80) == ["NAME  WHEN  STATUS  LAST"]
