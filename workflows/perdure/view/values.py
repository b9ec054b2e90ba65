"""Values as they looked when they were stored, as elements: tables, figures, short forms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from perdure import words
from perdure.view.markup import Content, Element, element
from perdure.view.model import Preview
from perdure_storage.previews import INDEX

_SHORT = 80
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")
"""Base 64 of what begins as PNG files do."""


def draw_value(preview: Preview | None) -> Content:
    """Return what a value looked like: what it is, then its rows, its figure or its items."""
    if not preview:
        return None
    seen = preview.get("repr")
    if isinstance(seen, str) and len(seen) <= _SHORT and "png" not in preview and "\n" not in seen:
        return [element("code", seen), " ", element("small", str(preview.get("type", "")))]
    return element("div", _facts(preview), _body(preview), class_="value")


def _facts(preview: Preview) -> Element:
    facts = [str(preview.get("type", ""))]
    if isinstance(preview.get("shape"), list):
        facts.append(" × ".join(_number(each) for each in preview["shape"]))
    elif "length" in preview:
        facts.append(f"length {_number(preview['length'])}")
    if preview.get("dtype"):
        facts.append(str(preview["dtype"]))
    return element("p", " · ".join(filter(None, facts)), class_="type")


def _body(preview: Preview) -> Content:
    if isinstance(preview.get("rows"), list):
        return _table(preview)
    if figures := [*_figures(preview)]:
        return figures
    if isinstance(preview.get("head"), list):
        items = ", ".join(map(str, preview["head"]))
        is_cut = math.prod(_whole(preview)) > len(preview["head"])
        return element("pre", f"[{items}{', …' if is_cut else ''}]")
    return element("pre", str(preview["repr"])) if "repr" in preview else None


def _figures(preview: Preview) -> Iterator[Content]:
    """Yield its figure, or the first of several and how many more there are."""
    found = preview.get("png")
    figures = found if isinstance(found, list) else [found]
    for each in figures:
        if isinstance(each, str) and _PNG.fullmatch(each):
            yield element("img", src=f"data:image/png;base64,{each}", alt="figure")
    length = preview.get("length")
    left = length - len(figures) if isinstance(found, list) and isinstance(length, int) else 0
    if left > 0:
        yield element("p", f"and {words.count_of(left, 'more item')}", class_="more")


def _table(preview: Preview) -> Element:
    rows = [row for row in preview["rows"] if isinstance(row, list)]
    columns = preview.get("columns")
    names = columns.items() if isinstance(columns, dict) else ()
    shown = (len(rows), sum(kind != INDEX for _, kind in names))
    hidden = [
        words.count_of(there - here, f"more {noun}")
        for there, here, noun in zip(_whole(preview), shown, ("row", "column"))
        if there > here
    ]
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", (_heading(name, kind) for name, kind in names))),
            element("tbody", (element("tr", _cells(row)) for row in rows)),
        ),
        element("p", f"and {', '.join(hidden)}", class_="more") if hidden else None,
        class_="rows",
    )


def _whole(preview: Preview) -> list[int]:
    shape = preview.get("shape")
    return [each if _is_int(each) else 0 for each in shape] if isinstance(shape, list) else []


def _heading(name: str, kind: Any) -> Element:
    return element("th", name, element("small", str(kind)))


def _cells(row: Iterable[Any]) -> Iterable[Element]:
    for cell in row:
        is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
        text = "" if cell is None else str(cell)
        yield element("td", text, class_="number" if is_number else None)


def _number(value: Any) -> str:
    return f"{value:,}" if _is_int(value) else str(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
