"""Where blobs are: one door for folders and for every URL that fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol, cast

from perdure_storage.blob_cache import BlobCache
from perdure_storage.cached_blobs import CachedBlobStore
from perdure_storage.clock import Clock
from perdure_storage.local_blobs import LocalBlobStore
from perdure_storage.protocols import BlobStore
from perdure_storage.records import BlobFile, CacheTerms, Digest, Leftover
from perdure_storage.remote_blobs import FsspecBlobStore
from perdure_storage.roots import (
    LocalRoot,
    bind_root,
    check_root,
    confirm_root,
    find_root,
    is_folder,
    protocols_of,
    public_url,
)

__all__ = [
    "BlobRoot",
    "FsspecBlobStore",
    "LocalBlobStore",
    "open_blobs",
    "public_url",
    "sweep_spool",
]


class BlobRoot(BlobStore, Protocol):
    """A blob store together with what lies beside it, and its upkeep."""

    @property
    def address(self) -> str:
        """Return where another process finds it, with what is secret in it: not for messages."""
        ...

    @property
    def cache(self) -> CacheTerms | None:
        """Return where this host keeps copies of what is read and put; None if it keeps none."""
        ...

    @property
    def least_grace_s(self) -> float:
        """Return below which age no gc may take a blob: how coarse the storage's clock is, and
        how long it may take from looking at a blob to removing it.
        """
        ...

    def spool(self, run_id: str) -> BlobStore:
        """Return the store for one run's values without a checkpoint: not synced, not durable."""
        ...

    def drop_spool(self, run_id: str) -> None:
        """Remove a run's spool with all that is in it. Idempotent."""
        ...

    def survey(self) -> Iterator[BlobFile]:
        """Yield every blob with its size and age, in no order."""
        ...

    def size_of(self, digest: Digest) -> int | None:
        """Return how many bytes a blob has, None if it is not there; it is not read."""
        ...

    def renew(self, digest: Digest) -> bool:
        """Make a blob young, if it is there; say whether it is.

        After that no ``collect`` that was told of an earlier time takes it, not even one that is
        under way.
        """
        ...

    def collect(self, digest: Digest, before: float) -> bool:
        """Remove a blob that was not put or renewed since a time (seconds since 1970).

        Returns whether it is gone. Idempotent.
        """
        ...

    def verify(self, digest: Digest, size_bytes: int) -> None:
        """Read a blob from its storage, also if it was verified before. Raises as ``open``."""
        ...

    def restore(self, digest: Digest) -> bool:
        """Put a blob that is missing or damaged back from a verified copy that this host keeps.

        Returns whether the blob is good now: not if there is no such copy. Idempotent.
        """
        ...

    def leftovers(self) -> Iterator[Leftover]:
        """Yield temporary files, quarantined blobs, spools and logs, in no order."""
        ...

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove one of them with all that is in it. Idempotent."""
        ...

    def sweep_temporaries(self, *, older_than_s: float = ..., clock: Clock | None = None) -> int:
        """Remove what puts that died have left behind; return how many files that were."""
        ...


def open_blobs(
    url: str | os.PathLike[str],
    store_id: str,
    *,
    bind: bool = False,
    known: bool = False,
    cache: CacheTerms | None = None,
    fs: Any = None,
) -> BlobRoot:
    """Open the blobs of a store.

    Args:
        url: a path, or any URL that fsspec knows.
        store_id: id of the store; its blobs lie under it.
        bind: make a fresh root this store's.
        known: it has been opened for what goes on now; if it is not there any more, it is out of
            reach and not wrong.
        cache: where copies of what is remote are kept on this host, if they are.
        fs: an fsspec filesystem to use instead of the one that the URL names.

    Raises:
        StoreError: the root is not this store's, or the URL cannot be used.
        ValueUnavailable: it does not answer.
    """
    root = find_root(url, store_id, fs=fs)
    if bind:
        bind_root(root)
    elif known:
        confirm_root(root)
    else:
        check_root(root)
    if isinstance(root, LocalRoot):
        return LocalBlobStore(root)
    remote = FsspecBlobStore(root)
    # What is in this process's memory already needs no copy on its disk.
    if cache is None or cache.limit_bytes == 0 or "memory" in protocols_of(root.fs):
        return remote
    return cast(BlobRoot, CachedBlobStore(remote, BlobCache(cache)))


def sweep_spool(url: str | os.PathLike[str], store_id: str, run_id: str) -> None:
    """Remove a run's spool where that is cheap and needs no open store: below a folder.

    Below a URL nothing happens, since every run would wait for an answer from there. Nor does it
    where the folder is out of reach. Idempotent.

    Args:
        url: a path, or any URL that fsspec knows.
        store_id: id of the store.
        run_id: a run that nobody drives yet.

    Raises:
        ValueUnavailable: something is there and cannot be removed.
    """
    if is_folder(url):
        LocalBlobStore(cast(LocalRoot, find_root(url, store_id))).drop_spool(run_id)
