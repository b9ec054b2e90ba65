"""Blobs on any fsspec filesystem: object stores, and remote folders that have a rename."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perdure_storage.clock import Clock, SystemClock
from perdure_storage.durable_files import write_at
from perdure_storage.errors import PerdureError, ValueDamaged
from perdure_storage.faults import crash_point
from perdure_storage.hashing import ALGORITHM, Hasher, hex_of, is_digest, pieces, size_of
from perdure_storage.hashing_beside import hashing
from perdure_storage.objects import UPLOADS, Found, FsspecObjects, Objects
from perdure_storage.records import BlobFile, Buffer, Digest, Leftover
from perdure_storage.roots import RemoteRoot, confirm_root, failure, folder_of, protocols_of
from perdure_storage.s3_objects import S3Objects

Take = Callable[[int, bytes], None]
"""Gets a piece of a blob and where in it that begins."""

_DAY_S = 86_400.0
_LEAST_GRACE_S = 3_600.0
_STAYS_YOUNG_S = _LEAST_GRACE_S / 2


class FsspecBlobStore:
    """BlobStore in ``<prefix>/<store-id>/blobs/ab/blake3-<hex>``."""

    def __init__(self, root: RemoteRoot, area: str = "blobs") -> None:
        self.root = root
        self._fs: Any = root.fs
        self._folder = f"{root.folder}/{area}"
        self._incoming = f"{root.folder}/incoming"
        self._objects = _objects_of(root)

    @property
    def url(self) -> str:
        """Return where the blobs are, without credentials."""
        return self.root.url

    @property
    def address(self) -> str:
        """Return where another process finds it, with what is secret in it: not for messages."""
        return self.root.address

    @property
    def cache(self) -> None:
        """Return nothing: this store keeps nothing on the host."""
        return None

    # --- writing ----------------------------------------------------------------------------
    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers`` and return its digest.

        The name must be known before an upload begins, so a first pass hashes, in memory: a
        twenty-fifth of the upload at most, and what is there already is not sent at all. To upload
        to a temporary name while hashing, and have the service copy, was measured to be slower.

        Raises:
            StoreUnavailable: there is no room.
            ValueUnavailable: storage does not take it now.
        """
        digest, size_bytes = _measure(buffers, digest)
        try:
            self._create(self._path(digest), buffers, size_bytes)
        except PerdureError:  # ours, or of whoever makes the bytes
            raise
        except Exception as error:  # a driver of somebody else's: any class may come
            raise failure(error, f"store a value in {self.url}") from error
        return digest

    def _create(self, path: str, buffers: Sequence[Buffer], size_bytes: int) -> None:
        # A small one is sent without a question: what refuses to replace an object answers it.
        asks = size_bytes > self._objects.part_bytes or not self._objects.refuses_what_is_there
        if asks and self._is_settled(path, size_bytes):
            return
        try:
            self._objects.create(path, buffers, size_bytes, self._point)
        except FileExistsError:
            if not self._is_settled(path, size_bytes):  # it is cut, or was taken away again
                self._objects.create(path, buffers, size_bytes, self._point, replace=True)

    def _is_settled(self, path: str, size_bytes: int) -> bool:
        """Say whether the blob is there, and see that it is young: gc is not to take it now."""
        found = self._objects.look(path)
        if found is None or found.size_bytes != size_bytes:
            return False
        if found.changed_at < SystemClock().now().timestamp() - _STAYS_YOUNG_S:
            try:
                self._objects.renew(path)
            except FileNotFoundError:
                return False
        self._point("blob.already-there")
        return True

    def _point(self, name: str) -> None:
        crash_point(name)

    def _path(self, digest: Digest) -> str:
        name = hex_of(digest)
        return f"{self._folder}/{name[:2]}/{ALGORITHM}-{name}"

    # --- reading ----------------------------------------------------------------------------
    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return verified bytes, writable; this reader's own.

        Raises:
            ValueDamaged: nothing is there, or, confirmed by a second read, other bytes are.
            ValueUnavailable: storage does not answer, or the root is not there.
        """
        data = memoryview(bytearray(size_bytes))

        def take(at: int, piece: bytes) -> None:
            data[at : at + len(piece)] = piece

        self._read(digest, size_bytes, take)
        return data

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write verified bytes to an empty file, a piece at a time.

        Raises:
            ValueDamaged: as ``open``.
            ValueUnavailable: as ``open``.
            OSError: the file takes no bytes.
        """
        self._read(digest, size_bytes, lambda at, piece: write_at(fd, piece, at))

    def _read(self, digest: Digest, size_bytes: int, take: Take) -> None:
        """Hand the bytes over as they come; returns once all are there and verified."""
        path = self._path(digest)
        for _ in range(2):
            if self._read_once(path, digest, size_bytes, take):
                return
        confirm_root(self.root)
        missing = self._look(path) is None
        said = "is missing" if missing else "does not hold the bytes that were committed"
        raise ValueDamaged(f"{self.url}: {digest} {said}", digest=digest, missing=missing)

    def _read_once(self, path: str, digest: Digest, size_bytes: int, take: Take) -> bool:
        """Say whether the bytes are there, and are those of the digest."""
        hasher = Hasher(size_bytes)
        at = 0
        try:
            for piece in self._pieces(path, digest, size_bytes):
                if at + len(piece) > size_bytes:
                    return False
                with hashing(hasher, memoryview(piece)):
                    take(at, piece)
                at += len(piece)
        except FileNotFoundError:
            return False
        return at == size_bytes and hasher.digest() == digest

    def _pieces(self, path: str, digest: Digest, size_bytes: int) -> Iterator[bytes]:
        """Yield an object's bytes; fewer if it ends before, more if it is longer.

        Raises FileNotFoundError if there is none.
        """
        found = self._objects.read(path, size_bytes)
        while True:
            try:
                piece = next(found, None)
            except FileNotFoundError:
                raise
            except Exception as error:  # as above
                raise failure(error, f"read {digest} from {self.url}") from error
            if piece is None:
                return
            yield piece

    def _look(self, path: str) -> Found | None:
        """Return what is there, None if nothing is."""
        try:
            return self._objects.look(path)
        except Exception as error:  # as above
            raise failure(error, f"look into {self.url}") from error

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        """Say whether a blob of that name and size is there, without reading it."""
        found = self._look(self._path(digest))
        if found is None:
            confirm_root(self.root)
        return found is not None and found.size_bytes == size_bytes

    def size_of(self, digest: Digest) -> int | None:
        """Return how many bytes a blob has, None if it is not there."""
        found = self._look(self._path(digest))
        if found is None:
            confirm_root(self.root)
        return None if found is None else found.size_bytes

    # --- upkeep -----------------------------------------------------------------------------
    def quarantine(self, digest: Digest) -> None:
        """Move a blob out of the way, under the store's ``quarantine`` prefix. Idempotent."""
        path = self._path(digest)
        aside = f"{self.root.folder}/quarantine"
        self._point("blob.before-quarantine")
        try:
            if self._objects.look(path) is None:
                return
            self._objects.move(path, f"{aside}/{path.rpartition('/')[2]}.{secrets.token_hex(4)}")
        except FileNotFoundError:  # somebody else was faster
            return
        except Exception as error:  # as above
            raise failure(error, f"move {digest} aside in {self.url}") from error
        self._point("blob.after-quarantine")

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Idempotent."""
        self._point("blob.before-delete")
        try:
            self._fs.rm_file(self._path(digest))
        except FileNotFoundError:
            return
        except Exception as error:  # as above
            raise failure(error, f"delete {digest} from {self.url}") from error
        self._point("blob.after-delete")

    def list_digests(self) -> Iterator[Digest]:
        """Yield the names of all blobs, in no order."""
        for path, _ in self._listed():
            digest = _digest_of(path)
            if digest is not None:
                yield digest

    def survey(self) -> Iterator[BlobFile]:
        """Yield every blob with its size and age, in no order."""
        for path, info in self._listed():
            digest = _digest_of(path)
            if digest is None:
                continue
            try:
                changed_at = self._objects.age_of(path, info)
            except FileNotFoundError:  # taken by another gc
                continue
            except Exception as error:  # as above
                raise failure(error, f"look into {self.url}") from error
            yield BlobFile(digest=digest, size_bytes=info["size"], changed_at=changed_at)

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        listing = self._objects.listed(self._folder)
        while True:
            try:  # around this alone: what its reader raises is not the listing's
                entry = next(listing)
            except (StopIteration, FileNotFoundError):
                return
            except Exception as error:  # as above
                raise failure(error, f"list {self.url}") from error
            yield entry

    @property
    def least_grace_s(self) -> float:
        """Return for how long a gc may have looked at a blob before it removes it."""
        return _LEAST_GRACE_S

    def renew(self, digest: Digest) -> bool:
        """Make a blob young by copying it over there, if it is there; say whether it is."""
        try:
            self._objects.renew(self._path(digest))
        except FileNotFoundError:
            confirm_root(self.root)
            return False
        except Exception as error:  # as above
            raise failure(error, f"renew {digest} in {self.url}") from error
        return True

    def collect(self, digest: Digest, before: float) -> bool:
        """Remove a blob that was not put or renewed since ``before``; say whether it is gone.

        Nothing locks an object: one that is renewed between the look and the removal is lost, and
        rebuilt from lineage. ``least_grace_s`` keeps that moment far from whatever is in use.
        """
        found = self._look(self._path(digest))
        if found is None:
            confirm_root(self.root)
            return True
        if found.changed_at >= before:
            return False
        self.delete(digest)
        return True

    def verify(self, digest: Digest, size_bytes: int) -> None:
        """Read a blob from its storage and keep nothing of it. Raises as ``open``."""
        self._read(digest, size_bytes, lambda at, piece: None)

    def restore(self, digest: Digest) -> bool:
        """Say that there is no copy: this store keeps none beside its blobs."""
        return False

    def leftovers(self) -> Iterator[Leftover]:
        """Yield temporary objects, quarantined blobs, spools, logs and uploads, in no order."""
        yield from self.root.leftovers()
        yield from self._uploads()

    def _uploads(self) -> Iterator[Leftover]:
        try:
            yield from self._objects.uploads()
        except Exception as error:  # as above
            raise failure(error, f"look for uploads in {self.url}") from error

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove one of them with all that is under it. Idempotent."""
        if leftover.area == UPLOADS:
            self._abort(leftover.name)
            return
        self.root.remove(f"{leftover.area}/{leftover.name}")

    def _abort(self, upload: str) -> None:
        try:
            self._objects.abort(upload)
        except Exception as error:  # as above
            raise failure(error, f"abort an upload to {self.url}") from error

    def spool(self, run_id: str) -> FsspecSpool:
        """Return the store of one run's values without a checkpoint."""
        return FsspecSpool(self.root, run_id)

    def drop_spool(self, run_id: str) -> None:
        """Remove a run's spool with all that is in it. Idempotent."""
        self.root.remove(f"spool/{folder_of(run_id)}")

    def sweep_temporaries(self, *, older_than_s: float = _DAY_S, clock: Clock | None = None) -> int:
        """Remove what uploads that died have left behind; return how many there were."""
        before = (clock or SystemClock()).now().timestamp() - older_than_s
        stale = [upload for upload in self._uploads() if upload.changed_at < before]
        for upload in stale:
            self._abort(upload.name)
        swept = len(stale)
        try:
            for path in self._fs.find(self._incoming):
                if path.endswith(".tmp") and self._fs.modified(path).timestamp() < before:
                    self._fs.rm_file(path)
                    swept += 1
        except FileNotFoundError:
            return swept
        except Exception as error:  # as above
            raise failure(error, f"sweep {self.url}") from error
        return swept


