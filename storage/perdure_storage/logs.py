"""What attempts printed, in append-only segments beside the blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from perdure_storage.durable_files import write_all
from perdure_storage.faults import crash_point
from perdure_storage.protocols import LogStore
from perdure_storage.records import RunId, StepId
from perdure_storage.roots import LocalRoot, RemoteRoot, check_root, failure, find_root, folder_of

_SEGMENT_BYTES = 8 << 20


def open_logs(url: str | os.PathLike[str], store_id: str, *, fs: Any = None) -> LogStore:
    """Open the logs of a store, under the root of its blobs.

    Args:
        url: a path, or any URL that fsspec knows: the blob root.
        store_id: id of the store.
        fs: an fsspec filesystem to use instead of the one that the URL names.

    Raises:
        StoreError: the root is not this store's, or the URL cannot be used.
        ValueUnavailable: it does not answer.
    """
    root = find_root(url, store_id, fs=fs)
    check_root(root)
    return LocalLogStore(root) if isinstance(root, LocalRoot) else FsspecLogStore(root)


def _folder(run_id: str, step_id: str, generation: int, attempt: int) -> str:
    return f"logs/{folder_of(run_id)}/{folder_of(step_id)}.{generation}.{attempt}"


class LocalLogStore:
    """LogStore in files: ``<root>/<store-id>/logs/<run>/<step>.<generation>.<attempt>/<n>.log``."""

    def __init__(self, root: LocalRoot) -> None:
        self._root = root
        self._segments: dict[str, int] = {}

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        """Add bytes to the attempt's last segment, or to a new one if that is long."""
        if not data:
            return
        name = _folder(run_id, step_id, generation, attempt)
        number = self._segments.get(name, 0)
        path = self._root.folder / name / f"{number:06d}.log"
        try:
            size_bytes = _append(path, data)
        except OSError as error:
            raise failure(error, f"write a log in {self._root.url}") from error
        self._segments[name] = number + (size_bytes >= _SEGMENT_BYTES)
        crash_point("log.after-append")

    def read(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        """Return what was printed so far, from byte ``offset`` on; empty if nothing was."""
        folder = self._root.folder / _folder(run_id, step_id, generation, attempt)
        try:
            segments = [(path, path.stat().st_size) for path in sorted(folder.glob("*.log"))]
            return b"".join(_read_from(path, start) for path, start in _cut(segments, offset))
        except OSError as error:
            raise failure(error, f"read a log in {self._root.url}") from error

    def pieces(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int
    ) -> Iterator[bytes]:
        """Yield what was printed so far, a segment at a time."""
        folder = self._root.folder / _folder(run_id, step_id, generation, attempt)
        try:
            for path in sorted(folder.glob("*.log")):
                yield path.read_bytes()
        except OSError as error:
            raise failure(error, f"read a log in {self._root.url}") from error

    def delete(self, run_id: RunId) -> None:
        """Remove all of a run's segments. Idempotent."""
        self._root.remove(f"logs/{folder_of(run_id)}")
        self._segments.clear()


def _append(path: Path, data: bytes) -> int:
    """Append to a file, making its folder if it is not there; return how long the file is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        fd = os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o666)
    try:
        write_all(fd, memoryview(data))
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _read_from(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read()


_Segment = TypeVar("_Segment")


def _cut(segments: Sequence[tuple[_Segment, int]], offset: int) -> Iterator[tuple[_Segment, int]]:
    """Yield the segments in which there is something from ``offset`` on, and where it begins.

    The last one always is: it may have grown since its size was taken.
    """
    start = max(0, offset + sum(size for _, size in segments)) if offset < 0 else offset
    for number, (segment, size) in enumerate(segments, 1):
        if start < size or number == len(segments):
            yield segment, start
        start = max(0, start - size)


class FsspecLogStore:
    """LogStore on any fsspec filesystem: each append is an object."""

    def __init__(self, root: RemoteRoot) -> None:
        self._root = root
        self._fs: Any = root.fs
        self._segments: dict[str, int] = {}

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        """Add a segment."""
        if not data:
            return
        folder = f"{self._root.folder}/{_folder(run_id, step_id, generation, attempt)}"
        try:
            number = self._segments.get(folder)
            if number is None:
                self._fs.makedirs(folder, exist_ok=True)
                number = len(self._list(folder))
            self._fs.pipe_file(f"{folder}/{number:06d}.log", data)
        except Exception as error:  # a driver of somebody else's: any class may come
            raise failure(error, f"write a log in {self._root.url}") from error
        self._segments[folder] = number + 1
        crash_point("log.after-append")

    def read(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        """Return what was printed so far, from byte ``offset`` on; empty if nothing was."""
        folder = f"{self._root.folder}/{_folder(run_id, step_id, generation, attempt)}"
        try:
            segments = self._list(folder)
            cut = _cut(segments, offset)
            return b"".join(self._fs.cat_file(path)[start:] for path, start in cut)
        except Exception as error:  # as above
            raise failure(error, f"read a log in {self._root.url}") from error

    def pieces(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int
    ) -> Iterator[bytes]:
        """Yield what was printed so far, a segment at a time."""
        folder = f"{self._root.folder}/{_folder(run_id, step_id, generation, attempt)}"
        try:
            for path, _ in self._list(folder):
                yield self._fs.cat_file(path)
        except Exception as error:  # as above
            raise failure(error, f"read a log in {self._root.url}") from error

    def _list(self, folder: str) -> list[tuple[str, int]]:
        """Return the segments in order, each with its size."""
        self._fs.invalidate_cache(folder)
        try:
            entries = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        found = ((entry["name"], int(entry["size"])) for entry in entries)
        return sorted((name, size) for name, size in found if name.endswith(".log"))

    def delete(self, run_id: RunId) -> None:
        """Remove all of a run's segments. Idempotent."""
        self._root.remove(f"logs/{folder_of(run_id)}")
        self._segments.clear()
