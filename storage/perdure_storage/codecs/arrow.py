"""``arrow/1``: Arrow tables and record batches as an Arrow IPC stream, read without a copy."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure_storage.codecs.encoded import Encoded
from perdure_storage.records import Buffer

ARROW = "arrow/1"
_KEY = b"perdure"


class _Sink:
    """A file for the IPC writer that keeps its buffers as they come, uncopied."""

    closed = False

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.size_bytes = 0

    def write(self, data: Any) -> int:
        """Keep ``data``."""
        view = memoryview(data)
        self.buffers.append(view)
        self.size_bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Do nothing: the buffers are still needed."""


def encode_arrow(value: Any) -> Encoded | None:
    """Return a table, record batch or frame, or None if Arrow would change it."""
    import pyarrow as pa

    if type(value) is pa.Table:
        return _write(value, {"kind": "table"})
    if type(value) is pa.RecordBatch:
        return _write(value, {"kind": "batch"})
    return None


def _write(table: Any, note: dict[str, Any]) -> Encoded:
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
    return reader.read_all().replace_schema_metadata(metadata or None)
