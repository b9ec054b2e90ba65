"""A folder as a value: each file a blob under its digest, and a manifest that names them.

So what does not change between two states of a folder is stored once, whoever stores it: a file is
written if no blob has its bytes, and read only if it may have changed since this process stored or
restored it. Symbolic links, devices and names that lead out of the folder are refused both ways.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from perdure_storage.clock import Clock, SystemClock
from perdure_storage.codecs import register_codec
from perdure_storage.errors import NotSerializable, StoreError
from perdure_storage.faults import crash_point
from perdure_storage.records import Buffer, Digest, StoredValue
from perdure_storage.values import Values
from perdure_storage.verified import identity

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

CODEC = "directory/1"

_AT_ONCE = 8
_READ_BYTES = 4 << 20
_IN_ONE_PIECE_BYTES = 1 << 20
_TICK_S = 0.05
_COARSE_TICK_S = 2.0
_KNOWN = 1_000_000


class StoredFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a manifest; ``path`` is relative, with slashes."""

    path: str
    digest: Digest
    size_bytes: int
    executable: bool


class Manifest(msgspec.Struct, frozen=True):
    """What is in a folder, sorted by path.

    Attributes:
        files: every file at any depth.
        folders: folders without anything in them; all others follow from the files.
    """

    files: tuple[StoredFile, ...]
    folders: tuple[str, ...]


register_codec(
    Manifest,
    CODEC,
    encode=lambda manifest: [msgspec.json.encode(manifest)],
    decode=lambda data: msgspec.json.decode(data, type=Manifest),
    canonical=True,
)


def is_directory(stored: StoredValue) -> bool:
    """Say whether a value is a folder: ``Directories.restore`` gives it back."""
    return stored.codec == CODEC


