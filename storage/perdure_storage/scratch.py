"""A blob store over another one: what is put stays in this process, the one below is only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure_storage.durable_files import write_at
from perdure_storage.errors import ValueDamaged
from perdure_storage.hashing import integrity_digest
from perdure_storage.protocols import BlobStore
from perdure_storage.records import Buffer, Digest


class ScratchBlobs:
    """Takes values for as long as it lives, for whoever wants to see what they would be.

    Args:
        below: where the others are; None: there are no others.
    """

    def __init__(self, below: BlobStore | None = None) -> None:
        self._below = below
        self._kept: dict[Digest, bytes] = {}

    @property
    def url(self) -> str:
        """Return where the blobs below are."""
        return "memory" if self._below is None else self._below.url

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Keep the bytes here and return their digest."""
        found = digest or integrity_digest(buffers)
        # Each piece by itself: who makes them while they are read may use its memory again.
        self._kept[found] = b"".join(map(bytes, buffers))
        return found

    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return bytes that were put here, else those below."""
        kept = self._kept.get(digest)
        if kept is None:
            return self._beneath(digest).open(digest, size_bytes)
        return memoryview(bytearray(kept))

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write bytes that were put here, else those below, to a file."""
        kept = self._kept.get(digest)
        if kept is None:
            self._beneath(digest).copy_out(digest, size_bytes, fd)
        else:
            write_at(fd, kept, 0)

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        """Say whether the blob is here or below."""
        if digest in self._kept or self._below is None:
            return digest in self._kept
        return self._below.contains(digest, size_bytes)

    def _beneath(self, digest: Digest) -> BlobStore:
        if self._below is None:
            raise ValueDamaged(f"{digest} is not kept here", digest=digest, missing=True)
        return self._below

    def quarantine(self, digest: Digest) -> None:
        """Forget the blob here; below nothing is touched."""
        self._kept.pop(digest, None)

    def delete(self, digest: Digest) -> None:
        """Forget the blob here; below nothing is touched."""
        self._kept.pop(digest, None)

    def list_digests(self) -> Iterator[Digest]:
        """Yield what was put here."""
        yield from tuple(self._kept)