def _objects_of(root: RemoteRoot) -> Objects:
    """Return the objects under a root, by the best means that its filesystem has."""
    if protocols_of(root.fs) & {"s3", "s3a"} and hasattr(root.fs, "call_s3"):
        return S3Objects(root)
    return FsspecObjects(root)


def _measure(buffers: Sequence[Buffer], digest: Digest | None) -> tuple[Digest, int]:
    """Return digest and length of the bytes, from one pass over them."""
    hasher = Hasher(size_of(buffers)) if digest is None else None
    size_bytes = 0
    for piece in pieces(buffers):
        size_bytes += len(piece)
        if hasher is not None:
            hasher.update(piece)
    return digest or hasher.digest(), size_bytes  # type: ignore[union-attr]


def _digest_of(path: str) -> Digest | None:
    """Return the digest that an object is named by, or None if it is no blob."""
    prefix = f"{ALGORITHM}-"
    name = path.rpartition("/")[2]
    digest = f"{ALGORITHM}:{name.removeprefix(prefix)}"
    return Digest(digest) if name.startswith(prefix) and is_digest(digest) else None


class FsspecSpool(FsspecBlobStore):
    """Blobs that are dropped with their run."""

    def __init__(self, root: RemoteRoot, run_id: str) -> None:
        super().__init__(root, f"spool/{folder_of(run_id)}")

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers`` until the spool is dropped."""
        stored = super().put(buffers, digest=digest)
        crash_point("spool.after-put")
        return stored

    def _point(self, name: str) -> None:
        """Do nothing: the named points are about durable blobs."""
