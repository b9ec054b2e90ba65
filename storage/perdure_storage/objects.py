"""Objects on an fsspec filesystem: created whole, read in parts, made young, moved.

An object is either there with all its bytes or not there at all. What a store of blobs needs of
its storage is these few operations; every filesystem has them, some have them better.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from perdure_storage.durable_files import temporary_name
from perdure_storage.errors import ValueUnavailable
from perdure_storage.hashing import pieces
from perdure_storage.records import Buffer, Leftover
from perdure_storage.roots import RemoteRoot, creates_whole

IN_FLIGHT = 8
"""Requests of one object at a time. Each holds ``part_bytes``, and its driver as much again."""

UPLOADS = "uploads"
"""The area of leftovers that are uploads."""

Point = Callable[[str], None]
"""Is told where a crash would hurt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object that is there.

    Attributes:
        size_bytes: how long it is.
        changed_at: when it was written, in seconds since 1970; infinite where nobody knows.
    """

    size_bytes: int
    changed_at: float


class Objects(Protocol):
    """Raises whatever its driver raises; FileNotFoundError means that nothing is there.

    Attributes:
        part_bytes: what is read or written by one request of several.
    """

    part_bytes: int

    @property
    def refuses_what_is_there(self) -> bool:
        """Say whether ``create`` raises FileExistsError rather than replace an object."""
        ...

    def look(self, path: str) -> Found | None:
        """Return what is there now, asking the storage itself."""
        ...

    def create(
        self,
        path: str,
        buffers: Sequence[Buffer],
        size_bytes: int,
        point: Point,
        *,
        replace: bool = False,
    ) -> None:
        """Write an object whole or not at all, holding few of its parts at a time.

        Raises FileExistsError if one is there, ``refuses_what_is_there`` and not ``replace``.
        """
        ...

    def read(self, path: str, size_bytes: int) -> Iterator[bytes]:
        """Yield an object's bytes in order: all if it has ``size_bytes``, fewer if it is shorter,
        and at least one more if it is longer.
        """
        ...

    def listed(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the path of every object under a folder, and what a listing says of it."""
        ...

    def age_of(self, path: str, info: dict[str, Any]) -> float:
        """Return when an object was written, from its entry in a listing if that says so."""
        ...

    def renew(self, path: str) -> None:
        """Make an object young by copying it over there."""
        ...

    def move(self, path: str, to: str) -> None:
        """Give an object another name."""
        ...

    def uploads(self) -> Iterator[Leftover]:
        """Yield uploads that were begun under this root and are no objects yet, in no order."""
        ...

    def abort(self, upload: str) -> None:
        """Forget an upload of that name with all that was sent of it. Idempotent."""
        ...


