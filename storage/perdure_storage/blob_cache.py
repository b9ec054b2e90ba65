"""Blobs of a bucket on this host's disk: fetched once, verified, mapped; the least used go first.

Nothing here is a truth. A blob that is gone is fetched again, a file that was cut by a power cut or
changed by somebody is found by its digest and fetched again, and a disk that is full or cannot be
written costs the cache, not the value. All processes of a user share a cache, whatever their store:
a name is its content.

    blobs/ab/blake3-<hex>   the bytes; appear by a rename
    used/<hex>              when they were used last: a mark on the blob itself would have it hashed
    locks/ab                held by who fetches a blob of such a name, so that others wait for it
    tally                   how many bytes there are at the most; wrong until the next look at them
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from perdure_storage.clock import SystemClock
from perdure_storage.durable_files import MEMORY
from perdure_storage.errors import StoreUnavailable, ValueDamaged, ValueUnavailable
from perdure_storage.hashing import ALGORITHM, hex_of
from perdure_storage.local_blobs import LocalBlobStore
from perdure_storage.records import Buffer, CacheTerms, Digest
from perdure_storage.roots import LocalRoot, Marker

_log = logging.getLogger(__name__)
T = TypeVar("T")

_OWNER = "cache"
_LOOK_AGAIN_S = 0.02
_PATIENCE_S = 60.0
"""How long to wait for who fetches the same blob: it may be stopped, or its line be slow."""

_KEPT_OF_FULL = 7 / 8
_STALE_S = 3_600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size_bytes: int
    used_at: float


class _Copies(LocalBlobStore):
    """Files that are no blobs of the store: its crash points are not passed by them."""

    def _point(self, name: str) -> None:
        """Do nothing."""


class BlobCache:
    """Copies of blobs in a folder of this host. Safe between threads and processes."""

    def __init__(self, terms: CacheTerms) -> None:
        self.terms = terms
        self._folder = Path(terms.folder) / _OWNER
        self._blobs = _Copies(LocalRoot(Path(terms.folder), _OWNER), sync=MEMORY)
        self._clock = SystemClock()
        self._is_ready = False

    def is_usable(self) -> bool:
        """Say whether the folder is there, or can be made, and written."""
        return self._is_made() and os.access(self._folder, os.W_OK)

    def holds_up_to(self, size_bytes: int) -> bool:
        """Say whether a blob of that size may be kept, and the folder be used."""
        return 0 < size_bytes <= self.terms.limit_bytes and self._is_made()

    # --- reading ----------------------------------------------------------------------------
    def find(self, digest: Digest, size_bytes: int) -> memoryview | None:
        """Return verified bytes, writable, or None if they are not here."""
        return self._found(digest, lambda: self._blobs.open(digest, size_bytes))

    def find_whole(self, digest: Digest) -> memoryview | None:
        """Return verified bytes of a blob whose size is not known, or None if they are not here."""
        if not self._is_made():
            return None
        try:
            size_bytes = self._blobs.size_of(digest)
        except ValueUnavailable as error:
            self._tell(error)
            return None
        return None if size_bytes is None else self.find(digest, size_bytes)

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> bool:
        """Write verified bytes to an empty file; say whether they are here."""

        def copy() -> bool:
            self._blobs.copy_out(digest, size_bytes, fd)
            return True

        return self._found(digest, copy) or False

    def _found(self, digest: Digest, read: Callable[[], T]) -> T | None:
        try:
            found = read()
        except ValueDamaged as error:
            if not error.missing:
                self.forget(digest)
            return None
        except ValueUnavailable as error:
            self._tell(error)
            return None
        with contextlib.suppress(OSError):  # it goes earlier than it should
            self._used(digest).touch()
        return found

    # --- writing ----------------------------------------------------------------------------
    def put(self, buffers: Sequence[Buffer], size_bytes: int) -> Digest | None:
        """Keep bytes that are being stored; return their digest, None if there is no room.

        Raises what whoever makes the bytes raises.
        """
        try:
            self._make_room(size_bytes)
            digest = self._blobs.put(buffers)
            self._used(digest).touch()
        except (OSError, StoreUnavailable, ValueUnavailable) as error:
            self._tell(error)
            return None
        return digest

    def fetch(self, digest: Digest, size_bytes: int, write: Callable[[int], None]) -> None:
        """Keep what ``write`` writes to a file, verified by it, unless somebody else does so now.

        Raises what ``write`` raises, and OSError if the disk takes nothing.
        """
        with self._alone(digest):
            if self._blobs.contains(digest, size_bytes):
                return
            self._make_room(size_bytes)
            self._blobs.keep(digest, write)
            self._used(digest).touch()

    def forget(self, digest: Digest) -> None:
        """Let a blob go. Idempotent."""
        if not self._folder.exists():
            return
        try:
            self._used(digest).unlink(missing_ok=True)
            self._blobs.discard(digest)
        except OSError as error:
            self._tell(error)

    # --- its bound --------------------------------------------------------------------------
    def size_bytes(self) -> int:
        """Return how many bytes are kept."""
        return sum(kept.size_bytes for kept in self._survey())

    def trim(self) -> None:
        """Remove what is above the bound, and what processes that died have left."""
        if not self._folder.exists():
            return
        try:
            with self._tally() as fd:
                _write_number(fd, self._evict(self.terms.limit_bytes))
        except OSError as error:
            self._tell(error)

    def _make_room(self, size_bytes: int) -> None:
        """Count bytes that are about to come; if they are too many, let the least used go."""
        with self._tally() as fd:
            held = _read_number(fd)
            if held is None or held + size_bytes > self.terms.limit_bytes:
                # Some more than is needed: not every blob that comes is to look at all others.
                held = self._evict(int(self.terms.limit_bytes * _KEPT_OF_FULL) - size_bytes)
            _write_number(fd, held + size_bytes)

    def _evict(self, most_bytes: int) -> int:
        """Remove blobs, the least recently used first; return how many bytes are left."""
        held = self._survey()
        left = sum(kept.size_bytes for kept in held)
        for kept in sorted(held, key=lambda kept: kept.used_at):
            if left <= most_bytes:
                break
            with contextlib.suppress(FileNotFoundError):  # whoever has it mapped keeps it
                kept.path.unlink()
            self._used_by(kept.path.name).unlink(missing_ok=True)
            left -= kept.size_bytes
        return left

    def _survey(self) -> list[_Kept]:
        """Return all blobs, and sweep temporary files that are stale."""
        self._blobs.sweep_temporaries(older_than_s=_STALE_S)
        found = []
        for path in (self._folder / "blobs").glob(f"??/{ALGORITHM}-*"):
            with contextlib.suppress(FileNotFoundError):  # taken by another process
                there = path.stat()
                found.append(_Kept(path, there.st_size, self._used_at(path, there.st_mtime)))
        return found

    def _used_at(self, path: Path, written_at: float) -> float:
        try:
            return self._used_by(path.name).stat().st_mtime
        except FileNotFoundError:
            return written_at

    def _used(self, digest: Digest) -> Path:
        return self._folder / "used" / hex_of(digest)

    def _used_by(self, name: str) -> Path:
        return self._folder / "used" / name.removeprefix(f"{ALGORITHM}-")

    # --- between processes ------------------------------------------------------------------
    @contextlib.contextmanager
    def _tally(self) -> Iterator[int]:
        """Yield the open tally, held."""
        fd = os.open(self._folder / "tally", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _alone(self, digest: Digest) -> Iterator[None]:
        """Hold the lock of whoever fetches a blob; after a while, go on without it."""
        fd = os.open(self._folder / "locks" / hex_of(digest)[:2], os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = self._clock.monotonic() + _PATIENCE_S
            while not _locked(fd) and self._clock.monotonic() < until:
                threading.Event().wait(_LOOK_AGAIN_S)
            yield
        finally:
            os.close(fd)

    def _is_made(self) -> bool:
        """Make the folder, once; say whether it is there."""
        if not self._is_ready:
            try:
                for name in ("used", "locks"):
                    (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._folder.chmod(0o700)
                root = self._blobs.root
                if root.read_marker() is None:
                    root.write_marker(msgspec.json.encode(Marker(store=_OWNER)))
            except (OSError, StoreUnavailable, ValueUnavailable) as error:
                self._tell(error)
                return False
            self._is_ready = True
        return True

    def _tell(self, error: Exception) -> None:
        _log.warning("values are not kept in %s: %s", self.terms.folder, error)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_number(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _write_number(fd: int, number: int) -> None:
    os.pwrite(fd, b"%-31d\n" % number, 0)
