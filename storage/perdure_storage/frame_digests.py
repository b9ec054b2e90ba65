"""Value digests of arrays and frames: by dtype, shape and items, by schema and data.

How a table is cut into chunks, where it was sliced from, and what lies in the slots of missing
items does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from perdure_storage.array_layout import array_buffers, describe_dtype, has_canonical_bytes
from perdure_storage.hashing import combine, hex_of, integrity_digest

Digest = Callable[[Any], bytes]

_ROWS_AT_ONCE = 1 << 16


class NoForm(Exception):
    """A column has no canonical form."""


def find_digest(library: str, value: Any, digest: Digest) -> bytes | None:
    """Return the raw digest of an object of ``library``, or None if it is opaque.

    Args:
        library: ``"numpy"``, ``"pyarrow"``, ``"pandas"``, ``"polars"`` or ``"torch"``.
        value: the object; looked at by exact type.
        digest: digests parts that are ordinary Python values.
    """
    try:
        return _RULES[library](value, digest)
    except (NoForm, NotImplementedError):  # pyarrow has no kernel for some types of columns
        return None


def _numpy(value: Any, digest: Digest) -> bytes:
    import numpy as np

    if type(value) is np.ndarray:
        if value.dtype == object:
            return combine("objects", digest(list(value.shape)), digest(value.ravel().tolist()))
        return _array(value, "array")
    if isinstance(value, np.generic):
        return _array(np.asarray(value), "scalar")
    if isinstance(value, np.dtype):
        return combine("dtype", digest(_described(value)))
    raise NoForm


def _described(dtype: Any) -> Any:
    described = describe_dtype(dtype)
    if described is None:
        raise NoForm
    return described


def _array(array: Any, kind: str) -> bytes:
    described = _described(array.dtype)
    if not has_canonical_bytes(array.dtype):
        raise NoForm
    whole = integrity_digest(array_buffers(array, described, order="C", kind=kind))
    return combine("array", bytes.fromhex(hex_of(whole)))


def _torch(value: Any, digest: Digest) -> bytes:
    from perdure_storage.tensor_layout import tensor_buffers

    buffers = tensor_buffers(value)
    if buffers is None:
        raise NoForm
    return combine("tensor", bytes.fromhex(hex_of(integrity_digest(buffers))))


# --- Arrow --------------------------------------------------------------------------------------
def _pyarrow(value: Any, digest: Digest) -> bytes:
    import pyarrow as pa

    kinds = {pa.Table: "table", pa.RecordBatch: "batch"}
    kind = kinds.get(type(value))
    if kind is None:
        raise NoForm
    return combine(kind, digest(_schema(value.schema)), *map(_column, value.columns))


def _schema(schema: Any) -> list[Any]:
    fields = [
        [field.name, str(field.type), field.nullable, _metadata(field.metadata)] for field in schema
    ]
    return [fields, _metadata(schema.metadata)]


def _metadata(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in (metadata or {}).items()}


def _column(column: Any) -> bytes:
    """Digest a column in windows of rows, so that its own chunks do not matter."""
    return combine("column", *map(_items, _windows(column)))


def _windows(column: Any) -> Iterator[Any]:
    import pyarrow as pa

    for start in range(0, len(column), _ROWS_AT_ONCE):
        window = column.slice(start, _ROWS_AT_ONCE)
        if isinstance(window, pa.ChunkedArray):
            window = window.chunk(0) if window.num_chunks == 1 else window.combine_chunks()
        yield window


def _items(array: Any) -> bytes:
    """Digest an Arrow array: which items are missing, then the others."""
    import numpy as np
    import pyarrow as pa

    if array.type in (pa.string_view(), pa.binary_view()):
        array = array.cast(pa.large_binary())
    if array.null_count == 0:
        return combine("items", _present(array))
    present = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
    return combine("some", _raw(np.packbits(present)), _present(array.drop_null()))


def _present(array: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, is_ = array.type, pa.types
    if is_.is_null(kind):
        return combine("null", len(array).to_bytes(8, "little"))
    if is_.is_boolean(kind):
        return _present(array.cast(pa.uint8()))
    if is_.is_dictionary(kind):
        return _items(array.dictionary_decode())
    if is_.is_struct(kind):
        return combine("struct", *map(_items, array.flatten()))
    if is_.is_map(kind):
        pairs = pa.struct([pa.field("key", kind.key_type, nullable=False), kind.item_field])
        return _present(array.cast(pa.list_(pairs)))
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return combine(
            "list",
            _present(pc.call_function("list_value_length", [array])),
            _items(array.flatten()),
        )
    if _is_text(kind):
        return _texts(array.cast(pa.large_binary()))
    if is_.is_primitive(kind) or is_.is_decimal(kind) or is_.is_fixed_size_binary(kind):
        return _fixed_width(array, kind.bit_width // 8)
    raise NoForm


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _fixed_width(array: Any, width: int) -> bytes:
    if len(array) == 0:
        return _raw(b"")
    start = array.offset * width
    return _raw(memoryview(array.buffers()[1])[start : start + len(array) * width])


def _texts(array: Any) -> bytes:
    import numpy as np

    if len(array) == 0:
        return _raw(b"")
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, len(array) + 1, array.offset * 8)
    text = b"" if data is None else memoryview(data)[int(offsets[0]) : int(offsets[-1])]
    return combine("texts", _raw(np.diff(offsets)), _raw(text))


def _raw(data: Any) -> bytes:
    return bytes.fromhex(hex_of(integrity_digest((data,))))


# --- frames -------------------------------------------------------------------------------------
def _polars(value: Any, digest: Digest) -> bytes:
    import polars as pl

    if type(value) is pl.Series:
        return combine("polars series", _polars(value.to_frame(), digest))
    if type(value) is not pl.DataFrame or pl.Object in value.dtypes:
        raise NoForm
    schema = [[name, repr(kind)] for name, kind in value.schema.items()]
    starts = range(0, value.height, _ROWS_AT_ONCE)
    windows = (value.slice(start, _ROWS_AT_ONCE).to_arrow() for start in starts)
    rows = (combine("rows", *map(_column, window.columns)) for window in windows)
    return combine("polars", digest([schema, value.height]), *rows)


def _pandas(value: Any, digest: Digest) -> bytes:
    import pandas as pd

    if isinstance(value, pd.Index):
        return combine("index", _pandas_index(value, digest))
    if type(value) is pd.Series:
        facts = combine("facts", digest(value.name), digest(dict(value.attrs)))
        index = _pandas_index(value.index, digest)
        return combine("series", facts, index, _pandas_array(value.array, digest))
    if type(value) is not pd.DataFrame:
        raise NoForm
    labels = _pandas_index(value.columns, digest) + _pandas_index(value.index, digest)
    columns = (_pandas_array(value.iloc[:, at].array, digest) for at in range(value.shape[1]))
    return combine("frame", labels, digest(dict(value.attrs)), *columns)


def _pandas_index(index: Any, digest: Digest) -> bytes:
    import pandas as pd

    names = digest(list(index.names))
    if type(index) is pd.RangeIndex:
        return combine("range", names, digest([index.start, index.stop, index.step]))
    if isinstance(index, pd.MultiIndex):
        levels = (index.get_level_values(at) for at in range(index.nlevels))
        return combine("levels", names, *(_pandas_array(level.array, digest) for level in levels))
    kind = digest([type(index).__name__, getattr(index, "freqstr", None)])
    return combine("labels", names, kind, _pandas_array(index.array, digest))


def _pandas_array(values: Any, digest: Digest) -> bytes:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    dtype = values.dtype
    if type(dtype) is pd.CategoricalDtype:
        order = digest(bool(dtype.ordered))
        labels = _pandas_index(values.categories, digest)
        return combine("category", order, labels, _array(np.asarray(values.codes), "array"))
    if type(dtype) is pd.DatetimeTZDtype:
        return combine("zoned", digest(str(dtype)), _array(values.asi8, "array"))
    is_numpy = isinstance(values, pd.arrays.NumpyExtensionArray)
    if is_numpy or not isinstance(dtype, pd.api.extensions.ExtensionDtype):
        return _numpy(values.to_numpy(copy=False), digest)
    if hasattr(values, "__arrow_array__"):
        found = pa.array(values)
        return combine("extension", digest(repr(dtype)), _column(found))
    raise NoForm


_RULES: dict[str, Callable[[Any, Digest], bytes]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "polars": _polars,
    "pyarrow": _pyarrow,
    "torch": _torch,
}
