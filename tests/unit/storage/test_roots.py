"""URLs as they are shown, and names that become paths."""

from __future__ import annotations

import pytest

from perdure_storage.hashing import flat, hex_of, integrity_digest, pieces
from perdure_storage.roots import folder_of, public_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
        ("https://host/x?token=abc#frag", "https://host/x?***"),
        ("gs://bucket/prefix", "gs://bucket/prefix"),
        ("/a/b@c", "/a/b@c"),
        ("./data", "./data"),
    ],
)
def test_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_names_of_runs_become_folders_of_their_own() -> None:
    names = ["a", "A", "a/b", "..", "", "\ud800", "x" * 10_000]

    assert len({folder_of(name) for name in names}) == len(names)
    assert all(folder_of(name).isalnum() for name in names)


def test_integrity_digest_is_of_the_concatenation() -> None:
    whole = bytes(range(256)) * 100_000

    assert integrity_digest([whole]) == integrity_digest([whole[:7], b"", bytearray(whole[7:])])
    assert integrity_digest([b"abc"]) == (
        "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    )


def test_pieces_are_views_of_bounded_length() -> None:
    data = memoryview(bytearray(100)).cast("B", (10, 10))

    found = list(pieces([data, b"", b"abc"], size_bytes=30))

    assert [len(piece) for piece in found] == [30, 30, 30, 10, 3]
    assert flat(data).obj is data.obj


@pytest.mark.parametrize("name", ["blake3:" + "0" * 63, "0" * 64, "blake3:" + "A" * 64, "md5:0"])
def test_only_integrity_digests_have_a_hexadecimal_part(name: str) -> None:
    with pytest.raises(ValueError, match="not an integrity digest"):
        hex_of(name)