class FsspecObjects:
    """Objects by what every fsspec filesystem can do."""

    part_bytes = 8 << 20
    refuses_what_is_there = False

    def __init__(self, root: RemoteRoot) -> None:
        self._root = root
        self._fs: Any = root.fs
        self._incoming = f"{root.folder}/incoming"
        self._creates_whole = creates_whole(root.fs)

    def look(self, path: str) -> Found | None:
        """Return what is there now."""
        self._fs.invalidate_cache(path.rpartition("/")[0])
        try:
            info = self._fs.info(path)
            return Found(size_bytes=info["size"], changed_at=self.age_of(path, info))
        except FileNotFoundError:
            return None

    def listed(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every object under a folder, one folder in it after the other: drivers give all of
        a listing at once, and keep it.
        """
        self._fs.invalidate_cache()
        for info in self._fs.ls(folder, detail=True):
            if info["type"] == "directory":
                yield from self._fs.find(info["name"], detail=True).items()
                self._fs.invalidate_cache(info["name"])
            else:
                yield info["name"], info

    def age_of(self, path: str, info: dict[str, Any]) -> float:
        """Return when an object was written, from what a listing says if it does."""
        for name in ("LastModified", "last_modified", "mtime"):
            if isinstance(at := info.get(name), datetime):
                return at.timestamp()
        try:
            return float(self._fs.modified(path).timestamp())
        except NotImplementedError:
            return math.inf

    # --- writing ----------------------------------------------------------------------------
    def create(
        self,
        path: str,
        buffers: Sequence[Buffer],
        size_bytes: int,
        point: Point,
        *,
        replace: bool = False,
    ) -> None:
        """Write an object under a temporary name first, unless closing it makes it appear."""
        temporary = path if self._creates_whole else f"{self._incoming}/{temporary_name()}"
        try:
            self._make_folder_of(temporary)
            self._write(temporary, buffers, point)
            found = self.look(temporary)
            if found is None or found.size_bytes != size_bytes:
                self._fs.rm_file(temporary)
                raise ValueUnavailable(f"{self._root.url} took fewer bytes than it was given")
            if temporary != path:
                self._make_folder_of(path)
                self._fs.mv(temporary, path)
        except BaseException:
            if temporary != path:
                with contextlib.suppress(Exception):  # what is left is swept later
                    self._fs.rm_file(temporary)
            raise

    def _make_folder_of(self, path: str) -> None:
        # Names of objects have no folders, and a driver may make the bucket that was misspelt.
        if not self._creates_whole:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _write(self, path: str, buffers: Sequence[Buffer], point: Point) -> None:
        # Closing an upload that failed would complete it: an object store is told what to do.
        file = self._fs.open(path, "wb", **({"autocommit": False} if self._creates_whole else {}))
        try:
            point("blob.opened")
            for at, piece in enumerate(pieces(buffers)):
                file.write(piece)
                point("blob.mid-write" if at else "blob.first-byte")
            point("blob.before-close")
            file.close()
            if self._creates_whole:
                file.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                file.discard() if self._creates_whole else file.close()
            raise
        point("blob.after-rename")

    # --- reading ----------------------------------------------------------------------------
    def read(self, path: str, size_bytes: int) -> Iterator[bytes]:
        """Yield an object's bytes, several parts at a time where the driver can."""
        # One byte more than there should be: whoever gets it knows that the object is longer.
        parts = [
            (start, min(start + self.part_bytes, size_bytes + 1))
            for start in range(0, size_bytes + 1, self.part_bytes)
        ]
        if getattr(self._fs, "async_impl", False):
            yield from self._read_beside(path, parts)
            return
        for start, end in parts:
            yield self._fs.cat_file(path, start=start, end=end)

    def _read_beside(self, path: str, parts: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        waiting = iter(parts)
        asked: deque[Any] = deque()
        try:
            while True:
                while len(asked) < IN_FLIGHT and (part := next(waiting, None)) is not None:
                    asked.append(self._ask(self._part(path, *part)))
                if not asked:
                    return
                yield asked.popleft().result()
        finally:
            for request in asked:
                request.cancel()

    async def _part(self, path: str, start: int, end: int) -> bytes:
        data: bytes = await self._fs._cat_file(path, start=start, end=end)
        return data

    def _ask(self, call: Any) -> Any:
        """Have the driver's own thread do something; return its future."""
        import asyncio  # here: most stores are folders

        return asyncio.run_coroutine_threadsafe(call, self._fs.loop)

    # --- upkeep -----------------------------------------------------------------------------
    def renew(self, path: str) -> None:
        """Copy an object there and back: it cannot be copied onto itself everywhere."""
        copy = f"{self._incoming}/{temporary_name()}"
        self._make_folder_of(copy)
        self._fs.cp_file(path, copy)
        self._fs.mv(copy, path)

    def move(self, path: str, to: str) -> None:
        """Give an object another name."""
        self._make_folder_of(to)
        self._fs.mv(path, to)

    def uploads(self) -> Iterator[Leftover]:
        """Yield nothing: uploads that were not finished are temporary files."""
        yield from ()

    def abort(self, upload: str) -> None:
        """Do nothing."""
