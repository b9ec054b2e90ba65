"""Value digests of arrays and frames: by dtype, shape and items, by schema and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure_storage.array_layout import array_buffers, describe_dtype, has_canonical_bytes
from perdure_storage.hashing import combine, hex_of, integrity_digest

Digest = Callable[[Any], bytes]


def find_digest(library: str, value: Any, digest: Digest) -> bytes | None:
    """Return the raw digest of an object of ``library``, or None if it is opaque.

    Args:
        library: ``"numpy"``, ``"pyarrow"``, ``"pandas"``, ``"polars"`` or ``"torch"``.
        value: the object; looked at by exact type.
        digest: digests parts that are ordinary Python values.
    """
    rule = _RULES.get(library)
    return rule(value, digest) if rule is not None else None


def _numpy(value: Any, digest: Digest) -> bytes | None:
    import numpy as np

    if type(value) is np.ndarray:
        if value.dtype == object:
            return combine("objects", digest(list(value.shape)), digest(value.ravel().tolist()))
        return _array(value, "array")
    return _array(np.asarray(value), "scalar") if isinstance(value, np.generic) else None


def _array(array: Any, kind: str) -> bytes | None:
    described = describe_dtype(array.dtype)
    if described is None or not has_canonical_bytes(array.dtype):
        return None
    whole = integrity_digest(array_buffers(array, described, order="C", kind=kind))
    return combine("array", bytes.fromhex(hex_of(whole)))


_RULES: dict[str, Callable[[Any, Digest], bytes | None]] = {"numpy": _numpy}
