"""Value digests: equal for equal values, different for different ones, opaque where unknown."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.storage.examples import (
    Access,
    Caching,
    Color,
    Frozen,
    Level,
    Model,
    MyDict,
    MyInt,
    MyList,
    OwnState,
    Packed,
    Pair,
    Plain,
    Point,
    values,
)

from perdure_storage.codecs import Codecs
from perdure_storage.digests import canonical_digest, integrity_digest, value_digest

NAN = float("nan")

DISTINCT: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, NAN, math.inf, -math.inf, 2**70, 1j, 1 + 0j),
    *("", "1", "None", "\ud800", b"", b"1", bytearray(b"1"), ...),
    *([], (), {}, set(), frozenset(), [1], (1,), [1.0], [True], [[1]], [(1,)], [None]),
    *({1}, frozenset({1}), {"1"}, {1: None}, {"1": None}, {True: None}, {1.0: None}),
    *([1, 2], [2, 1], [[1], 2], [1, [2]], [12], ["1", "2"], ["12"]),
    *({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": {"b": 1}}, {"a": 1}, {"b": 1}, {"a": (1,)}),
    *(date(2026, 1, 1), datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01"),
    *(datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), datetime(2026, 1, 1, fold=1), time(1)),
    *(timezone(timedelta(hours=1)), ZoneInfo("Europe/Berlin"), timedelta(1), timedelta(0, 1)),
    *(Decimal("1"), Decimal("1.0"), UUID(int=1), pathlib.PurePosixPath("a"), range(3), range(4)),
    *(pathlib.Path("a"), pathlib.PureWindowsPath("a")),
    *(Color.RED, Color.GREEN, Level.LOW, Access.READ, Access.READ | Access.WRITE),
    *(Point(1), Point(1.0), Point(None, 1), Pair(1, None), Packed(1), Frozen("1"), Model(name="1")),
    *(Model(name="1", scores=[]), Frozen("1", frozenset({"a"}))),
    *(np.float64(1), np.int64(1), np.array(1.0), np.array([1.0]), np.array([1]), np.array([[1.0]])),
    *(np.array([1.0], np.float32), np.array([1], ">i8"), np.array(["1"]), np.array([1], "M8[s]")),
    *(np.zeros(0), np.zeros((0, 1)), np.array([None]), np.array([None, 1]), np.dtype("i4")),
    *(pa.table({"a": [1]}), pa.table({"a": [1.0]}), pa.table({"b": [1]}), pa.table({"a": [None]})),
    *(pa.table({"a": ["1"]}), pa.table({"a": [[1]]}), pa.table({"a": [{"x": 1}]}), pa.table({})),
    *(pa.table({"a": [1, None]}), pa.table({"a": [None, 1]}), pa.table({"a": ["", None]})),
    *(pa.table({"a": ["ab", "c"]}), pa.table({"a": ["a", "bc"]}), pa.table({"a": [True]})),
    *(pa.table({"a": [[1], [2]]}), pa.table({"a": [[1, 2], []]}), pa.table({"a": [[], [1, 2]]})),
    *(pa.record_batch({"a": [1]}), pl.DataFrame({"a": [1]}), pl.Series("a", [1])),
    *(pl.DataFrame({"a": ["x"]}), pl.DataFrame({"a": ["x"]}, schema={"a": pl.Categorical})),
    *(pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[1]), pd.Series([1]), pd.Index([1])),
    *(pd.DataFrame({"a": [1.0]}), pd.Series([1], name="a"), pd.Series(["x"]), pd.Series([1, None])),
    *(pd.Series(["x"], dtype=object), pd.Series(["x"], dtype="category"), pd.Series([1], [2])),
    *(pd.Series([1], dtype="Int64"), pd.Series(pd.to_datetime(["2026-01-01"], utc=True))),
    *(len, math.sin, int, str, functools.partial(int, "1"), functools.partial(int, base=1)),
    *(collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1), collections.Counter()),
    *(collections.Counter("a"), collections.defaultdict(int), collections.defaultdict(list)),
    *(collections.deque([1]), collections.deque([1], 2)),
]


def test_values_that_differ_have_different_digests() -> None:
    found: dict[str, Any] = {}

    for value in DISTINCT:
        digest = canonical_digest(value)
        assert digest is not None, value
        assert digest not in found, (value, found.get(digest))
        found[digest] = value


def test_digest_says_its_kind_and_is_hexadecimal() -> None:
    assert re.fullmatch(r"v1:[0-9a-f]{64}", value_digest([1]))
    assert re.fullmatch(r"opaque:[0-9a-f]{64}", value_digest(Plain(1)))


@given(values)
def test_value_read_again_has_the_same_digest(value: Any) -> None:
    codecs = Codecs()
    encoded = codecs.encode(value)

    back = codecs.decode(encoded.codec, memoryview(bytearray(b"".join(encoded.buffers))))

    assert codecs.digest(back) == codecs.digest(value, encoded)
    assert codecs.digest(value).startswith("v1:")


@given(st.dictionaries(st.one_of(st.text(), st.integers(), st.tuples(st.text())), values))
def test_order_of_a_dict_does_not_matter(value: dict[Any, Any]) -> None:
    assert canonical_digest(dict(reversed(value.items()))) == canonical_digest(value)


def test_shared_parts_count_as_often_as_they_occur() -> None:
    row: list[Any] = [1, (2,)]

    assert canonical_digest([row, row]) == canonical_digest([[1, (2,)], [1, (2,)]])
    assert canonical_digest([[3], [3]]) == canonical_digest([[3]] * 2)


def test_value_of_astronomic_size_written_out_is_digested_in_no_time() -> None:
    def doubled(depth: int) -> list[Any]:
        value: list[Any] = [0]
        for _ in range(depth):
            value = [value, value]
        return value

    assert canonical_digest(doubled(100)) == canonical_digest(doubled(100))
    assert canonical_digest(doubled(100)) != canonical_digest(doubled(99))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: [float(i) for i in range(n)],
        lambda n: {str(i): i for i in range(n)},
        lambda n: set(range(n)),
        lambda n: [[i, str(i)] for i in range(n)],
        lambda n: tuple(range(n)),
        lambda n: {i: (i,) for i in range(n)},
    ],
)
def test_large_values_are_told_apart_by_any_part(make: Callable[[int], Any]) -> None:
    assert canonical_digest(make(150_000)) == canonical_digest(make(150_000))
    assert canonical_digest(make(150_000)) != canonical_digest(make(149_999))


@pytest.mark.parametrize(
    "value",
    [
        Plain(1),
        MyInt(1),
        MyDict(),
        MyList(),
        OwnState(1),
        lambda: 1,
        "x".join,
        ValueError("x"),
        iter([1]),
        np.array([Plain(1)]),
        np.zeros(1, np.longdouble),
        np.zeros(1, np.dtype([("a", "i1"), ("b", "i8")], align=True)),
        np.ma.masked_array([1]),
        pl.LazyFrame({"a": [1]}),
        pd.Series([Plain(1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unknown_objects_are_opaque_wherever_they_are(value: Any) -> None:
    assert canonical_digest(value) is None
    assert canonical_digest([1, {"a": (value,)}]) is None
    assert canonical_digest(Point(value)) is None


def test_value_that_contains_itself_is_opaque() -> None:
    value: dict[str, Any] = {}
    value["self"] = [value]

    assert canonical_digest(value) is None


def test_very_deep_value_is_opaque() -> None:
    value: Any = ()
    for _ in range(100_000):
        value = (value,)

    assert canonical_digest(value) is None


def test_data_class_with_more_than_its_fields_is_opaque() -> None:
    value = Caching(2)
    assert canonical_digest(value) is not None

    assert value.double == 4

    assert canonical_digest(value) is None


def test_opaque_digest_follows_the_encoded_bytes() -> None:
    codecs = Codecs()
    encoded = codecs.encode(Plain(1))
    integrity = integrity_digest(encoded.buffers)

    assert codecs.digest(Plain(1), encoded) == "opaque:" + integrity.removeprefix("blake3:")
    assert codecs.digest(Plain(1)) == codecs.digest(Plain(1), encoded, integrity=integrity)


def test_functions_and_classes_go_by_their_code() -> None:
    def code(value: Any) -> str:
        return f"code of {value.__name__}"

    def one() -> None: ...

    assert canonical_digest([one], code) == canonical_digest([one], code)
    assert canonical_digest(one, code) != canonical_digest(Plain, code)
    assert canonical_digest(one) is None


def test_code_digest_that_fails_makes_the_value_opaque() -> None:
    def fails(value: Any) -> str:
        raise RuntimeError

    assert canonical_digest(Plain, fails) is None


def test_every_nan_is_the_same() -> None:
    assert canonical_digest([math.nan]) == canonical_digest([float("-nan")])


# --- arrays and frames --------------------------------------------------------------------------
def test_layout_of_an_array_does_not_matter() -> None:
    whole = np.arange(24.0).reshape(4, 6)
    wide = np.zeros((4, 12))
    wide[:, ::2] = whole

    digests = {
        canonical_digest(array)
        for array in (
            whole,
            np.asfortranarray(whole),
            wide[:, ::2],
            whole[::-1][::-1],
            whole.copy(),
        )
    }

    assert len(digests) == 1
    assert canonical_digest(whole.T) not in digests


def test_large_strided_array_has_the_digest_of_its_copy() -> None:
    wide = np.arange(2_000_000.0).reshape(1000, 2000)

    assert canonical_digest(wide[:, ::3]) == canonical_digest(wide[:, ::3].copy())
    assert Codecs().digest(wide.T) == canonical_digest(wide.T.copy())


def test_array_is_hashed_once_for_both_digests() -> None:
    codecs = Codecs()
    array = np.arange(10.0)
    encoded = codecs.encode(array)

    derived = codecs.digest(array, encoded, integrity=integrity_digest(encoded.buffers))

    assert derived == canonical_digest(array) == value_digest(array)


def test_chunks_slices_and_hidden_bytes_of_a_table_do_not_matter() -> None:
    columns: dict[str, Any] = {
        "i": [1, None, 3, 4],
        "s": ["a", "", None, "d"],
        "b": [True, None, False, True],
        "l": [[1], None, [], [None, 2]],
        "st": [{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 2, "y": None}],
        "d": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "m": pa.array([[("k", 1)], None, [], [("l", 2)]], pa.map_(pa.string(), pa.int64())),
        "dec": pa.array([1, None, 2, 3], pa.decimal128(10, 2)),
        "f": pa.array([b"ab", None, b"cd", b"ef"], pa.binary(2)),
    }
    table = pa.table(columns)

    cut = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    sliced = pa.concat_tables([table, table, table]).slice(4, 4)

    assert canonical_digest(cut) == canonical_digest(table)
    assert canonical_digest(sliced) == canonical_digest(table)
    for column in columns:
        changed = table.set_column(0, "i", table[column]).slice(1)
        assert canonical_digest(changed) != canonical_digest(table.slice(1)) or column == "i"


def test_metadata_of_a_schema_matters() -> None:
    table = pa.table({"a": [1]})

    assert canonical_digest(table.replace_schema_metadata({"k": "v"})) != canonical_digest(table)


def test_chunks_of_a_polars_frame_do_not_matter() -> None:
    frame = pl.DataFrame({"a": ["x", None, "y"], "b": [[1], [], None]})

    cut = pl.concat([frame[:1], frame[1:]], rechunk=False)

    assert canonical_digest(cut) == canonical_digest(frame)


def test_blocks_of_a_pandas_frame_do_not_matter() -> None:
    one = pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"])
    two = pd.DataFrame({"a": [0.0, 2.0, 4.0]})
    two["b"] = [1.0, 3.0, 5.0]

    assert canonical_digest(one) == canonical_digest(two)


# --- other processes ----------------------------------------------------------------------------
_PROGRAM = """
import sys
sys.path[:0] = [{root!r}]
from tests.unit.storage.test_digests import DISTINCT, across_processes
from perdure_storage.digests import canonical_digest
print(*map(canonical_digest, [*DISTINCT, *across_processes()]))
"""


class Fruit(Enum):
    APPLE = 1


def across_processes() -> list[Any]:
    """Return values whose order in memory depends on the hash seed."""
    words = [f"word {n}" for n in range(100)]
    return [
        set(words),
        frozenset(map(str.encode, words)),
        {word: {word} for word in words},
        Point(set(words), {frozenset(words[:3]): 1}),
        {Fruit.APPLE, *itertools.product(words[:3], repeat=2)},
    ]


def test_digests_are_the_same_in_processes_with_other_hash_seeds() -> None:
    root = str(pathlib.Path(__file__).parents[3])
    expected = [canonical_digest(value) for value in [*DISTINCT, *across_processes()]]

    for seed in ("0", "1", "4242"):
        said = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(root=root)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.split() == expected


def test_data_classes_of_a_script_have_one_name_however_it_was_started() -> None:
    from perdure_storage.shapes import SCRIPT_PREFIX

    def make(module: str) -> Any:
        cls = dataclasses.make_dataclass("P", ["x"])
        cls.__module__ = module
        return cls(1)

    assert canonical_digest(make("__main__")) == canonical_digest(make(SCRIPT_PREFIX + "iris_1"))
    assert canonical_digest(make("__main__")) != canonical_digest(make("iris"))
