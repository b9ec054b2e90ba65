"""Arrays and frames: exact, without a copy, writable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from perdure_storage.codecs import Codecs, Encoded
from perdure_storage.errors import NotSerializable

_CODECS = Codecs()


def written(encoded: Encoded) -> memoryview:
    data = b"".join(encoded.buffers)
    assert len(data) == encoded.size_bytes
    return memoryview(bytearray(data))


def round_trip(value: Any, codec: str, codecs: Codecs = _CODECS) -> Any:
    encoded = codecs.encode(value)
    assert encoded.codec == codec
    return codecs.decode(encoded.codec, written(encoded))


arrays = npst.arrays(
    dtype=st.one_of(
        npst.scalar_dtypes(),
        npst.unicode_string_dtypes(),
        npst.byte_string_dtypes(),
        npst.array_dtypes(npst.scalar_dtypes(), max_size=3),
    ),
    shape=npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(arrays)
def test_arrays_come_back_exactly(array: Any) -> None:
    back = round_trip(array, "numpy/1")

    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_array_in_memory_order_of_columns_keeps_it() -> None:
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))

    back = round_trip(array, "numpy/1")

    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous
    assert (back == array).all()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(40)[::3],
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(3_000_000.0).reshape(1000, 3000)[:, ::2],
        np.arange(3_000_000).view("M8[s]").reshape(3, -1)[:, ::-1],
    ],
    ids=["strided", "transposed", "broadcast", "large", "large dates"],
)
def test_array_that_is_not_contiguous_comes_back_whole(array: Any) -> None:
    back = round_trip(array, "numpy/1")

    assert back.dtype == array.dtype
    assert (back == array).all()


def test_large_strided_array_is_written_in_small_pieces() -> None:
    array = np.zeros((4000, 2000))[:, ::2]

    sizes = [memoryview(piece).nbytes for piece in _CODECS.encode(array).buffers]

    assert max(sizes) <= 4 << 20
    assert sum(sizes) == _CODECS.encode(array).size_bytes


@pytest.mark.parametrize(
    "scalar",
    [np.float32(1.5), np.int8(-1), np.datetime64("2026-01-01"), np.True_, np.str_("x")],
)
def test_numpy_scalars_stay_numpy_scalars(scalar: Any) -> None:
    back = round_trip(scalar, "numpy/1")

    assert type(back) is type(scalar)
    assert back == scalar


def test_array_lies_at_a_multiple_of_64_bytes_and_is_not_copied() -> None:
    array = np.arange(1000.0)
    encoded = _CODECS.encode(array)
    data = written(encoded)

    back = _CODECS.decode(encoded.codec, data)
    back[0] = 42.0

    assert (encoded.size_bytes - array.nbytes) % 64 == 0
    assert np.shares_memory(back, np.frombuffer(data, np.uint8))
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in encoded.buffers)
    assert np.frombuffer(data, np.float64)[-1000] == 42.0


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}, None]),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.array([1, 2], dtype=np.dtype("i4", metadata={"unit": "m"})),
        np.array(["a", "long" * 20], dtype=np.dtypes.StringDType()),
    ],
    ids=["objects", "masked", "metadata", "strings"],
)
def test_other_arrays_are_pickled_exactly(value: Any) -> None:
    back = round_trip(value, "pickle/1")

    assert type(back) is type(value)
    assert back.dtype == value.dtype
    assert back.dtype.metadata == value.dtype.metadata
    assert back.tolist() == value.tolist()


def test_arrays_inside_other_values_are_kept_out_of_band() -> None:
    value = {"weights": np.arange(1000.0), "note": ("x",), "more": [np.ones((30, 30))]}
    encoded = _CODECS.encode(value)
    data = written(encoded)

    back = _CODECS.decode(encoded.codec, data)
    back["weights"][0] = -1

    assert encoded.codec == "pickle/1"
    assert np.shares_memory(back["weights"], np.frombuffer(data, np.uint8))
    assert (back["more"][0] == 1).all()
    assert back["note"] == ("x",)
    at = back["weights"].ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
    assert at % 64 == 0


def test_large_bytes_inside_other_values_are_not_copied_to_be_written() -> None:
    blob = bytes(5_000_000)

    encoded = _CODECS.encode({"image": blob})

    assert any(part is blob for part in encoded.buffers)
    assert _CODECS.decode(encoded.codec, written(encoded)) == {"image": blob}


# --- Arrow, polars ------------------------------------------------------------------------------
def _table() -> Any:
    return pa.table(
        {
            "i": pa.array([1, None, 3], pa.int16()),
            "s": ["a", None, "c"],
            "l": [[1], None, []],
            "d": pa.array(["u", None, "u"]).dictionary_encode(),
            "v": pa.array(["u", None, "long text beyond twelve bytes"], pa.string_view()),
        },
        metadata={"k": "v"},
    )


def test_tables_come_back_exactly() -> None:
    table = _table()

    back = round_trip(table, "arrow/1")

    assert type(back) is pa.Table
    assert back.equals(table, check_metadata=True)
    assert back.schema.metadata == {b"k": b"v"}


@pytest.mark.parametrize("table", [pa.table({}), _table().slice(0, 0), _table().slice(1, 1)])
def test_empty_and_sliced_tables_come_back(table: Any) -> None:
    assert round_trip(table, "arrow/1").equals(table)


def test_record_batch_stays_one() -> None:
    (batch,) = _table().to_batches()

    back = round_trip(batch, "arrow/1")

    assert type(back) is pa.RecordBatch
    assert back.equals(batch, check_metadata=True)


def test_table_is_neither_copied_to_be_written_nor_to_be_read() -> None:
    table = pa.table({"a": np.arange(100_000.0)})
    encoded = _CODECS.encode(table)
    data = written(encoded)

    back = _CODECS.decode(encoded.codec, data)

    source = table["a"].chunk(0).to_numpy()
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), source) for part in encoded.buffers)
    assert np.shares_memory(back["a"].chunk(0).to_numpy(), np.frombuffer(data, np.uint8))


def test_stored_table_is_an_ordinary_arrow_stream() -> None:
    data = written(_CODECS.encode(_table()))

    assert pa.ipc.open_stream(pa.py_buffer(data)).read_all().equals(_table())


def _polars_frame() -> Any:
    return pl.DataFrame(
        {
            "x": ["a", None, "b" * 40],
            "c": pl.Series(["u", "v", None], dtype=pl.Categorical),
            "e": pl.Series(["u", None, "v"], dtype=pl.Enum(["u", "v", "w"])),
            "l": [[1], None, [2, 3]],
            "s": [{"q": 1}, None, {"q": 2}],
            "f": [1.5, None, float("nan")],
        }
    )


def test_polars_frames_and_series_come_back_exactly() -> None:
    frame = _polars_frame()

    back = round_trip(frame, "arrow/1")

    assert back.equals(frame)
    assert back.schema == frame.schema
    for name in frame.columns:
        series = round_trip(frame[name], "arrow/1")
        assert type(series) is pl.Series
        assert series.equals(frame[name], check_names=True, check_dtypes=True)


@pytest.mark.parametrize("value", [pl.DataFrame(), pl.DataFrame({"o": [object]}, strict=False)])
def test_polars_frames_that_arrow_cannot_say_are_pickled_or_refused(value: Any) -> None:
    try:
        encoded = _CODECS.encode(value)
    except NotSerializable:
        return  # polars itself cannot store Python objects
    assert encoded.codec == "pickle/1"


# --- pandas -------------------------------------------------------------------------------------
def _pandas_frame() -> Any:
    return pd.DataFrame(
        {
            "i": np.arange(4),
            "i8": np.arange(4, dtype=np.int8),
            "u": np.arange(4, dtype=np.uint32),
            "f": [1.0, np.nan, -0.0, np.inf],
            "f4": np.arange(4, dtype=np.float32),
            "b": [True, False, True, True],
            "s": ["a", None, "c", ""],
            "t": pd.to_datetime(["2026-01-01", None, "2026-01-03", "1969-01-01"]),
            "z": pd.date_range("2026-03-28", periods=4, tz="Europe/Berlin"),
            "d": pd.to_timedelta([1, None, 3, 4], unit="s"),
            "c": pd.Categorical(["x", None, "y", "x"], categories=["y", "x", "unused"]),
            "o": pd.Categorical([1, 2, 1, 2], ordered=True),
            "I": pd.array([1, None, 3, 4], dtype="Int64"),
            "B": pd.array([True, None, False, True], dtype="boolean"),
            "F": pd.array([1.5, None, 2.5, 0.0], dtype="Float32"),
            "S": pd.array(["a", None, "b", "c"], dtype="string[python]"),
        }
    )


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(4),
        pd.RangeIndex(10, 2, -2, name="n"),
        pd.Index([4, 3, 2, 1], name="k"),
        pd.Index([1.5, np.nan, 2, 3]),
        pd.Index(["a", "b", "c", "d"]),
        pd.Index(["a", "b", "c", "d"], dtype=object),
        pd.date_range("2026-01-01", periods=4, freq="D"),
        pd.date_range("2026-01-01", periods=4, freq="2h", tz="UTC"),
        pd.DatetimeIndex(["2026-01-01", "2027-01-01", "2025-01-01", None]),
    ],
    ids=lambda index: f"{type(index).__name__}-{index.dtype}",
)
def test_pandas_frames_come_back_exactly_with_their_index(index: Any) -> None:
    frame = _pandas_frame().set_axis(index)

    back = round_trip(frame, "arrow/1")

    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=True)
    assert back.dtypes.equals(frame.dtypes)
    assert type(back.index) is type(frame.index)


@pytest.mark.parametrize("name", list(_pandas_frame().columns))
def test_pandas_series_come_back_exactly(name: str) -> None:
    series = _pandas_frame()[name]

    for each in (series, series.rename(None), series.iloc[1:3], series[::2]):
        back = round_trip(each, "arrow/1")
        pd.testing.assert_series_equal(back, each, check_exact=True)


@pytest.mark.parametrize("name", list(_pandas_frame().columns))
def test_empty_pandas_series_come_back_exactly(name: str) -> None:
    series = _pandas_frame()[name].iloc[:0]

    # Without rows Arrow writes no categories: those go by pickle.
    back = round_trip(series, "pickle/1" if name in "co" else "arrow/1")

    pd.testing.assert_series_equal(back, series, check_exact=True)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame(index=pd.RangeIndex(3)),
        pd.DataFrame(np.arange(6.0).reshape(2, 3)),
        pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=pd.Index(["a", "b", "c"], name="axis")),
        pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype=object)),
    ],
)
def test_pandas_columns_come_back_exactly(frame: Any) -> None:
    pd.testing.assert_frame_equal(round_trip(frame, "arrow/1"), frame)


def _with_attributes() -> Any:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["unit"] = "m"
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"o": pd.Series([1, "x", None], dtype=object)}),
        pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")])),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[(1, 2), "b"]),
        pd.DataFrame({"p": pd.period_range("2026", periods=2, freq="M")}),
        pd.DataFrame({"c": np.array([1j, 2])}),
        pd.DataFrame({"a": [1]}, index=pd.Index([b"x"], dtype=object)),
        _with_attributes(),
    ],
    ids=["objects", "levels", "twice", "tuples", "periods", "complex", "bytes", "attrs"],
)
def test_pandas_frames_that_arrow_would_change_are_pickled(frame: Any) -> None:
    back = round_trip(frame, "pickle/1")

    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == frame.attrs
    with pytest.raises(NotSerializable):
        Codecs(allow_pickle=False).encode(frame)


def test_pandas_columns_are_views_and_can_be_written_to() -> None:
    frame = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000)})
    encoded = _CODECS.encode(frame)
    data = written(encoded)

    back = _CODECS.decode(encoded.codec, data)
    back.loc[0, "a"] = 42.0
    back.iloc[1, 1] = 43

    assert np.shares_memory(back["a"].to_numpy(), np.frombuffer(data, np.uint8))
    assert back["a"].tolist()[:2] == [42.0, 1.0]
    assert back["b"].tolist()[:2] == [0, 43]
    assert frame["a"][0] == 0.0


# --- torch --------------------------------------------------------------------------------------
def test_torch_tensors_come_back_exactly() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.ones(2, requires_grad=True),
    ):
        back = round_trip(tensor, "torch/1")

        assert back.dtype == tensor.dtype
        assert back.shape == tensor.shape
        assert back.requires_grad == tensor.requires_grad
        assert torch.equal(back, tensor)
        assert _CODECS.digest(back) == _CODECS.digest(tensor)
        assert _CODECS.digest(tensor).startswith("v1:")
