"""A blob store that only pretends: what is put stays in the process."""

from __future__ import annotations

import pytest

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.errors import ValueDamaged
from perdure_storage.scratch import ScratchBlobs


@pytest.fixture
def below() -> BlobRoot:
    return open_blobs("memory://scratch", "s", bind=True)


def test_what_is_put_is_read_here_and_is_not_below(below: BlobRoot) -> None:
    scratch = ScratchBlobs(below)

    digest = scratch.put([b"abc", b"def"])

    assert bytes(scratch.open(digest, 6)) == b"abcdef"
    assert scratch.contains(digest, 6)
    assert list(scratch.list_digests()) == [digest]
    assert not below.contains(digest, 6)


def test_what_is_below_is_read_and_stays(below: BlobRoot) -> None:
    digest = below.put([b"kept"])
    scratch = ScratchBlobs(below)

    scratch.delete(digest)
    scratch.quarantine(digest)

    assert bytes(scratch.open(digest, 4)) == b"kept"
    assert list(scratch.list_digests()) == []


def test_who_writes_into_a_value_changes_nobody_elses(below: BlobRoot) -> None:
    scratch = ScratchBlobs(below)
    digest = scratch.put([b"abc"])

    scratch.open(digest, 3)[0] = 0
    assert bytes(scratch.open(digest, 3)) == b"abc"
    scratch.delete(digest)

    with pytest.raises(ValueDamaged):
        scratch.open(digest, 3)
