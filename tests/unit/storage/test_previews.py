"""Previews: small, quick, and never a reason to fail."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from tests.unit.storage.examples import Frozen, Model, Packed, Pair, Plain, Point, values

from perdure_storage.previews import LIMIT_BYTES, preview


def facts(value: Any, **options: Any) -> Any:
    text = preview(value, **options)
    found = json.loads(text)
    assert len(text.encode()) <= LIMIT_BYTES or "png" in found
    return found


@given(values)
def test_preview_of_any_value_is_short_json(value: Any) -> None:
    assert facts(value)["type"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {"type": "NoneType", "repr": "None"}),
        (True, {"type": "bool", "repr": "True"}),
        (-5, {"type": "int", "repr": "-5"}),
        (1.5, {"type": "float", "repr": "1.5"}),
        (math.nan, {"type": "float", "repr": "nan"}),
        ("a'b", {"type": "str", "length": 3, "repr": '"a\'b"'}),
        ([1, "x"], {"type": "list", "length": 2, "repr": "[1, 'x']"}),
        ((), {"type": "tuple", "length": 0, "repr": "()"}),
        ({"a": (1,)}, {"type": "dict", "length": 1, "repr": "{'a': (1)}"}),
    ],
)
def test_preview_says_type_and_value(value: Any, expected: Any) -> None:
    assert facts(value) == expected


def test_long_values_are_cut() -> None:
    assert facts(list(range(10_000)))["repr"] == "[0, 1, 2, 3, 4, 5, … 9,994 more]"
    assert facts("x" * 10_000)["repr"] == "'" + "x" * 120 + "'…"
    assert facts(10**1000)["repr"] == "int of 3322 bits"
    assert facts(10**5000)["repr"] == "int of 16610 bits"


def test_nested_values_are_cut_by_depth_and_width() -> None:
    value: Any = []
    for _ in range(100):
        value = [value] * 3

    assert len(facts(value)["repr"]) < 200


def test_value_that_contains_itself_has_a_preview() -> None:
    value: dict[str, Any] = {}
    value["me"] = value

    assert "me" in facts(value)["repr"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1, Point(2)), "Point(x=1, y=Point(x=2, y=None))"),
        (Pair(1, 2), "Pair(left=1, right=2)"),
        (Packed(1, 2), "Packed(a=1, b=2)"),
        (Frozen("n"), "Frozen(name='n', tags=frozenset())"),
        (Model(name="n"), "Model(name='n', scores=[])"),
    ],
)
def test_data_classes_show_their_fields(value: Any, text: str) -> None:
    assert facts(value)["repr"] == text


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


class MoreHostile(Hostile):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


class Verbose:
    def __repr__(self) -> str:
        return "long \ud800 " * 100_000


class HostileMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("no")


class HostileClass(metaclass=HostileMeta):
    pass


def test_hostile_objects_have_a_preview() -> None:
    assert "its repr raised RuntimeError" in facts(Hostile())["repr"]
    assert "long" in facts(Verbose())["repr"]
    assert facts([MoreHostile()])["type"] == "list"
    assert facts(MoreHostile())
    assert facts(HostileClass)
    assert facts(HostileClass())


def test_repr_of_a_large_object_is_not_called() -> None:
    assert "Hostile" in facts(Hostile(), size_bytes=10_000_000)["repr"]
    assert "raised" not in facts(Hostile(), size_bytes=10_000_000)["repr"]


def test_objects_without_a_repr_of_their_own_show_no_addresses() -> None:
    assert facts(Plain(1))["repr"] == "<tests.unit.storage.examples.Plain>"


def test_arrays_show_shape_dtype_and_head() -> None:
    assert facts(np.arange(6.0).reshape(2, 3)) == {
        "type": "numpy.ndarray",
        "shape": [2, 3],
        "dtype": "float64",
        "size_bytes": 48,
        "head": [0, 1, 2, 3, 4, 5],
    }
    assert facts(np.array([math.nan, 1j]))["head"] == ["(nan+0j)", "1j"]
    assert facts(np.zeros((3, 0)))["head"] == []
    objects = np.empty(1, object)
    objects[0] = MoreHostile()
    assert facts(objects)["shape"] == [1]
    assert facts(np.float64(3))["repr"] == "np.float64(3.0)"


@pytest.mark.parametrize(
    "frame",
    [
        pa.table({"a": [1, None], "b": ["x" * 100, "y"]}),
        pd.DataFrame({"a": [1, None], "b": ["x" * 100, "y"]}),
        pl.DataFrame({"a": [1, None], "b": ["x" * 100, "y"]}),
    ],
    ids=["arrow", "pandas", "polars"],
)
def test_frames_show_columns_and_first_rows(frame: Any) -> None:
    found = facts(frame)

    assert found["shape"] == [2, 2]
    assert list(found["columns"]) == ["a", "b"]
    assert found["rows"][0] == [1, "x" * 39 + "…"]
    assert len(found["rows"]) == 2


def test_frames_of_pandas_show_an_index_that_tells_something() -> None:
    sales = pd.DataFrame({"shop": ["a", "a", "b"], "day": [1, 2, 1], "sold": [3, 4, 5]})

    grouped = facts(sales.groupby(["shop", "day"]).sum())
    series = facts(sales.groupby("shop")["sold"].sum())
    named = facts(pd.DataFrame({"sold": [7]}, index=["b"]))

    assert grouped["columns"] == {"shop": "index", "day": "index", "sold": "int64"}
    assert grouped["rows"] == [["a", 1, 3], ["a", 2, 4], ["b", 1, 5]]
    assert (series["columns"], series["rows"]) == (
        {"shop": "index", "sold": "int64"},
        [["a", 7], ["b", 5]],
    )
    assert (named["columns"], named["rows"]) == ({"": "index", "sold": "int64"}, [["b", 7]])
    assert facts(pd.Series([1, 2]))["head"] == [1, 2]


def test_wide_frames_are_cut() -> None:
    wide = pl.DataFrame({f"column {'é' * 300} {n}": ["ü" * 100] * 50 for n in range(100)})

    assert facts(wide)["shape"] == [50, 100]


def test_figures_are_pictures() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2, 3])

    found = facts(figure)

    assert base64.b64decode(found["png"]).startswith(b"\x89PNG")
    assert len(found["png"]) < 50_000


@pytest.mark.parametrize("kind", [list, tuple, lambda figures: dict(enumerate(figures))])
def test_figures_in_a_list_are_pictures(kind: Callable[[Any], Any]) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2, 3])

    found = facts(kind([figure] * 6))

    assert [base64.b64decode(png)[1:4] for png in found["png"]] == [b"PNG"] * 4
    assert found["length"] == 6


def test_classes_and_functions_have_a_preview() -> None:
    assert facts(Plain)["repr"] == "<class 'tests.unit.storage.examples.Plain'>"
    assert facts(len)["repr"] == "<built-in function len>"
