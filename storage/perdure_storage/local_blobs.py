"""Blobs in a folder: written to a temporary name, synced, renamed, the folder synced; mapped."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from perdure_storage.clock import Clock, SystemClock
from perdure_storage.durable_files import DISK, MEMORY, Sync, temporary_name, write_all
from perdure_storage.errors import ValueDamaged
from perdure_storage.faults import crash_point
from perdure_storage.hashing import (
    ALGORITHM,
    Hasher,
    flat,
    hex_of,
    integrity_digest,
    is_digest,
    pieces,
    size_of,
    sketch,
)
from perdure_storage.hashing_beside import hashing
from perdure_storage.records import BlobFile, Buffer, Digest, Leftover
from perdure_storage.roots import LocalRoot, confirm_root, failure, folder_of
from perdure_storage.verified import Verified, identity, sweep_records

T = TypeVar("T")

_HASHED_FIRST_UP_TO_BYTES = 1 << 20
_BEGUN_FROM_BYTES = 8 << 20
_MAPPED_FROM_BYTES = 128 << 10
_READ_BYTES = 1 << 20
_DAY_S = 86_400.0
_COARSEST_CLOCK_S = 2.0
_STAYS_YOUNG_S = 3_600.0
_SETTLED = 1_000


class LocalBlobStore:
    """BlobStore in ``<root>/<store-id>/blobs/ab/blake3-<hex>``."""

    def __init__(self, root: LocalRoot, area: str = "blobs", sync: Sync = DISK) -> None:
        self.root = root
        self._folder = root.folder / area
        self._incoming = root.folder / ("incoming" if sync is DISK else area)
        self._sync = sync
        self._verified = Verified()
        self._ready: set[Path] = set()
        self._settled: dict[str, tuple[int, ...]] = {}

    @property
    def url(self) -> str:
        """Return the folder that holds the store's folder."""
        return self.root.url

    @property
    def address(self) -> str:
        """Return where another process finds it."""
        return self.root.url

    @property
    def cache(self) -> None:
        """Return nothing: what is on a disk is kept nowhere else."""
        return None

    # --- writing ----------------------------------------------------------------------------
    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers`` durably and return its digest.

        Raises:
            StoreUnavailable: the disk is full; nothing is left of the attempt.
            ValueUnavailable: the disk does not take it for any other reason.
        """
        size_bytes = size_of(buffers)
        if digest is None and size_bytes is not None and self._hashes_first(buffers, size_bytes):
            digest = integrity_digest(buffers)
        try:
            return self._put(buffers, digest, size_bytes)
        except FileNotFoundError:
            # A folder that was there is gone. Without the marker the whole root is: say so, and
            # do not make half of it again.
            confirm_root(self.root)
            self._ready.clear()
        except OSError as error:
            raise failure(error, f"store a value in {self.url}") from error
        try:
            return self._put(buffers, digest, size_bytes)
        except OSError as error:
            raise failure(error, f"store a value in {self.url}") from error

    def _hashes_first(self, buffers: Sequence[Buffer], size_bytes: int) -> bool:
        """Say whether to look for the name before writing: where little or much is saved by it.

        Large bytes are hashed while they are written, unless they look like some that were put
        on this host before: those are hashed first, and not written a second time.
        """
        return size_bytes <= _HASHED_FIRST_UP_TO_BYTES or self._verified.saw(sketch(buffers))

    def _put(
        self, buffers: Sequence[Buffer], digest: Digest | None, size_bytes: int | None
    ) -> Digest:
        if digest is not None and size_bytes is not None:
            path = self._path(digest)
            if self._is_there(path, size_bytes):
                return self._settle(digest, path)
        self._make_ready(self._incoming)
        temporary = self._incoming / temporary_name()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            self._point("blob.opened")
            written = self._write(fd, buffers, digest)
            if self._is_there(self._path(written), os.fstat(fd).st_size):
                temporary.unlink()  # before it costs the disk anything
                return self._settle(written, self._path(written))
            self._sync.file(fd)
            self._point("blob.after-fsync")
            return self._give_name(fd, temporary, written)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def keep(self, digest: Digest, write: Callable[[int], None]) -> None:
        """Store what ``write`` writes to a file, which it has verified to be what is named.

        Raises:
            OSError: the disk takes nothing; and what ``write`` raises.
        """
        self._make_ready(self._incoming)
        temporary = self._incoming / temporary_name()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write(fd)
            self._sync.file(fd)
            self._give_name(fd, temporary, digest)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def discard(self, digest: Digest) -> None:
        """Remove a copy that is not needed any more. Idempotent. Raises OSError."""
        path = self._path(digest)
        path.unlink(missing_ok=True)
        self._verified.forget(path.name)

    def _write(self, fd: int, buffers: Sequence[Buffer], digest: Digest | None) -> Digest:
        """Write and, if the digest is not known, hash in the same pass; let the disk begin."""
        hasher = Hasher() if digest is None else None
        written = begun = 0
        for at, piece in enumerate(pieces(buffers)):
            with hashing(hasher, piece) if hasher is not None else contextlib.nullcontext():
                write_all(fd, piece)
            written += len(piece)
            if written - begun >= _BEGUN_FROM_BYTES:
                self._sync.begin(fd, begun, written - begun)
                begun = written
            self._point("blob.mid-write" if at else "blob.first-byte")
        self._point("blob.before-close")
        return digest if hasher is None else hasher.digest()  # type: ignore[return-value]

    def _give_name(self, fd: int, temporary: Path, digest: Digest) -> Digest:
        path = self._path(digest)
        self._make_ready(path.parent)
        if self._is_there(path, os.fstat(fd).st_size):
            # Kept rather than replaced: others may have verified it, and have it mapped.
            temporary.unlink()
            return self._settle(digest, path)
        with _held(path):
            os.rename(temporary, path)
        self._point("blob.after-rename")
        self._sync.folder(path.parent)
        self._point("blob.after-folder-fsync")
        self._verified.note(path.name, os.fstat(fd))
        return digest

    def _settle(self, digest: Digest, path: Path) -> Digest:
        """Make durable what somebody put under this name, and may not have synced yet.

        What was made durable here, and has been the same file since, is so: whoever records a
        thousand runs of one plan puts its sources a thousand times.
        """
        fd = os.open(path, os.O_RDONLY)
        try:
            self._keep_young(fd)
            found = identity(os.fstat(fd))
            if self._settled.get(path.name) != found:
                self._sync.file(fd)
                self._make_ready(path.parent)
                self._sync.folder(path.parent)
                if len(self._settled) >= _SETTLED:
                    self._settled.clear()
                self._settled[path.name] = found
        finally:
            os.close(fd)
        self._point("blob.already-there")
        return digest

    def _keep_young(self, fd: int) -> None:
        """Let gc see that somebody has put this again; what has a new time is hashed again."""
        if os.fstat(fd).st_mtime < SystemClock().now().timestamp() - _STAYS_YOUNG_S:
            with contextlib.suppress(PermissionError):  # another user's: it stays as old as it is
                os.utime(fd)

    def _is_there(self, path: Path, size_bytes: int) -> bool:
        try:
            return path.stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def _make_ready(self, folder: Path) -> None:
        if folder not in self._ready:
            self._sync.make_folder(folder)
            self._ready.add(folder)

    def _point(self, name: str) -> None:
        crash_point(name)

    def _path(self, digest: Digest) -> Path:
        name = hex_of(digest)
        return self._folder / name[:2] / f"{ALGORITHM}-{name}"

    # --- reading ----------------------------------------------------------------------------
    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        """Return verified bytes, writable; large ones are a private map of the file.

        Raises:
            ValueDamaged: nothing is there, or, confirmed by a second read, other bytes are.
            ValueUnavailable: the disk does not answer, or the root is not there.
        """
        return self._twice(digest, lambda path: self._read(path, digest, size_bytes))

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        """Write verified bytes to an empty file: a clone, where the filesystem has them.

        Raises:
            ValueDamaged: as ``open``.
            ValueUnavailable: as ``open``.
            OSError: the file takes no bytes.
        """
        blob = self._twice(digest, lambda path: self._open_verified(path, digest, size_bytes))
        try:
            _copy(blob, fd, size_bytes)
        finally:
            os.close(blob)

    def _twice(self, digest: Digest, read: Callable[[Path], T | None]) -> T:
        """Return what ``read`` makes of a blob's file; None is confirmed by a second read."""
        path = self._path(digest)
        try:
            found = read(path)
            if found is None:
                self._verified.forget(path.name)
                _drop_cache(path)
                found = read(path)
        except FileNotFoundError:
            confirm_root(self.root)
            found = self._again(path, digest, read)
        except OSError as error:
            raise failure(error, f"read {digest} from {self.url}") from error
        if found is None:
            confirm_root(self.root)
            raise ValueDamaged(f"{path} does not hold the bytes that were committed", digest=digest)
        return found

    def _again(self, path: Path, digest: Digest, read: Callable[[Path], T | None]) -> T | None:
        try:
            return read(path)
        except FileNotFoundError:
            raise ValueDamaged(f"{path} is missing", digest=digest, missing=True) from None
        except OSError as error:
            raise failure(error, f"read {digest} from {self.url}") from error

    def _read(self, path: Path, digest: Digest, size_bytes: int) -> memoryview | None:
        """Return the bytes, or None if they are not those of ``digest``. Raises OSError."""
        fd = os.open(path, os.O_RDONLY)
        try:
            found = os.fstat(fd)
            if found.st_size != size_bytes:
                return None
            if size_bytes < _MAPPED_FROM_BYTES:
                return _read_small(fd, digest, size_bytes)
            return _map(fd, size_bytes) if self._verify_file(path, digest, fd) else None
        finally:
            os.close(fd)

    def _open_verified(self, path: Path, digest: Digest, size_bytes: int) -> int | None:
        """Return the open file, or None if its bytes are not those of ``digest``."""
        fd = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(fd).st_size == size_bytes and self._verify_file(path, digest, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _verify_file(self, path: Path, digest: Digest, fd: int) -> bool:
        # Hashed by read(), not through a map: a disk error is then an exception, not the death
        # of the process.
        found = os.fstat(fd)
        if self._verified.holds(path.name, found):
            return True
        if _hash_file(fd, found.st_size) != digest:
            return False
        self._verified.note(path.name, found)
        return True

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        """Say whether a blob of that name and size is there, without reading it."""
        path = self._path(digest)
        try:
            if self._is_there(path, size_bytes):
                return True
        except OSError as error:
            raise failure(error, f"look for {digest} in {self.url}") from error
        confirm_root(self.root)
        return False

    # --- upkeep -----------------------------------------------------------------------------
    def size_of(self, digest: Digest) -> int | None:
        """Return how many bytes a blob has, None if it is not there."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            confirm_root(self.root)
            return None
        except OSError as error:
            raise failure(error, f"look for {digest} in {self.url}") from error

    def quarantine(self, digest: Digest) -> None:
        """Move a blob out of the way, into the store's ``quarantine`` folder. Idempotent."""
        path = self._path(digest)
        aside = self.root.folder / "quarantine"
        self._point("blob.before-quarantine")
        try:
            self._make_ready(aside)
            with _held(path):
                os.rename(path, aside / f"{path.name}.{secrets.token_hex(4)}")
            self._sync.folder(aside)
            self._sync.folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure(error, f"move {digest} aside in {self.url}") from error
        finally:
            self._verified.forget(path.name)
        self._point("blob.after-quarantine")

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Idempotent."""
        path = self._path(digest)
        self._point("blob.before-delete")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise failure(error, f"delete {digest} from {self.url}") from error
        finally:
            self._verified.forget(path.name)
        self._point("blob.after-delete")

    def list_digests(self) -> Iterator[Digest]:
        """Yield the names of all blobs, in no order."""
        prefix = f"{ALGORITHM}-"
        try:
            for folder in self._folders():
                for name in os.listdir(folder):
                    digest = f"{ALGORITHM}:{name.removeprefix(prefix)}"
                    if name.startswith(prefix) and is_digest(digest):
                        yield Digest(digest)
        except OSError as error:
            raise failure(error, f"list {self.url}") from error

    def _folders(self) -> list[Path]:
        try:
            return [folder for folder in self._folder.iterdir() if folder.is_dir()]
        except FileNotFoundError:
            return []

    def survey(self) -> Iterator[BlobFile]:
        """Yield every blob with its size and age, in no order."""
        for digest in self.list_digests():
            with contextlib.suppress(FileNotFoundError):  # taken by another gc
                found = self._path(digest).stat()
                yield BlobFile(digest=digest, size_bytes=found.st_size, changed_at=found.st_mtime)

    @property
    def least_grace_s(self) -> float:
        """Return how coarse the clock of a filesystem may be."""
        return _COARSEST_CLOCK_S

    def renew(self, digest: Digest) -> bool:
        """Make a blob young, if it is there; say whether it is."""
        path = self._path(digest)
        try:
            with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as fd:
                os.utime(fd)
                return True
        except FileNotFoundError:
            confirm_root(self.root)
            return False
        except PermissionError:
            # Somebody else's file: one of our own takes its name when it is put again.
            self.quarantine(digest)
            return False
        except OSError as error:
            raise failure(error, f"renew {digest} in {self.url}") from error

    def collect(self, digest: Digest, before: float) -> bool:
        """Remove a blob that was not put or renewed since ``before``; say whether it is gone."""
        path = self._path(digest)
        try:
            with _locked(path, _flags_to_lock(path), fcntl.LOCK_EX) as fd:
                if os.fstat(fd).st_mtime >= before:
                    return False
                self.delete(digest)
        except FileNotFoundError:
            confirm_root(self.root)
        except OSError as error:
            raise failure(error, f"collect {digest} in {self.url}") from error
        return True

    def verify(self, digest: Digest, size_bytes: int) -> None:
        """Read a blob from the disk, also if it was verified before. Raises as ``open``."""
        path = self._path(digest)
        self._verified.forget(path.name)
        with contextlib.suppress(OSError):  # what is not there is told by the reading
            _drop_cache(path)
        self.open(digest, size_bytes).release()

    def restore(self, digest: Digest) -> bool:
        """Say that there is no copy: this store keeps none beside its blobs."""
        return False

    def leftovers(self) -> Iterator[Leftover]:
        """Yield temporary files, quarantined blobs, spools and logs, in no order."""
        return self.root.leftovers()

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove one of them with all that is in it. Idempotent."""
        self.root.remove(f"{leftover.area}/{leftover.name}")

    def spool(self, run_id: str) -> LocalSpool:
        """Return the unsynced store of one run's values without a checkpoint."""
        return LocalSpool(self.root, run_id)

    def drop_spool(self, run_id: str) -> None:
        """Remove a run's spool with all that is in it. Idempotent."""
        self.root.remove(f"spool/{folder_of(run_id)}")

    def sweep_temporaries(self, *, older_than_s: float = _DAY_S, clock: Clock | None = None) -> int:
        """Remove what puts that died have left behind; return how many files that were."""
        before = (clock or SystemClock()).now().timestamp() - older_than_s
        swept = 0
        for path in (*self._incoming.glob(".*.tmp"), *self.root.folder.glob(".*.tmp")):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    swept += 1
        sweep_records(before)
        return swept


class LocalSpool(LocalBlobStore):
    """Blobs that need not outlive the machine: never synced, dropped with their run."""

    def __init__(self, root: LocalRoot, run_id: str) -> None:
        super().__init__(root, f"spool/{folder_of(run_id)}", MEMORY)

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        """Store the concatenation of ``buffers`` until the machine stops."""
        stored = super().put(buffers, digest=digest)
        crash_point("spool.after-put")
        return stored

    def _point(self, name: str) -> None:
        """Do nothing: the named points are about durable blobs."""


@contextlib.contextmanager
def _locked(path: Path, flags: int, kind: int) -> Iterator[int]:
    """Yield the open file of a name, locked, while the name is still its own.

    So whoever removes a blob by its age and whoever makes it young exclude each other, and a
    lock whose holder died is gone.

    Raises:
        FileNotFoundError: nothing has the name, or something else has it by now.
    """
    fd = os.open(path, flags)
    try:
        fcntl.flock(fd, kind)
        if not os.path.samestat(os.fstat(fd), path.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield fd
    finally:
        os.close(fd)


def _flags_to_lock(path: Path) -> int:
    """Return how to open a file for an exclusive lock: NFS wants it writable, a disk does not."""
    return os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Let no gc remove what takes the place of a file that it is looking at; go on without one."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # nothing is there, as a rule
            stack.enter_context(_locked(path, os.O_RDONLY, fcntl.LOCK_SH))
        yield


def _read_small(fd: int, digest: Digest, size_bytes: int) -> memoryview | None:
    # A copy is cheaper than a map here, and a process may have 65,530 maps only.
    data = bytearray(size_bytes)
    _read_into(fd, memoryview(data))
    return memoryview(data) if integrity_digest((data,)) == digest else None


def _map(fd: int, size_bytes: int) -> memoryview:
    """Return a private map of the file, or a copy where the system has no map to give."""
    try:
        return memoryview(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY))
    except OSError as error:
        # A filesystem without maps; or this process has as many as it may have.
        if error.errno not in (errno.ENODEV, errno.ENOMEM):
            raise
    data = memoryview(bytearray(size_bytes))
    _read_into(fd, data)
    return data


def _copy(source: int, target: int, size_bytes: int) -> None:
    """Copy a file: within the filesystem, sharing its blocks, where that is to be had."""
    at = 0
    try:
        while at < size_bytes and hasattr(os, "copy_file_range"):
            count = os.copy_file_range(source, target, size_bytes - at, at, at)
            if count == 0:
                break
            at += count
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    room = memoryview(bytearray(min(_READ_BYTES, size_bytes - at)))
    os.lseek(target, at, os.SEEK_SET)
    while at < size_bytes:
        count = os.preadv(source, [room[: size_bytes - at]], at)
        if count == 0:
            raise OSError(f"the file became shorter while it was copied, at byte {at}")
        write_all(target, room[:count])
        at += count


_CANNOT_COPY = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


def _read_into(fd: int, into: memoryview) -> None:
    at = 0
    while at < len(into):
        count = os.preadv(fd, [into[at:]], at)
        if count == 0:
            raise OSError(f"the file became shorter while it was read, at byte {at}")
        at += count


def _hash_file(fd: int, size_bytes: int) -> Digest:
    hasher = Hasher(size_bytes)
    room = memoryview(bytearray(min(_READ_BYTES, size_bytes)))
    at = 0
    while at < size_bytes:
        count = os.preadv(fd, [flat(room)], at)
        if count == 0:
            break
        hasher.update(room[:count])
        at += count
    return hasher.digest()


def _drop_cache(path: Path) -> None:
    """Ask for the second read to come from the device, where the system knows how."""
    if not hasattr(os, "posix_fadvise"):
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
