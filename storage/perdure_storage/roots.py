"""The root under which a store's bytes lie: where it is, and the marker that binds it to its store.

``<root>/<store-id>/marker.json`` says whose it is; blobs, spools and logs lie beside it, so several
stores may share a bucket. A root without its marker is not this store's root: a disk that is not
mounted, a folder that was emptied. Nothing there is ever taken for lost.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from perdure_storage.durable_files import DISK, replace_file
from perdure_storage.errors import PerdureError, StoreError, StoreUnavailable, ValueUnavailable
from perdure_storage.faults import crash_point
from perdure_storage.records import Leftover
from perdure_storage.services import is_full, masked, remedy_of

_STORE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")
_S3 = ("s3://", "s3a://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extras of ours that install the driver of a scheme."""

# Where an object appears whole when its upload is closed, or not at all.
_CREATE_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})


class Marker(msgspec.Struct, frozen=True):
    """What the marker file holds."""

    store: str
    format: int = 1


class LocalRoot:
    """A folder of this machine or of one that it mounts.

    Attributes:
        url: where it is, for messages.
        folder: ``<root>/<store-id>``, absolute.
    """

    def __init__(self, path: Path, store_id: str) -> None:
        self.url = str(path)
        self.store_id = store_id
        self.folder = path / check_store_id(store_id)

    def read_marker(self) -> bytes | None:
        """Return the marker's bytes, or None if there is none. Raises ValueUnavailable."""
        try:
            return (self.folder / "marker.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(error, f"read the marker of {self.url}") from error

    def write_marker(self, body: bytes) -> None:
        """Write the marker, durably. Raises StoreUnavailable or ValueUnavailable."""
        try:
            DISK.make_folder(self.folder.parent)
            DISK.make_folder(self.folder)
            replace_file(
                self.folder / "marker.json",
                body,
                before_rename=lambda: crash_point("marker.before-rename"),
            )
        except OSError as error:
            raise failure(error, f"write into {self.url}") from error

    def is_used(self) -> bool:
        """Say whether there are blobs."""
        blobs = self.folder / "blobs"
        try:
            return blobs.is_dir() and any(blobs.iterdir())
        except OSError as error:
            raise failure(error, f"look into {self.url}") from error

    def remove(self, name: str) -> None:
        """Remove a file or folder below the store's, with all that is in it. Idempotent."""
        path = self.folder / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure(error, f"remove {name} from {self.url}") from error

    def leftovers(self) -> Iterator[Leftover]:
        """Yield what lies beside the blobs. Raises ValueUnavailable."""
        for area in AREAS:
            try:
                with os.scandir(self.folder / area) as entries:
                    found = [_leftover(area, entry) for entry in entries]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise failure(error, f"look into {self.url}") from error
            yield from (leftover for leftover in found if leftover is not None)


class RemoteRoot:
    """A prefix on an fsspec filesystem.

    Attributes:
        url: where it is, without credentials.
        address: where it is, with all that is needed to come there: not for messages.
        fs: the filesystem.
        folder: ``<prefix>/<store-id>``, as the filesystem writes paths.
    """

    def __init__(self, url: str, fs: Any, path: str, store_id: str) -> None:
        self.url = public_url(url)
        self.address = url
        self.store_id = store_id
        self.fs = fs
        self.folder = f"{path.rstrip('/')}/{check_store_id(store_id)}"

    def read_marker(self) -> bytes | None:
        """Return the marker's bytes, or None if there is none. Raises ValueUnavailable."""
        try:
            return bytes(self.fs.cat_file(f"{self.folder}/marker.json"))
        except FileNotFoundError:
            return None
        except Exception as error:  # a driver of somebody else's: any class may come
            raise failure(error, f"read the marker of {self.url}") from error

    def write_marker(self, body: bytes) -> None:
        """Write the marker. Raises StoreUnavailable or ValueUnavailable."""
        try:
            if not creates_whole(self.fs):  # a bucket that was misspelt is not to be made
                self.fs.makedirs(self.folder, exist_ok=True)
            self.fs.pipe_file(f"{self.folder}/marker.json", body)
        except Exception as error:  # as above
            raise failure(error, f"write into {self.url}") from error

    def is_used(self) -> bool:
        """Say whether there are blobs."""
        try:
            return bool(self.fs.ls(f"{self.folder}/blobs"))
        except FileNotFoundError:
            return False
        except Exception as error:  # as above
            raise failure(error, f"look into {self.url}") from error

    def leftovers(self) -> Iterator[Leftover]:
        """Yield what lies beside the blobs. Raises ValueUnavailable."""
        for area in AREAS:
            try:
                self.fs.invalidate_cache(f"{self.folder}/{area}")
                entries = self.fs.ls(f"{self.folder}/{area}", detail=True)
                found = [self._leftover(area, entry) for entry in entries]
            except FileNotFoundError:
                continue
            except Exception as error:  # as above
                raise failure(error, f"look into {self.url}") from error
            yield from found

    def _leftover(self, area: str, entry: dict[str, Any]) -> Leftover:
        path = str(entry["name"]).rstrip("/")
        is_file = entry["type"] == "file"
        # A prefix has no age: its youngest object's is what counts.
        files = [path] if is_file else self.fs.find(path)
        ages = [self.fs.modified(file).timestamp() for file in files]
        return Leftover(
            area=area,
            name=path.rpartition("/")[2],
            size_bytes=int(entry["size"] or 0) if is_file else 0,
            changed_at=max(ages, default=0.0),
        )

    def remove(self, name: str) -> None:
        """Remove everything under a prefix. Idempotent."""
        folder, _, last = f"{self.folder}/{name}".rpartition("/")
        try:
            if protocols_of(self.fs) & _LISTS_BY_PREFIX:
                # One request where nothing is, as of most runs; ``rm`` looks five times.
                found = self.fs.find(folder, prefix=f"{last}/")
                if found:
                    self.fs.rm(found)
            else:
                self.fs.rm(f"{folder}/{last}", recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:  # as above
            raise failure(error, f"remove {name} from {self.url}") from error


AREAS = ("incoming", "quarantine", "spool", "logs")
"""Folders beside the blobs: of files, and of a folder for each run."""

FILE_AREAS = ("incoming", "quarantine", "uploads")
"""Areas of what is one thing, whoever made it; uploads lie in no folder, a service has them."""

_LISTS_BY_PREFIX = frozenset({"s3", "s3a"})


def protocols_of(fs: Any) -> set[str]:
    """Return the protocols that an fsspec filesystem speaks."""
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def creates_whole(fs: Any) -> bool:
    """Say whether a filesystem is of objects, which appear when their upload is closed."""
    return bool(protocols_of(fs) & _CREATE_WHOLE)


Root = LocalRoot | RemoteRoot


def _leftover(area: str, entry: os.DirEntry[str]) -> Leftover | None:
    """Return what an entry of a folder is, or None if it went away meanwhile."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    is_folder = entry.is_dir(follow_symlinks=False)
    return Leftover(
        area=area,
        name=entry.name,
        size_bytes=0 if is_folder else found.st_size,
        # A blob keeps its own time when it is moved aside; when it was moved is its change.
        changed_at=max(found.st_mtime, found.st_ctime) if area == "quarantine" else found.st_mtime,
    )


def is_folder(url: str | os.PathLike[str]) -> bool:
    """Say whether a root is a folder, reached without fsspec."""
    text = os.fspath(url)
    return not _SCHEME.match(text) or text.startswith(("file://", "local://"))


def find_root(url: str | os.PathLike[str], store_id: str, *, fs: Any = None) -> Root:
    """Return the root of a store without looking whether it is there.

    Args:
        url: a path, or any URL that fsspec knows.
        store_id: id of the store, as its database says.
        fs: a filesystem to use instead of the one that the URL names.

    Raises:
        StoreError: the URL is malformed, or needs a library that is not installed.
    """
    text = os.fspath(url)
    if fs is None and is_folder(text):
        path = re.sub(r"^(file|local)://", "", text)
        if not path:
            raise StoreError("the blob root is empty: give a folder or a URL, like blobs='./data'")
        return LocalRoot(Path(path).expanduser().absolute(), store_id)
    if fs is not None:
        return RemoteRoot(text, fs, fs._strip_protocol(text), store_id)
    import fsspec

    try:
        # What was listed is never to be taken for what is there.
        options = {"use_listings_cache": False} if text.startswith(_S3) else {}
        found, path = fsspec.core.url_to_fs(text, **options)
    except ImportError as error:
        extra = _EXTRAS.get(urlsplit(text.rpartition("::")[2]).scheme)
        said = f"it needs its driver: pip install 'perdure[{extra}]'" if extra else str(error)
        raise StoreError(f"blob root {public_url(text)}: {said}") from error
    except ValueError as error:
        raise StoreError(f"blob root {public_url(text)}: {error}") from error
    except Exception as error:  # a driver may connect here, and raise anything
        raise failure(error, f"reach the blob root {public_url(text)}") from error
    return RemoteRoot(text, found, path, store_id)


def bind_root(root: Root) -> None:
    """Make a fresh root this store's; a root that is bound already is only checked.

    Raises:
        StoreError: it holds blobs and no marker, or another store's marker.
    """
    if root.read_marker() is None and not root.is_used():
        root.write_marker(_marker_of(root))
    elif root.read_marker() is None:  # asked again: who opens it at the same time may be faster
        raise StoreError(
            f"{root.url} holds blobs of store {root.store_id} and no marker: it was tampered with, "
            f"or copied in part. Restore {root.store_id}/marker.json, or give a fresh folder: "
            "blobs=..."
        )
    else:
        check_root(root)


def check_root(root: Root) -> None:
    """Check that the root is this store's.

    Raises:
        StoreError: its marker is missing, or another store's.
        ValueUnavailable: it does not answer.
    """
    body = root.read_marker()
    if body is None:
        raise StoreError(
            f"{root.url} is not the blob root of store {root.store_id}: its marker is missing. "
            "Mount its disk, or name the root that the store was made with: "
            "perdure.open(STORE, blobs=ROOT) or PERDURE_BLOBS=ROOT. If the values are there and "
            "the marker alone was lost, put it back: "
            f"{root.store_id}/marker.json holding {_marker_of(root).decode()}"
        )
    if _store_of(body) != root.store_id:
        raise StoreError(
            f"{root.url} has the marker of another store under {root.store_id}: name the root "
            "that the store was made with: perdure.open(STORE, blobs=ROOT) or PERDURE_BLOBS=ROOT"
        )


def confirm_root(root: Root) -> None:
    """Check that the root is there, before something in it is called missing or damaged.

    Raises:
        ValueUnavailable: it is not there as it should be; so nothing is known about its contents.
    """
    body = root.read_marker()
    if body is None or _store_of(body) != root.store_id:
        raise ValueUnavailable(
            f"the blob root {root.url} is not there (no marker of store {root.store_id}): "
            "is its disk mounted, is its bucket there?"
        )


def failure(error: BaseException, doing: str) -> PerdureError:
    """Return what to raise for an error of the storage below: never that a value is lost.

    Args:
        error: an OSError, or whatever a filesystem driver raised.
        doing: completes "cannot ...".
    """
    if is_full(error) or (isinstance(error, OSError) and error.errno in _FULL):
        said = getattr(error, "strerror", None) or "it is full"
        return StoreUnavailable(
            f"cannot {doing}: {said}. All that was committed is kept; make room and resume"
        )
    # The text of a driver's error may quote the URL with what is secret in it.
    said = masked((error.strerror if isinstance(error, OSError) else None) or str(error))
    remedy = remedy_of(error)
    return ValueUnavailable(
        f"cannot {doing}: {type(error).__name__}: {said}{remedy and f'; {remedy}'}"
    )


def folder_of(text: str) -> str:
    """Return a folder's name for a run id or step id: user text never becomes a path."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_store_id(store_id: str) -> str:
    """Return the id. Raises StoreError if it cannot be a folder's name."""
    if not _STORE_ID.fullmatch(store_id):
        raise StoreError(f"store id {store_id!r}: letters, digits, dot, dash and underscore only")
    return store_id


def public_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    shown = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, shown, parts.path, "***" if parts.query else "", ""))


def _marker_of(root: Root) -> bytes:
    return msgspec.json.encode(Marker(store=root.store_id))


def _store_of(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=Marker).store
    except msgspec.DecodeError:
        return None
