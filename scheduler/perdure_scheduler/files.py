"""What lies where: files of any fsspec file system, as a listing shows them."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from perdure_scheduler.file_pattern import FilePattern, Places

_MODIFIED = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")
"""Where file systems say when a file was written last; the first one that is there counts."""
_ETAG = ("ETag", "etag", "md5Hash", "contentHash")


class FoundFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file, as it was when somebody looked.

    Attributes:
        path: in its file system, without a protocol.
        modified: when it was written last, as its file system says.
        etag: what object stores call a version of the bytes.
    """

    path: str
    size: int
    modified: datetime | None = None
    etag: str | None = None

    @property
    def signature(self) -> str:
        """Return what is another one when the file is written again."""
        if self.etag is not None:
            return self.etag
        return f"{self.size}-{self.modified.timestamp():.6f}" if self.modified else f"{self.size}"


class FilePlace:
    """Where files are looked for. Nothing is imported or asked before the first question.

    Whatever asks the file system may take long, hang, or raise anything at all.

    Args:
        url: a pattern with or without a protocol: ``"in/*.csv"``, ``"s3://bucket/in/**/*.csv"``.
        ignore: patterns of names that are not meant.
    """

    def __init__(self, url: str, ignore: Collection[str]) -> None:
        self._url = url
        self._ignore = tuple(ignore)
        self.is_local = "::" not in url and url.partition("://")[0] in {url, "file", "local"}

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(self._url)
        return fs, path + "/" if self._url.endswith("/") else path

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @cached_property
    def pattern(self) -> FilePattern:
        """Return what is meant, in the file system's own paths."""
        return FilePattern(self._opened[1], self._ignore)

    def url_of(self, path: str) -> str:
        """Return a path with its protocol."""
        url: str = self._fs.unstrip_protocol(path)
        return url

    def path_of(self, url: str) -> str:
        """Return a URL without its protocol."""
        path: str = self._fs._strip_protocol(url)
        return path

    def is_link(self, path: str) -> bool:
        """Say whether a path is a link, be it that it leads nowhere for now."""
        return self.is_local and os.path.islink(path)

    def list_all(self) -> list[FoundFile]:
        """Return all files that are meant, in the order of their paths.

        A folder that is not there holds nothing.
        """
        self._fs.invalidate_cache()
        found = list(self._below(self.pattern.folder, self.pattern.begin, is_top=True))
        return sorted(found, key=lambda file: file.path)

    def look_at(self, paths: Collection[str]) -> list[FoundFile]:
        """Return what of these paths is meant; of a folder all that is meant in it."""
        self._fs.invalidate_cache()
        return [file for path in sorted(paths) for file in self._at(path)]

    def _at(self, path: str) -> Iterator[FoundFile]:
        reached = self.pattern.reached(path)
        entry = self._entry(path) if reached else None
        if entry is None:
            return
        if entry["type"] == "directory":
            yield from self._below(path, reached)
        elif self.pattern.is_met(reached):
            yield from _found(entry)

    def _below(self, folder: str, places: Places, *, is_top: bool = False) -> Iterator[FoundFile]:
        for entry in self._entries(folder, is_top=is_top):
            path = entry["name"].rstrip("/")
            reached = self.pattern.after(places, path.rpartition("/")[2])
            if not reached or path == folder:  # object stores list a folder in itself
                continue
            if entry["type"] == "directory":
                yield from self._below(path, reached)
            elif self.pattern.is_met(reached):
                yield from _found(self._entry(path) if entry.get("islink") else entry)

    def _entries(self, folder: str, *, is_top: bool) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self._fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError:
            if is_top:
                raise
            return []  # such as lost+found: it hides nothing from who cannot read it anyway
        return entries

    def _entry(self, path: str) -> dict[str, Any] | None:
        try:
            entry: dict[str, Any] = self._fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return None  # a link that leads back to itself leads to no file
        return entry


def _found(entry: dict[str, Any] | None) -> Iterator[FoundFile]:
    if entry is None or entry["type"] != "file":
        return
    etag = _first(entry, _ETAG)
    yield FoundFile(
        path=entry["name"],
        size=int(entry.get("size") or 0),
        modified=_instant(_first(entry, _MODIFIED)),
        etag=None if etag is None else str(etag).strip('"'),
    )


def _first(entry: dict[str, Any], keys: tuple[str, ...]) -> object:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)


def _instant(given: object) -> datetime | None:
    """Return a time as file systems give it: seconds, a ``datetime``, or text."""
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            return None
    if isinstance(given, int | float):
        return datetime.fromtimestamp(given, UTC)
    if isinstance(given, datetime):
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    return None
