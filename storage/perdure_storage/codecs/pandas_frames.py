"""pandas frames as Arrow tables that become the very same frames again.

pyarrow's own conversion is not exact: it makes nulls of NaN, forgets the frequency of an index,
and gives read-only columns. So columns are laid out here: numbers as their raw items, NaN included.
A frame with anything that is not covered (objects, several levels, unusual types) is left to
pickle, which keeps pandas' own buffers out of band.
"""

from __future__ import annotations

from typing import Any

Note = dict[str, Any]

_COPIED_UP_TO_BYTES = 1 << 20
_MASKED = frozenset(
    {"boolean", "Float32", "Float64"}
    | {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)


class Inexact(Exception):
    """Arrow would change this part of a frame."""


def table_from_frame(value: Any, *, frugal: bool) -> tuple[Any, Note] | None:
    """Return a table and what is to be noted beside it, or None if it would not be exact.

    Args:
        value: an object of pandas.
        frugal: return None rather than copy a large column.
    """
    import pandas as pd

    try:
        if type(value) is pd.Series:
            return _from_series(value, frugal)
        return _from_frame(value, frugal) if type(value) is pd.DataFrame else None
    except Inexact:
        return None


def _from_series(series: Any, frugal: bool) -> tuple[Any, Note]:
    table, note = _from_frame(series.to_frame("value"), frugal)
    return table, {**note, "kind": "pandas series", "name": _plain_name(series.name)}


def _from_frame(frame: Any, frugal: bool) -> tuple[Any, Note]:
    import pyarrow as pa

    if frame.attrs or not frame.flags.allows_duplicate_labels:
        raise Inexact("notes of its own")
    names, columns_note = _from_columns(frame.columns)
    arrays, notes = [], []
    for at in range(len(names)):
        array, note = _from_array(frame.iloc[:, at].array, frugal)
        arrays.append(array)
        notes.append(note)
    index_note, index_array = _from_index(frame.index, frugal)
    if index_array is not None:
        arrays.append(index_array)
        names.append("__index__")
    table = pa.Table.from_arrays(arrays, names=names)
    return table, {"kind": "pandas", "columns": columns_note, "dtypes": notes, "index": index_note}


def _plain_name(name: Any) -> Any:
    if name is None or type(name) in (str, int):
        return name
    raise Inexact("a name that is neither text nor a number")


def _from_columns(columns: Any) -> tuple[list[str], Note]:
    import pandas as pd

    note: Note = {"name": _plain_name(columns.name)}
    if type(columns) is pd.RangeIndex:
        note["range"] = [columns.start, columns.stop, columns.step]
        return [str(name) for name in columns], note
    names = columns.tolist() if type(columns) is pd.Index else None
    if names is None or set(map(type, names)) - {str} or len(set(names)) < len(names):
        raise Inexact("columns that are not named by text")
    if "__index__" in names:
        raise Inexact("a column of our own name")
    note["dtype"] = _text_dtype(columns.dtype)
    return names, note


def _text_dtype(dtype: Any) -> Any:
    import pandas as pd

    if dtype.kind == "O" and not isinstance(dtype, pd.StringDtype):
        return "object"
    if type(dtype) is pd.StringDtype:
        return ["string", dtype.storage, "nan" if dtype.na_value is not pd.NA else "NA"]
    raise Inexact("labels of an unusual type")


def _text_dtype_from(note: Any) -> Any:
    import numpy as np
    import pandas as pd

    if note == "object":
        return np.dtype(object)
    return pd.StringDtype(note[1], na_value=pd.NA if note[2] == "NA" else np.nan)


def _from_index(index: Any, frugal: bool) -> tuple[Note, Any]:
    import pandas as pd

    note: Note = {"name": _plain_name(index.name)}
    if type(index) is pd.RangeIndex:
        return {**note, "range": [index.start, index.stop, index.step]}, None
    if type(index) is pd.DatetimeIndex:
        note["freq"] = None if index.freq is None else index.freqstr
        if index.freq is not None and pd.tseries.frequencies.to_offset(note["freq"]) != index.freq:
            raise Inexact("a frequency that its name does not give again")
    elif type(index) is not pd.Index:
        raise Inexact("an index of an unusual kind")
    if index.dtype == object:
        items = index.tolist()
        if set(map(type, items)) - {str}:
            raise Inexact("labels that are not text")
        import pyarrow as pa

        return {**note, "dtype": "object"}, pa.array(items, pa.large_string())
    array, dtype = _from_array(index.array, frugal)
    return {**note, "dtype": dtype}, array


def _from_array(values: Any, frugal: bool) -> tuple[Any, Any]:
    """Return an Arrow array and a note of the dtype. Raises Inexact."""
    import pandas as pd
    import pyarrow as pa

    dtype = values.dtype
    if type(dtype) is pd.CategoricalDtype:
        return _from_categorical(values)
    if type(dtype) is pd.DatetimeTZDtype:
        from perdure_storage.digests import Opaque, zone_name

        try:
            zone = zone_name(dtype.tz)
        except Opaque:
            raise Inexact("a time zone of an unknown kind") from None
        return _from_numpy(values.asi8.view(f"M8[{dtype.unit}]"), frugal)[0], ["zone", zone]
    if type(dtype) is pd.StringDtype:
        return pa.chunked_array(pa.array(values)), _text_dtype(dtype)
    if str(dtype) in _MASKED:
        return pa.array(values), ["masked", str(dtype)]
    is_numpy = isinstance(values, pd.arrays.NumpyExtensionArray)
    if not is_numpy and isinstance(dtype, pd.api.extensions.ExtensionDtype):
        raise Inexact(f"dtype {dtype}")
    return _from_numpy(values.to_numpy(copy=False), frugal)


def _from_numpy(values: Any, frugal: bool) -> tuple[Any, Any]:
    import numpy as np
    import pyarrow as pa

    dtype = values.dtype
    if dtype.kind not in "biufmM" or not dtype.isnative or dtype.char in "g":
        raise Inexact(f"dtype {dtype}")
    if not values.flags.c_contiguous:
        if frugal and values.nbytes > _COPIED_UP_TO_BYTES:
            raise Inexact("a large column that is not contiguous")
        values = np.ascontiguousarray(values)
    if dtype.kind == "b":
        return pa.array(values), dtype.str
    bitmap = None
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)
        if unit[0] not in ("s", "ms", "us", "ns") or unit[1] != 1:
            raise Inexact(f"dtype {dtype}")
        absent = np.isnat(values)
        if absent.any():
            bitmap = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    kind = pa.from_numpy_dtype(dtype)
    data = pa.py_buffer(values.view(np.uint8))
    return pa.Array.from_buffers(kind, len(values), [bitmap, data]), dtype.str


