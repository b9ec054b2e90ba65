from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from perdure.cli.endings import UsageError
from perdure.cli.formats import FORMATS, write, writer_for, writer_for_stdout


@dataclasses.dataclass
class Point:
    x: float
    at: datetime


def written(value: Any, suffix: str) -> bytes:
    file = io.BytesIO()
    write(value, writer_for(suffix, value), file, suffix)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, None, "ö"]}, {"a": [1, None, "ö"]}),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (Point(0.5, datetime(2026, 1, 1, tzinfo=UTC)), {"x": 0.5, "at": "2026-01-01T00:00:00Z"}),
        ({"n": np.float32(0.5), "a": np.arange(3)}, {"n": 0.5, "a": [0, 1, 2]}),
        (10**30, 10**30),
    ],
)
def test_json_says_what_json_can(value: Any, expected: Any) -> None:
    assert json.loads(written(value, ".json")) == expected


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {"x": ...},
        {(1, 2): 3},
        "\udcff",
        pd.DataFrame({"a": [1]}),
    ],
    ids=repr,
)
def test_json_is_refused_for_what_it_would_change(value: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot be written as \.json"):
        written(value, ".json")


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, 2]}),
        pa.record_batch({"a": [1, 2]}),
        pd.DataFrame({"a": [1, 2]}),
        pd.Series([1, 2], name="a"),
        pl.DataFrame({"a": [1, 2]}),
        pl.Series("a", [1, 2]),
    ],
    ids=lambda table: f"{type(table).__module__.partition('.')[0]} {type(table).__name__}",
)
def test_tables_of_all_libraries_are_written_as_tables(table: Any) -> None:
    parquet = pyarrow.parquet.read_table(io.BytesIO(written(table, ".parquet")))
    arrow = pa.ipc.open_file(written(table, ".arrow")).read_all()
    csv = written(table, ".CSV").decode().splitlines()

    assert parquet.column("a").to_pylist() == arrow.column("a").to_pylist() == [1, 2]
    assert csv == ['"a"', "1", "2"]


def test_table_with_lists_in_it_is_no_csv() -> None:
    with pytest.raises(UsageError, match="flat columns"):
        written(pa.table({"a": [[1], [2]]}), ".csv")


def test_frame_that_arrow_cannot_say_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be written as \.parquet"):
        written(pd.DataFrame({"a": [1, "x", object()]}), ".parquet")


def test_array_of_objects_is_no_npy() -> None:
    with pytest.raises(UsageError, match="Python objects"):
        written(np.array([object()]), ".npy")


def test_text_and_bytes_go_into_files_of_any_other_suffix() -> None:
    assert written("ö", ".md") == "ö".encode()
    assert written(b"\xff", ".png") == b"\xff"
    assert written("ö", "") == "ö".encode()


def test_anything_else_needs_a_suffix_that_says_how() -> None:
    with pytest.raises(UsageError) as caught:
        writer_for(".foo", object())

    assert all(suffix in caught.value.hint for suffix in FORMATS)


def test_standard_output_gets_text_and_bytes_as_they_are_and_json_of_the_rest() -> None:
    assert writer_for_stdout([1]) is FORMATS[".json"]
    assert writer_for_stdout("x") is writer_for_stdout(b"x")
    assert writer_for_stdout("x") is not FORMATS[".json"]
