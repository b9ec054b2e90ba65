"""``numpy/1`` and ``torch/1``: raw items behind a small header, aligned, mapped without a copy."""

from __future__ import annotations

import importlib
from typing import Any

from perdure_storage.array_layout import (
    array_buffers,
    describe_dtype,
    dtype_from,
    has_canonical_bytes,
    read_header,
)
from perdure_storage.codecs.encoded import Encoded
from perdure_storage.tensor_layout import tensor_buffers

NUMPY = "numpy/1"
TORCH = "torch/1"


def encode_numpy(value: Any) -> Encoded | None:
    """Return an array or NumPy scalar, or None: a subclass, or Python objects inside."""
    import numpy as np

    if isinstance(value, np.generic):
        return _encode_array(np.asarray(value), "scalar", "C")
    if type(value) is not np.ndarray:
        return None
    by_columns = value.flags.f_contiguous and not value.flags.c_contiguous
    return _encode_array(value, "array", "F" if by_columns else "C")


def _encode_array(array: Any, kind: str, order: str) -> Encoded | None:
    described = describe_dtype(array.dtype)
    if described is None:
        return None
    buffers = array_buffers(array, described, order=order, kind=kind)
    head = next(iter(buffers))
    return Encoded(
        codec=NUMPY,
        buffers=buffers,
        size_bytes=len(head) + array.nbytes,
        canonical="array" if order == "C" and has_canonical_bytes(array.dtype) else "",
    )


def decode_numpy(data: memoryview) -> Any:
    """Return the array: a view of ``data``, writable if that is."""
    import numpy as np

    header, offset = read_header(data)
    array: Any = np.ndarray(
        tuple(header["shape"]),
        dtype_from(header["dtype"]),
        buffer=data if len(data) > offset else None,
        offset=offset if len(data) > offset else 0,
        order=header["order"],
    )
    return array[()] if header["kind"] == "scalar" else array


def encode_torch(value: Any) -> Encoded | None:
    """Return a dense CPU tensor, or None if it is of any other kind."""
    buffers = tensor_buffers(value)
    if buffers is None:
        return None
    return Encoded(
        codec=TORCH, buffers=buffers, size_bytes=sum(map(len, buffers)), canonical="tensor"
    )


def decode_torch(data: memoryview) -> Any:
    """Return the tensor: its memory is ``data``."""
    torch: Any = importlib.import_module("torch")

    header, offset = read_header(data)
    dtype = getattr(torch, header["dtype"])
    shape = header["shape"]
    if len(data) == offset:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        tensor = torch.frombuffer(data, dtype=torch.uint8, offset=offset).view(dtype).reshape(shape)
    return tensor.requires_grad_(header["requires_grad"])
