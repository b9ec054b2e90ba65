"""``pickle/1``: cloudpickle protocol 5, large buffers kept out of band in the same blob, aligned.

Layout: header (JSON: where what is), pickle stream, buffers at multiples of 64 bytes, definitions
of classes that cannot be imported. Offsets count from the end of the header.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from perdure_storage.array_layout import ALIGNMENT, pack_header, read_header
from perdure_storage.codecs.by_value import ByValuePickler
from perdure_storage.codecs.definitions import (
    definition_of,
    known_class,
    naming_code,
    needs_definition,
    resolve,
)
from perdure_storage.codecs.encoded import Encoded
from perdure_storage.digests import CodeDigest
from perdure_storage.hashing import flat
from perdure_storage.records import Buffer

PICKLE = "pickle/1"

_IN_BAND_BELOW_BYTES = 1024


class _Pieces:
    """A file for the pickler that keeps what is written as it comes: large strings uncopied."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def write(self, data: Any) -> int:
        """Keep ``data``."""
        self.buffers.append(data)
        return len(data)


class _Pickler(ByValuePickler):
    def __init__(self, file: _Pieces) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._keep_in_band)
        self.buffers: list[memoryview] = []
        self.classes: dict[str, bytes] = {}

    def _keep_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < _IN_BAND_BELOW_BYTES:
            return True
        self.buffers.append(raw)
        return False

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is io.TextIOWrapper and obj is not sys.stdout and obj is not sys.stderr:
            # cloudpickle would write a copy of what it holds, a StringIO: another thing, unasked.
            raise pickle.PicklingError(
                "an open file ends with its process: give its path, or what is in it"
            )
        if not needs_definition(obj):
            return super().reducer_override(obj)
        key, definition = definition_of(obj)
        self.classes[key] = definition
        return known_class, (key,)


def encode_pickle(value: Any, code_digest: CodeDigest | None) -> Encoded:
    """Return the value by cloudpickle. Raises whatever the objects inside raise."""
    file = _Pieces()
    pickler = _Pickler(file)
    with naming_code(code_digest):
        pickler.dump(value)
    return _lay_out(file.buffers, pickler.buffers, pickler.classes)


def _lay_out(stream: list[Buffer], buffers: list[memoryview], classes: dict[str, bytes]) -> Encoded:
    parts: list[Buffer] = list(stream)
    end = sum(len(part) for part in stream)
    header: dict[str, Any] = {"stream": [0, end]}

    def add(data: Buffer) -> list[int]:
        nonlocal end
        padding = -end % ALIGNMENT
        parts.extend((bytes(padding), data) if padding else (data,))
        end += padding + len(data)
        return [end - len(data), len(data)]

    if buffers:
        header["buffers"] = [add(flat(buffer)) for buffer in buffers]
    if classes:
        header["classes"] = {key: add(definition) for key, definition in classes.items()}
    head = pack_header(header)
    return Encoded(codec=PICKLE, buffers=[head, *parts], size_bytes=len(head) + end)


def decode_pickle(data: memoryview, code_digest: CodeDigest | None) -> Any:
    """Return the value; its large buffers are views of ``data``. Runs the code in the pickle."""
    header, base = read_header(data)

    def part(place: list[int]) -> memoryview:
        return data[base + place[0] : base + place[0] + place[1]]

    with naming_code(code_digest):
        for key, place in header.get("classes", {}).items():
            resolve(key, bytes(part(place)))
        buffers = [part(place) for place in header.get("buffers", ())]
        return pickle.loads(part(header["stream"]), buffers=buffers)
