"""A blob store over another one: what is put stays in this process, the one below is only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure_storage.durable_files import write_at
from perdure_storage.hashing import integrity_digest
from perdure_storage.protocols import BlobStore
from perdure_storage.records import Buffer, Digest


class ScratchBlobs:
    """Takes values for as long as it lives, for whoever wants to see what they would be."""

    def __init__(self, below: BlobStore) -> None:
        self._below = below
        self._kept: dict[Digest, bytes] = {}

    @property
    def url(self) -> str:
        """Return where the blobs below are."""
        return self._below.url

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Keep the bytes here and return their digest."""
        found = digest or integrity_digest(buffers)
        self._kept[found] = b"".join(buffers)
        return found

    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return bytes that were put here, else those below."""
        kept = self._kept.get(digest)
        return (
            memoryview(bytearray(kept))
            if kept is not None
            else self._below.open(digest, size_bytes)
        )

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write bytes that were put here, else those below, to a file."""
        kept = self._kept.get(digest)
        if kept is None:
            self._below.copy_out(digest, size_bytes, fd)
        else:
            write_at(fd, kept, 0)

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        """Say whether the blob is here or below."""
        return digest in self._kept or self._below.contains(digest, size_bytes)

    def quarantine(self, digest: Digest) -> None:
        """Forget the blob here; below nothing is touched."""
        self._kept.pop(digest, None)

    def delete(self, digest: Digest) -> None:
        """Forget the blob here; below nothing is touched."""
        self._kept.pop(digest, None)

    def list_digests(self) -> Iterator[Digest]:
        """Yield what was put here."""
        yield from tuple(self._kept)
