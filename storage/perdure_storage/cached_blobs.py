"""A remote blob store whose values are kept on this host, too, when they come or go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from perdure_storage.blob_cache import BlobCache
from perdure_storage.clock import Clock
from perdure_storage.errors import ValueDamaged
from perdure_storage.hashing import flat
from perdure_storage.records import Buffer, CacheTerms, Digest
from perdure_storage.remote_blobs import FsspecBlobStore

_DAY_S = 86_400.0
_log = logging.getLogger(__name__)


class CachedBlobStore:
    """Everything that the store below does; what is read or put is kept.

    What is here is read without asking the service. So a value stays readable on a host that has
    used it while the service is away, and also when it is lost there: ``contains``, ``verify`` and
    what is put ask the service.
    """

    def __init__(self, below: FsspecBlobStore, cache: BlobCache) -> None:
        self._below = below
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    @property
    def cache(self) -> CacheTerms:
        """Return where values are kept."""
        return self._cache.terms

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers``; who reads it on this host fetches nothing.

        It is hashed while it is written here, so the upload needs no pass of its own for that.
        """
        size_bytes = _size_of(buffers)
        if size_bytes is not None and self._cache.holds_up_to(size_bytes):
            digest = self._cache.put(buffers, size_bytes) or digest
        return self._below.put(buffers, digest=digest)

    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return verified bytes, writable; large ones are a private map of the copy here."""
        if self._cache.holds_up_to(size_bytes):
            found = self._cache.find(digest, size_bytes)
            if found is None and self._fetched(digest, size_bytes):
                found = self._cache.find(digest, size_bytes)
            if found is not None:
                return found
        return self._below.open(digest, size_bytes)

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write verified bytes to an empty file, from the copy here if there is one."""
        if self._cache.holds_up_to(size_bytes) and self._cache.copy_out(digest, size_bytes, fd):
            return
        self._below.copy_out(digest, size_bytes, fd)

    def _fetched(self, digest: Digest, size_bytes: int) -> bool:
        try:
            self._cache.fetch(
                digest, size_bytes, lambda fd: self._below.copy_out(digest, size_bytes, fd)
            )
        except OSError as error:
            _log.warning("a value is read without a copy in %s: %s", self.cache.folder, error)
            return False
        return True

    # --- upkeep -----------------------------------------------------------------------------
    def quarantine(self, digest: Digest) -> None:
        """Move a blob out of the way there, and forget it here."""
        self._cache.forget(digest)
        self._below.quarantine(digest)

    def restore(self, digest: Digest) -> bool:
        """Put a blob that is missing or damaged there back from the copy here, if there is one."""
        copy = self._cache.find_whole(digest)
        if copy is None:
            return False
        try:
            self._below.verify(digest, len(copy))
        except ValueDamaged as error:
            if not error.missing:
                self._below.quarantine(digest)
            self._below.put([copy], digest=digest)
        return True

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Idempotent."""
        self._cache.forget(digest)
        self._below.delete(digest)

    def collect(self, digest: Digest, before: float) -> bool:
        """Remove a blob that was not put or renewed since ``before``; say whether it is gone."""
        is_gone = self._below.collect(digest, before)
        if is_gone:
            self._cache.forget(digest)
        return is_gone

    def spool(self, run_id: str) -> CachedBlobStore:
        """Return the store of one run's values without a checkpoint, kept here as well."""
        return CachedBlobStore(self._below.spool(run_id), self._cache)

    def sweep_temporaries(self, *, older_than_s: float = _DAY_S, clock: Clock | None = None) -> int:
        """Remove what uploads that died have left behind, and what is too much here."""
        self._cache.trim()
        return self._below.sweep_temporaries(older_than_s=older_than_s, clock=clock)


def _size_of(buffers: Sequence[Buffer]) -> int | None:
    """Return the length of buffers that exist; None of those that are made while they are read."""
    if not isinstance(buffers, list | tuple):
        return None
    return sum(len(flat(buffer)) for buffer in buffers)