class Directories:
    """Stores folders and restores them. Safe to use from many threads.

    One object is best kept for as long as a process lives: it remembers which files have the
    bytes of which blob, by (device, inode, size, change time).
    """

    def __init__(self, values: Values, clock: Clock | None = None) -> None:
        self._values = values
        self._clock = clock or SystemClock()
        self._known: dict[tuple[int, ...], Digest] = {}

    def store(self, folder: str | os.PathLike[str], *, name: str = "result") -> StoredValue:
        """Store what is in a folder; returns when it is durable. One pass, in bounded memory.

        The returned value names the blobs of its files, so whoever refers to it (see
        ``guards.blobs_of_value``) keeps all of it. Is a commit refused because gc took one of
        them, store the folder again.

        Args:
            folder: not changed meanwhile. Kept of a file: its path, bytes, and whether it can be
                executed.
            name: what messages call it.

        Raises:
            NotSerializable: something in it is neither a file nor a folder, or has no name in
                UTF-8, cannot be read, or changed while it was read.
            ValueUnavailable: storage does not answer now.
            StoreUnavailable: the disk is full.
        """
        root = Path(folder)
        found, folders = _survey(root, name)
        mapped = _mapped_inodes()
        with _threads() as pool:
            files = tuple(pool.map(lambda file: self._store_file(root, file, mapped, name), found))
        crash_point("directory.before-manifest")
        stored = self._values.store(Manifest(files=files, folders=tuple(folders)), name=name)
        blobs = tuple(sorted({file.digest for file in files}))
        shown = {"type": "directory", "files": len(files), "size_bytes": _size_of(files)}
        return msgspec.structs.replace(
            stored, files=blobs, preview=msgspec.json.encode(shown).decode()
        )

    def restore(self, stored: StoredValue, folder: str | os.PathLike[str]) -> None:
        """Make a folder what it was when it was stored: whole, or not at all.

        Its files are copies (clones, where the filesystem has them): to change one changes no
        blob.

        Args:
            stored: what ``store`` returned.
            folder: not there yet, or empty.

        Raises:
            StoreError: the folder is not empty or cannot be written, or the manifest is none.
            ValueDamaged: a file's bytes are missing, or are others.
            ValueUnavailable: storage does not answer now.
        """
        manifest = self._values.load(stored)
        if not isinstance(manifest, Manifest):
            raise StoreError(f"a value encoded by {stored.codec!r} is no folder")
        _check(manifest)
        target = Path(folder)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            _make_place(target)
            self._fill(beside, manifest)
            os.rename(beside, target)
        except OSError as error:
            raise StoreError(f"cannot restore a folder to {target}: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._note_restored(target, manifest)

    # --- storing ----------------------------------------------------------------------------
    def _store_file(self, root: Path, path: str, mapped: frozenset[int], name: str) -> StoredFile:
        shown = f"{name}/{path}"
        with _opened(root / path, shown) as fd:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise _refused(shown, "it is no file any more")
            trusted = before.st_ino not in mapped
            digest = self._known.get(identity(before)) if trusted else None
            if digest is None or not self._values.blobs.contains(digest, before.st_size):
                digest = self._values.blobs.put(_bytes_of(fd, before, shown))
                if identity(os.fstat(fd)) != identity(before):
                    raise _refused(shown, _CHANGED)
                if trusted:
                    self._note(before, digest)
        return StoredFile(path, digest, before.st_size, bool(before.st_mode & stat.S_IXUSR))

    def _note(self, found: os.stat_result, digest: Digest) -> None:
        """Remember a file's digest, unless it may still change without a new change time."""
        # A filesystem stamps with the tick of a coarse clock: until that has moved on, a later
        # write looks like this one. Whole seconds come from those that know nothing finer.
        tick_s = _COARSE_TICK_S if found.st_ctime_ns % 1_000_000_000 == 0 else _TICK_S
        if self._clock.now().timestamp() - found.st_ctime > tick_s:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[identity(found)] = digest

    # --- restoring --------------------------------------------------------------------------
    def _fill(self, target: Path, manifest: Manifest) -> None:
        target.mkdir()
        for inner in manifest.folders:
            (target / inner).mkdir(parents=True, exist_ok=True)
        for parent in sorted({(target / file.path).parent for file in manifest.files}):
            parent.mkdir(parents=True, exist_ok=True)
        with _threads() as pool:
            list(pool.map(lambda file: self._restore_file(target, file), manifest.files))

    def _restore_file(self, target: Path, file: StoredFile) -> None:
        mode = 0o777 if file.executable else 0o666
        fd = os.open(target / file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            self._values.blobs.copy_out(file.digest, file.size_bytes, fd)
        finally:
            os.close(fd)

    def _note_restored(self, target: Path, manifest: Manifest) -> None:
        for file in manifest.files:
            with contextlib.suppress(OSError):  # taken away already: then nothing is known of it
                self._note((target / file.path).lstat(), file.digest)


def _threads() -> ThreadPoolExecutor:
    """Return threads for as long as a ``with`` block: syncs of many files overlap."""
    from concurrent.futures import ThreadPoolExecutor  # not for every worker

    return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="perdure-directory")


_CHANGED = "it changed while it was stored: store it when nothing writes to it"


@dataclass(frozen=True, slots=True)
class _FileBytes:
    """The bytes of an open file, read anew by whoever iterates, never all of them at once."""

    fd: int
    found: os.stat_result
    shown: str

    def __iter__(self) -> Iterator[memoryview]:
        room = memoryview(bytearray(_READ_BYTES))
        at = 0
        while True:
            try:
                count = os.preadv(self.fd, [room], at)
            except OSError as error:
                raise _refused(self.shown, f"it cannot be read ({error.strerror})") from error
            if count == 0:
                break
            at += count
            yield room[:count]
        # Told before an upload is completed under a digest of what was there before.
        if at != self.found.st_size or identity(os.fstat(self.fd)) != identity(self.found):
            raise _refused(self.shown, _CHANGED)


def _bytes_of(fd: int, found: os.stat_result, shown: str) -> Sequence[Buffer]:
    """Return a file's bytes for ``BlobStore.put``: small ones as they are, to be hashed first."""
    buffers = _FileBytes(fd, found, shown)
    if found.st_size > _IN_ONE_PIECE_BYTES:
        return cast(Sequence[Buffer], buffers)
    return [b"".join(buffers)]


@contextlib.contextmanager
def _opened(path: Path, shown: str) -> Iterator[int]:
    try:
        # What became a pipe since it was looked at must not keep us waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(shown, f"it cannot be opened ({error.strerror})") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _survey(root: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the paths of all files, and of the folders with nothing in them, sorted."""
    files: list[str] = []
    folders: list[str] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        entries = _entries(root / inner, f"{name}/{inner}" if inner else name)
        if inner and not entries:
            folders.append(inner)
        for entry in entries:
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_file(follow_symlinks=False):
                files.append(_spelt(path, name))
            else:
                raise _refused(f"{name}/{path}", _kind_of(entry))
    return sorted(files), sorted(_spelt(path, name) for path in folders)


def _entries(folder: Path, shown: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _refused(shown, f"it cannot be read ({error.strerror})") from error


def _spelt(path: str, name: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = f"{name}/{path.encode('utf-8', 'backslashreplace').decode()}"
        raise _refused(shown, "its name is not UTF-8: rename it") from None
    return path


def _kind_of(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "it is a symbolic link: put a copy of what it leads to in its place"
    return "it is neither a file nor a folder: take it out, or keep it elsewhere"


def _refused(path: str, why: str) -> NotSerializable:
    return NotSerializable(f"{path!r} cannot be stored: {why}", path=path)


def _mapped_inodes() -> frozenset[int]:
    """Return the files that this process may change through memory, where the system tells.

    Such a change moves a file's change time late, if ever: these are read each time.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            fields = [line.split(maxsplit=5) for line in maps]
    except OSError:
        return frozenset()
    return frozenset(int(line[4]) for line in fields if line[1].startswith("rw") and "s" in line[1])


def _size_of(files: Iterable[StoredFile]) -> int:
    return sum(file.size_bytes for file in files)


def _make_place(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise StoreError(f"{target} is not empty: name a folder that is not there yet")


def _check(manifest: Manifest) -> None:
    """Refuse whatever would not end up inside the folder, whoever wrote it."""
    for path in (*(file.path for file in manifest.files), *manifest.folders):
        if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise StoreError(f"a stored folder names {path!r}, which does not lie in it")
