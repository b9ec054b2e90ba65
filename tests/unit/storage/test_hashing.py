"""What is hashed beside other work has the same digest, or is an error."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(
    "hashes",
    [
        "integrity_digest([b'head', bytes(200_000)])",
        "digest_of(bytes(200_000))",
        "Hasher(200_000).update(bytes(200_000))",
    ],
)
def test_hashing_of_few_bytes_wakes_no_other_threads(hashes: str) -> None:
    program = (
        "import os; from perdure_storage.hashing import Hasher, digest_of, integrity_digest; "
        f"{hashes}; print(len(os.listdir('/proc/self/task')))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert ended.stdout.split() == [b"1"]
