"""Lines of cells under a header, without frames: how lists of any length are drawn.

A table of Rich's measures and wraps each cell several times, which takes a second for 1,000 lines;
here a cell that fits, as nearly all do, is only padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

_GAP = 2
_HEADER = Style(bold=True)

Line = list[Segment]


class Columns:
    """A table that Rich can print: as wide as it needs to be, or folded into the width there is.

    Args:
        names: of the columns.
        whole: names of columns that are folded only when it is not enough to fold others.
    """

    def __init__(self, names: Sequence[str], whole: frozenset[str] = frozenset()) -> None:
        self._names = tuple(names)
        self._is_whole = [name in whole for name in names]
        self._rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a line, one cell a column, in Rich's markup."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows: list[list[str | Text]] = [
            [Text.assemble((name, _HEADER)) for name in self._names],
            *([_text(cell) for cell in row] for row in self._rows),
        ]
        needed = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        widths = self._fitted(needed, options.max_width)
        for row in rows:
            for line in _lines(console, row, widths):
                yield from line
                yield Segment.line()

    def _fitted(self, widths: list[int], room: int) -> list[int]:
        """Return widths that fit into ``room`` with the gaps between them: the widest give."""
        gaps = [*[_GAP] * (len(widths) - 1), 0]
        spans = [width + gap for width, gap in zip(widths, gaps, strict=True)]
        spans = _narrowed(spans, [not whole for whole in self._is_whole], room)
        spans = _narrowed(spans, [True] * len(spans), room)
        return [max(1, span - gap) for span, gap in zip(spans, gaps, strict=True)]


def _narrowed(spans: Sequence[int], may: Sequence[bool], room: int) -> list[int]:
    """Take from those that ``may`` give, always from the widest, until all fit or none can."""
    spans, least = list(spans), _GAP + 1
    while (excess := sum(spans) - room) > 0:
        able = [at for at, span in enumerate(spans) if may[at] and span > least]
        if not able:
            break
        widest = max(spans[at] for at in able)
        among = [at for at in able if spans[at] == widest]
        next_widest = max((spans[at] for at in able if spans[at] < widest), default=least)
        for left, at in zip(range(len(among), 0, -1), among, strict=True):
            given = min(widest - next_widest, round(excess / left))
            spans[at] -= given
            excess -= given
    return spans


def _text(cell: str) -> str | Text:
    """Return a cell as it is drawn: a ``Text`` only if it is marked up or has several lines."""
    if "[" not in cell and "\n" not in cell:
        return cell
    return _marked_up(cell)


@lru_cache(maxsize=1024)
def _marked_up(cell: str) -> Text:
    return Text.from_markup(cell, emoji=False)


def _width(cell: str | Text) -> int:
    if isinstance(cell, str):
        return len(cell) if cell.isascii() else cell_len(cell)
    return max((cell_len(line) for line in cell.plain.splitlines()), default=0)


def _lines(console: Console, row: Sequence[str | Text], widths: Sequence[int]) -> Iterator[Line]:
    """Yield the lines of a row: one, or as many as its longest cell is folded into."""
    folded = [_folded(console, cell, width) for cell, width in zip(row, widths, strict=True)]
    for at in range(max(map(len, folded))):
        line: Line = []
        pending = 0  # blanks are written when something follows: no line ends in any
        for cells, width in zip(folded, widths, strict=True):
            cell = cells[at] if at < len(cells) else ""
            used = _width(cell)
            if used:
                line += [Segment(" " * pending), *_segments(console, cell)]
                pending = 0
            pending += width - used + _GAP
        yield line


def _folded(console: Console, cell: str | Text, width: int) -> Sequence[str | Text]:
    if _width(cell) <= width and (isinstance(cell, str) or "\n" not in cell.plain):
        return (cell,)
    text = Text(cell) if isinstance(cell, str) else cell
    return list(text.wrap(console, width, overflow="fold")) or ("",)


def _segments(console: Console, cell: str | Text) -> Line:
    if isinstance(cell, str):
        return [Segment(cell)]
    return [segment for segment in cell.render(console) if segment.text != "\n"]
