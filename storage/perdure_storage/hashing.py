"""The integrity digest: BLAKE3 of encoded bytes, with the algorithm in its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from blake3 import blake3

from perdure_storage.records import Buffer, Digest

ALGORITHM = "blake3"
CHUNK_BYTES = 8 << 20
"""Bytes that are hashed or written at a time: enough for two threads, little beside a value."""

_THREADS_FROM_BYTES = 256 << 10
"""Fewer are hashed by one thread: to wake others takes more of the CPUs than they save."""
_SKETCHED_BYTES = 1 << 20
_SKETCHED_START_BYTES = 4096
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")


class Hasher:
    """An integrity digest in the making.

    Args:
        size_bytes: how many bytes will come, if that is known.
    """

    __slots__ = ("_state",)

    def __init__(self, size_bytes: int | None = None) -> None:
        is_small = size_bytes is not None and size_bytes < _THREADS_FROM_BYTES
        self._state = blake3(max_threads=1 if is_small else blake3.AUTO)

    def update(self, data: Buffer) -> None:
        """Add bytes. If many will come they are hashed on several threads, without the GIL."""
        self._state.update(data)

    def digest(self) -> Digest:
        """Return the integrity digest of what was added so far."""
        return Digest(f"blake3:{self._state.hexdigest()}")


def sketch(buffers: Iterable[Buffer]) -> str:
    """Return a name that equal bytes share, from a small part of them: the start of each MiB.

    Different bytes may share it, too: it says whether hashing them all is likely to pay.
    """
    state = blake3()
    for piece in pieces(buffers, _SKETCHED_BYTES):
        state.update(piece[:_SKETCHED_START_BYTES])
        state.update(len(piece).to_bytes(4, "little"))
    return state.hexdigest()


def integrity_digest(buffers: Iterable[Buffer]) -> Digest:
    """Return ``blake3:<hex>`` of the concatenation of ``buffers``, holding no copy of it."""
    hasher = Hasher(size_of(buffers))
    for piece in pieces(buffers):
        hasher.update(piece)
    return hasher.digest()


def digest_of(data: bytes) -> Digest:
    """Return ``blake3:<hex>`` of one byte string: the fast way for small ones."""
    if len(data) < _THREADS_FROM_BYTES:
        return Digest(f"blake3:{blake3(data).hexdigest()}")
    return integrity_digest((data,))


def combine(kind: str, *parts: bytes) -> bytes:
    """Return the raw digest of a composite of some kind from the raw digests of its parts."""
    return blake3(kind.encode() + b"\0" + b"".join(parts)).digest()


def is_digest(text: str) -> bool:
    """Say whether ``text`` is an integrity digest."""
    return _DIGEST.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """Return the hexadecimal part of an integrity digest.

    Raises:
        ValueError: ``digest`` is not one; so nothing else ever becomes part of a path.
    """
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is not an integrity digest (blake3:<64 hex digits>)")
    return digest[len(ALGORITHM) + 1 :]


def size_of(buffers: Iterable[Buffer]) -> int | None:
    """Return the length of buffers that exist; None of those that are made while they are read."""
    if not isinstance(buffers, list | tuple):
        return None
    size_bytes = 0
    for buffer in buffers:  # written out: it is asked for each value
        size_bytes += len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes
    return size_bytes


def flat(buffer: Buffer) -> memoryview:
    """Return a buffer's bytes as a one-dimensional view, copying nothing."""
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")


def pieces(buffers: Iterable[Buffer], size_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """Yield the buffers in order as flat views of at most ``size_bytes``, copying nothing."""
    for buffer in buffers:
        view = flat(buffer)
        for start in range(0, len(view), size_bytes):
            yield view[start : start + size_bytes]
