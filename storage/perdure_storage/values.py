"""Values in and out of storage: encode, place, verify, decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure_storage.codecs import Codecs, Encoded
from perdure_storage.errors import ValueDamaged
from perdure_storage.hashing import digest_of, integrity_digest
from perdure_storage.previews import preview
from perdure_storage.protocols import BlobStore
from perdure_storage.records import Digest, Place, StoredValue

INLINE_LIMIT_BYTES = 32 * 1024

_NO_PARTS: Mapping[str, Any] = {}


class Values:
    """Stores values and loads them. Safe to use from many threads.

    Attributes:
        codecs: how values become bytes.
        blobs: where large ones go, durably.
        spool: where large values of steps without a checkpoint go, unsynced; the run's own.
    """

    def __init__(
        self,
        codecs: Codecs,
        blobs: BlobStore,
        spool: BlobStore | None = None,
        inline_limit: int = INLINE_LIMIT_BYTES,
    ) -> None:
        self.codecs = codecs
        self.blobs = blobs
        self.spool = spool
        self._inline_limit = inline_limit

    def store(
        self,
        value: Any,
        *,
        checkpoint: bool = True,
        parts: Mapping[str, Any] = _NO_PARTS,
        name: str = "result",
    ) -> StoredValue:
        """Encode a value and put it where it can be read again; returns when it is durable.

        Small values are in the returned row itself. Storing n bytes never holds a second n.

        Args:
            value: anything that has an encoding; not changed meanwhile.
            checkpoint: False puts a large value into the unsynced spool.
            parts: projections that others consume, by path text: their value digests are noted.
            name: what messages call the value.

        Raises:
            NotSerializable: the value has no encoding.
            ValueUnavailable: storage does not answer now.
            StoreUnavailable: the disk is full.
        """
        encoded = self.codecs.encode(value, name=name)
        place, integrity, data = self._put(encoded, checkpoint)
        return StoredValue(
            codec=encoded.codec,
            place=place,
            size_bytes=encoded.size_bytes,
            integrity=integrity,
            value_digest=self.codecs.digest(value, encoded, integrity=integrity),
            data=data,
            parts={path: self.codecs.digest(part) for path, part in parts.items()} if parts else {},
            preview=preview(value, size_bytes=encoded.size_bytes),
        )

    def load(self, stored: StoredValue) -> Any:
        """Return the value, verified, decoded anew: no two callers share an object.

        Raises:
            ValueDamaged: the bytes are missing, are others, or were never kept.
            ValueUnavailable: storage does not answer now.
            StoreError: the bytes are right and cannot be decoded in this process.
        """
        return self.codecs.decode(stored.codec, self._bytes(stored))

    def _put(self, encoded: Encoded, checkpoint: bool) -> tuple[Place, Digest, bytes | None]:
        if encoded.size_bytes <= self._inline_limit:
            data = b"".join(encoded.buffers)
            return Place.INLINE, digest_of(data), data
        if checkpoint:
            return Place.BLOB, self.blobs.put(encoded.buffers), None
        if self.spool is None:
            raise ValueError("a value without a checkpoint needs a spool to be stored in")
        return Place.SPOOL, self.spool.put(encoded.buffers), None

    def _bytes(self, stored: StoredValue) -> memoryview:
        if stored.place is Place.INLINE:
            return _inline_bytes(stored)
        if stored.place is Place.BLOB:
            return self.blobs.open(stored.integrity, stored.size_bytes)
        if stored.place is Place.SPOOL and self.spool is not None:
            return self.spool.open(stored.integrity, stored.size_bytes)
        raise ValueDamaged(
            "the value was not kept (its step has checkpoint=False): it is rebuilt when needed",
            digest=stored.integrity,
            missing=True,
        )


def _inline_bytes(stored: StoredValue) -> memoryview:
    if stored.data is None or digest_of(stored.data) != stored.integrity:
        raise ValueDamaged(
            "the bytes in the row are not those that were committed", digest=stored.integrity
        )
    # JSON is read, never kept; of anything else the value may keep, and change, its bytes.
    keeps = not stored.codec.startswith(("json", "bytes"))
    return memoryview(bytearray(stored.data) if keeps else stored.data)


def inputs_digest(inputs: Mapping[str, StoredValue]) -> str:
    """Return one digest over the value digests of all inputs."""
    lines = "\n".join(f"{name}={inputs[name].value_digest}" for name in sorted(inputs))
    return integrity_digest([lines.encode()])
