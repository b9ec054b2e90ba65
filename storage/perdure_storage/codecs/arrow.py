"""``arrow/1``: tables and frames as an Arrow IPC stream that any Arrow reader understands.

What Arrow does not say of a value (that it was a pandas frame, with which index) is in the
schema's metadata under ``perdure``. Columns are views of the stored bytes when they are read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure_storage.codecs.encoded import Encoded
from perdure_storage.codecs.pandas_frames import frame_from_table, table_from_frame
from perdure_storage.hashing import flat
from perdure_storage.records import Buffer

ARROW = "arrow/1"
_KEY = b"perdure"

Note = dict[str, Any]


class _Sink:
    """A file for the IPC writer that keeps its buffers as they come, uncopied."""

    closed = False

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.size_bytes = 0

    def write(self, data: Any) -> int:
        """Keep ``data``."""
        view = flat(data)
        self.buffers.append(view)
        self.size_bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Do nothing: the buffers are still needed."""


def encode_arrow(value: Any, *, frugal: bool = True) -> Encoded | None:
    """Return a table, record batch or frame, or None if Arrow would change it.

    Args:
        value: an object of pyarrow, pandas or polars.
        frugal: return None rather than copy a large column that does not lie as Arrow needs it.
    """
    library = type(value).__module__.partition(".")[0]
    if library == "pyarrow":
        found = _from_arrow(value)
    elif library == "polars":
        found = _from_polars(value)
    else:
        found = table_from_frame(value, frugal=frugal)
    return None if found is None else _write(*found)


def _from_arrow(value: Any) -> tuple[Any, Note] | None:
    import pyarrow as pa

    if type(value) is pa.Table:
        return value, {"kind": "table"}
    if type(value) is pa.RecordBatch:
        return value, {"kind": "batch"}
    return None


def _from_polars(value: Any) -> tuple[Any, Note] | None:
    import polars as pl

    if type(value) is pl.Series:
        found = _from_polars(value.to_frame())
        return None if found is None else (found[0], {"kind": "polars series"})
    if type(value) is not pl.DataFrame or pl.Object in value.dtypes:
        return None
    table = value.to_arrow(compat_level=pl.CompatLevel.newest())
    back = pl.from_arrow(table.slice(0, 0))
    same = isinstance(back, pl.DataFrame) and back.schema == value.schema
    # A frame without columns has no rows in Arrow.
    return (table, {"kind": "polars"}) if same and value.width else None


def _write(table: Any, note: Note) -> Encoded:
    import pyarrow as pa

    metadata = {**(table.schema.metadata or {}), _KEY: msgspec.json.encode(note)}
    noted = table.replace_schema_metadata(metadata)
    sink = _Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), noted.schema) as writer:
        writer.write(noted)
    return Encoded(codec=ARROW, buffers=sink.buffers, size_bytes=sink.size_bytes)


def decode_arrow(data: memoryview) -> Any:
    """Return the table, record batch or frame; its columns are views of ``data``."""
    import pyarrow as pa

    reader = pa.ipc.open_stream(pa.py_buffer(data))
    metadata = dict(reader.schema.metadata or {})
    note = msgspec.json.decode(metadata.pop(_KEY))
    if note["kind"] == "batch":
        return reader.read_next_batch().replace_schema_metadata(metadata or None)
    table = reader.read_all().replace_schema_metadata(metadata or None)
    if note["kind"] == "table":
        return table
    return (
        _polars(table, note)
        if note["kind"].startswith("polars")
        else frame_from_table(table, note, data)
    )


def _polars(table: Any, note: Note) -> Any:
    import polars as pl

    frame = pl.from_arrow(table, rechunk=False)
    if note["kind"] == "polars" or isinstance(frame, pl.Series):
        return frame
    return frame.to_series()
