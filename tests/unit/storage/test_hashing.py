"""What is hashed beside other work has the same digest, or is an error."""

from __future__ import annotations

import threading

import pytest

from perdure_storage.hashing import Hasher, integrity_digest, pieces, sketch
from perdure_storage.hashing_beside import hashing
from perdure_storage.records import Buffer

_LARGE = bytes(range(256)) * 80_000


def test_hashing_beside_other_work_gives_the_digest_of_the_bytes() -> None:
    hasher = Hasher()

    for piece in pieces([b"head", _LARGE]):
        with hashing(hasher, piece):
            pass

    assert hasher.digest() == integrity_digest([b"head" + _LARGE])


def test_hashing_goes_on_in_its_own_thread_when_there_is_no_other_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", none)
    hasher = Hasher()

    with hashing(hasher, memoryview(_LARGE)):
        pass

    assert hasher.digest() == integrity_digest([_LARGE])


def test_hashing_that_fails_in_its_thread_is_an_error_where_the_digest_is_wanted() -> None:
    class Failing(Hasher):
        def update(self, data: Buffer) -> None:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"), hashing(Failing(), memoryview(_LARGE)):
        pass


def test_sketch_differs_when_the_bytes_or_their_number_do() -> None:
    other = bytearray(_LARGE)
    other[5] ^= 1

    sketches = {sketch([_LARGE]), sketch([other]), sketch([_LARGE[:-1]]), sketch([_LARGE, b"more"])}

    assert len(sketches) == 4
