"""How a NumPy array lies in bytes: a small JSON header, padding to 64 bytes, the raw buffer.

Shared by the codec, which writes it, and by the value digest, which hashes the same bytes, so
that an array is hashed once for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import msgspec

from perdure_storage.hashing import flat
from perdure_storage.records import Buffer

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 64
_LENGTH_BYTES = 8
_CHUNK_ITEMS = 1 << 18
_COPIED_UP_TO_BYTES = 1 << 20


def pack_header(fields: dict[str, Any]) -> bytes:
    """Return the length-prefixed JSON of ``fields``, padded to a multiple of 64 bytes."""
    body = msgspec.json.encode(fields, order="deterministic")
    header = len(body).to_bytes(_LENGTH_BYTES, "little") + body
    return header + bytes(-len(header) % ALIGNMENT)


def read_header(data: memoryview) -> tuple[dict[str, Any], int]:
    """Return the fields and the offset at which the padded header ends."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    return msgspec.json.decode(data[_LENGTH_BYTES:end], type=dict), end + -end % ALIGNMENT


class StridedBytes(Sequence[Buffer]):
    """A header, then the items of an array that is not contiguous, in C order, piece by piece.

    Each piece is made when it is asked for: nothing of the array's size is allocated.
    """

    def __init__(self, header: bytes, array: np.ndarray[Any, Any]) -> None:
        self._header = header
        self._array = array

    def __len__(self) -> int:
        return 1 + math.ceil(self._array.size / _CHUNK_ITEMS)

    @overload
    def __getitem__(self, index: int) -> Buffer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Buffer]: ...
    def __getitem__(self, index: int | slice) -> Buffer | Sequence[Buffer]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Buffer]:
        import numpy as np

        yield self._header
        flags: Any = ["external_loop", "buffered"]
        with np.nditer(self._array, flags=flags, order="C", buffersize=_CHUNK_ITEMS) as rows:
            row: Any
            for row in rows:
                yield flat(row.copy().view(np.uint8).data)


def describe_dtype(dtype: Any) -> Any:
    """Return ``dtype`` as JSON, or None if JSON cannot say exactly what it is."""
    import numpy as np

    if dtype.hasobject or dtype.metadata is not None or dtype.kind == "T":
        return None
    try:
        described = _as_json(np.lib.format.dtype_to_descr(dtype))
        return described if dtype_from(described) == dtype else None
    except (TypeError, ValueError):
        return None


def dtype_from(described: Any) -> Any:
    """Return the dtype that ``describe_dtype`` wrote."""
    import numpy as np

    return np.lib.format.descr_to_dtype(_from_json(described))


def _as_json(descr: Any) -> Any:
    if isinstance(descr, list | tuple):
        return [_as_json(part) for part in descr]
    return descr


def _from_json(descr: Any) -> Any:
    if isinstance(descr, str):
        return descr
    if len(descr) == 2 and isinstance(descr[1], list) and all(type(n) is int for n in descr[1]):
        return (_from_json(descr[0]), tuple(descr[1]))  # a subarray: (base, shape)
    return [
        (tuple(name) if isinstance(name, list) else name, _from_json(kind), *map(tuple, shape))
        for name, kind, *shape in descr
    ]


def has_canonical_bytes(dtype: Any) -> bool:
    """Say whether equal items of ``dtype`` always have equal bytes: no padding in between."""
    if dtype.fields is None:
        base = dtype.subdtype[0] if dtype.subdtype else dtype
        return has_canonical_bytes(base) if dtype.subdtype else base.char not in "gG"
    kinds = [dtype.fields[name][0] for name in dtype.names]
    return sum(kind.itemsize for kind in kinds) == dtype.itemsize and all(
        has_canonical_bytes(kind) for kind in kinds
    )


def array_header(array: np.ndarray[Any, Any], described: Any, *, order: str, kind: str) -> bytes:
    """Return the header of an array's encoding."""
    return pack_header(
        {"dtype": described, "kind": kind, "order": order, "shape": list(array.shape)}
    )


def array_buffers(
    array: np.ndarray[Any, Any], described: Any, *, order: str, kind: str
) -> Sequence[Buffer]:
    """Return header and items of an array in C or F order.

    Nothing is copied where the items lie in that order already.
    """
    import numpy as np

    header = array_header(array, described, order=order, kind=kind)
    items = array.T if order == "F" else array
    if items.nbytes == 0:
        return [header]
    if items.flags.c_contiguous or items.nbytes <= _COPIED_UP_TO_BYTES:
        whole = np.ascontiguousarray(items).reshape(-1)
        return [header, flat(whole.view(np.uint8).data)]
    return StridedBytes(header, items)