def _from_categorical(values: Any) -> tuple[Any, Any]:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    categories = values.categories
    if len(values) == 0:
        raise Inexact("a stream without rows has no dictionary")
    if type(categories) is not pd.Index or categories.name is not None:
        raise Inexact("categories of an unusual kind")
    if categories.dtype == np.int64:
        note: Any = "int64"
    else:
        note = _text_dtype(categories.dtype)
        if set(map(type, categories.tolist())) - {str}:
            raise Inexact("categories that are not text")
    codes = pa.array(values.codes, mask=values.codes == -1)
    labels = pa.array(categories.tolist(), pa.int64() if note == "int64" else pa.large_string())
    return pa.DictionaryArray.from_arrays(codes, labels, ordered=bool(values.ordered)), [
        "category",
        note,
        bool(values.ordered),
    ]


def frame_from_table(table: Any, note: Note, data: memoryview) -> Any:
    """Return the frame or series that ``table_from_frame`` took apart.

    Args:
        table: as read.
        note: what was noted beside it.
        data: the bytes that the table's columns are views of; writable, or the frame's are not.
    """
    import pandas as pd

    count = len(note["dtypes"])
    columns = {at: _array(table.column(at), note["dtypes"][at], data) for at in range(count)}
    index = _index(table.column(count) if table.num_columns > count else None, note["index"], data)
    frame = pd.DataFrame(columns, index=index, copy=False)
    frame.columns = _columns(note["columns"], table.column_names[:count])
    if note["kind"] == "pandas":
        return frame
    series = frame.iloc[:, 0]
    series.name = note["name"]
    return series


def _columns(note: Note, names: list[str]) -> Any:
    import pandas as pd

    if "range" in note:
        start, stop, step = note["range"]
        return pd.RangeIndex(start, stop, step, name=note["name"])
    return pd.Index(names, dtype=_text_dtype_from(note["dtype"]), name=note["name"])


def _index(column: Any, note: Note, data: memoryview) -> Any:
    import pandas as pd

    if column is None:
        start, stop, step = note["range"]
        return pd.RangeIndex(start, stop, step, name=note["name"])
    if note["dtype"] == "object":
        return pd.Index(column.to_pylist(), dtype=object, name=note["name"])
    values = _array(column, note["dtype"], data)
    if "freq" in note:
        return pd.DatetimeIndex(values, freq=note["freq"], name=note["name"], copy=False)
    return pd.Index(values, name=note["name"], copy=False)


def _array(column: Any, note: Any, data: memoryview) -> Any:
    import pandas as pd

    from perdure_storage.digests import zone_from

    if isinstance(note, str):
        return _numpy_array(column, note, data)
    kind = note[0]
    if kind == "category":
        return _categorical(column, note)
    if kind == "zone":
        moments = _numpy_array(column, f"<M8[{column.type.unit}]", data)
        zone = zone_from(note[1])
        return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone).array
    if kind == "string":
        return _text_dtype_from(note).__from_arrow__(column)
    dtype: Any = pd.api.types.pandas_dtype(note[1])
    return dtype.__from_arrow__(column)


def _numpy_array(column: Any, dtype: str, data: memoryview) -> Any:
    """Return a column's items: a view of ``data`` where they lie there, which is normal."""
    import numpy as np
    import pyarrow as pa

    kind = np.dtype(dtype)
    if len(column) == 0:
        return np.empty(0, kind)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if kind.kind == "b":
        return array.to_numpy(zero_copy_only=False)
    items = array.buffers()[1]
    offset = items.address - pa.py_buffer(data).address
    if offset >= 0 and offset + items.size <= len(data):
        return np.ndarray(
            len(array), kind, buffer=data, offset=offset + array.offset * kind.itemsize
        )
    return np.frombuffer(items, kind, len(array), array.offset * kind.itemsize).copy()


def _categorical(column: Any, note: Any) -> Any:
    import numpy as np
    import pandas as pd

    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    kind = np.dtype(np.int64) if note[1] == "int64" else _text_dtype_from(note[1])
    categories = pd.Index(array.dictionary.to_pylist(), dtype=kind)
    return pd.Categorical.from_codes(codes, categories=categories, ordered=note[2])
