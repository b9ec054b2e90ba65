"""Where blobs are: one door for folders and for every URL that fsspec knows."""

from __future__ import annotations

import os
from typing import Any, Protocol, cast

from perdure_storage.clock import Clock
from perdure_storage.local_blobs import LocalBlobStore
from perdure_storage.protocols import BlobStore
from perdure_storage.remote_blobs import FsspecBlobStore
from perdure_storage.roots import (
    LocalRoot,
    bind_root,
    check_root,
    confirm_root,
    find_root,
    is_folder,
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
    """A blob store together with the spools beside it."""

    def spool(self, run_id: str) -> BlobStore:
        """Return the store for one run's values without a checkpoint: not synced, not durable."""
        ...

    def drop_spool(self, run_id: str) -> None:
        """Remove a run's spool with all that is in it. Idempotent."""
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
    fs: Any = None,
) -> BlobRoot:
    """Open the blobs of a store.

    Args:
        url: a path, or any URL that fsspec knows.
        store_id: id of the store; its blobs lie under it.
        bind: make a fresh root this store's.
        known: it has been opened for what goes on now; if it is not there any more, it is out of
            reach and not wrong.
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
    return LocalBlobStore(root) if isinstance(root, LocalRoot) else FsspecBlobStore(root)


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
