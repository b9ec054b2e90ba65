from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.perdure.view.test_page import PNG, Page

from perdure.view.markup import element
from perdure.view.values import draw_value
from perdure_storage.previews import preview


def drawn(seen: dict[str, Any] | None) -> Page:
    return Page(str(element("div", draw_value(seen))))


def test_short_value_is_one_line() -> None:
    page = drawn(msgspec.json.decode(preview({"k": 3})))

    assert page.text == "{'k': 3} dict"


def test_long_value_has_its_type_its_length_and_room() -> None:
    page = drawn(msgspec.json.decode(preview(["word " * 9] * 5000)))

    assert "list · length 5,000" in page.text
    assert page.named("pre")


def test_table_shows_its_first_rows_and_how_many_are_left() -> None:
    pd = pytest.importorskip("pandas")

    page = drawn(msgspec.json.decode(preview(pd.DataFrame({"speed": range(50)}))))

    assert "pandas.DataFrame · 50 × 1" in page.text
    assert len(page.named("tr")) == 6
    assert "and 45 more rows" in page.text


def test_table_says_how_many_columns_are_left() -> None:
    seen = {
        "type": "DataFrame",
        "shape": [500, 42],
        "columns": {f"c{n}": "int64" for n in range(12)},
        "rows": [[0] * 12] * 5,
    }

    assert "and 495 more rows, 30 more columns" in Page(str(element("div", draw_value(seen)))).text


def test_index_of_a_table_is_none_of_its_columns() -> None:
    seen = {
        "type": "DataFrame",
        "shape": [1, 2],
        "columns": {"day": "index", "sold": "int64"},
        "rows": [["mon", 3]],
    }

    assert "and 1 more column" in drawn(seen).text


def test_series_that_is_whole_has_no_dots() -> None:
    pd = pytest.importorskip("pandas")

    page = drawn(msgspec.json.decode(preview(pd.Series([1, 2, 3]))))

    assert "[1, 2, 3]" in page.text


def test_array_shows_its_shape_and_its_first_items() -> None:
    np = pytest.importorskip("numpy")

    page = drawn(msgspec.json.decode(preview(np.zeros((40, 30)))))

    assert "numpy.ndarray · 40 × 30 · float64" in page.text
    assert "[0.0, 0.0," in page.text


def test_figure_is_shown_and_what_pretends_to_be_one_is_not() -> None:
    assert drawn({"type": "Figure", "png": PNG}).named("img")
    assert not drawn({"type": "Figure", "png": "AAAA"}).named("img")


def test_figures_of_a_list_are_shown_and_how_many_more_there_are() -> None:
    found = drawn({"type": "list", "repr": "[...]", "length": 6, "png": [PNG, "AAAA", PNG, PNG]})

    assert len(found.named("img")) == 3
    assert "and 2 more items" in found.text


def test_nothing_is_shown_of_a_value_that_left_nothing() -> None:
    assert drawn(None).text == ""
