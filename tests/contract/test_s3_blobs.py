"""Blobs in S3, over HTTP: under their contract, and against a service that fails."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import fsspec
import pytest
from tests import s3
from tests.s3 import FaultyS3

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.clock import SystemClock
from perdure_storage.contract_blobs import BlobArea, BlobStoreContract
from perdure_storage.contract_retention import BlobUpkeepContract, RootArea
from perdure_storage.errors import StoreError, StoreUnavailable, ValueDamaged, ValueUnavailable
from perdure_storage.hashing import hex_of, integrity_digest
from perdure_storage.records import Digest
from perdure_storage.s3_objects import in_parts, part_bytes_of

_STORE = "store-1"
_LARGE = bytes(range(256)) * 80_000  # more than two parts


class S3Area:
    """A prefix in a bucket."""

    def __init__(self, bucket: str) -> None:
        self.url = f"{bucket}/prefix"
        self.fs: Any = fsspec.filesystem("s3", use_listings_cache=False)
        self.folder = f"{self.url.removeprefix('s3://')}/{_STORE}"

    def open(self) -> BlobRoot:
        return open_blobs(self.url, _STORE, bind=True)

    def path(self, digest: Digest) -> str:
        name = hex_of(digest)
        return f"{self.folder}/blobs/{name[:2]}/blake3-{name}"

    def overwrite(self, digest: Digest, data: bytes) -> None:
        self.fs.pipe_file(self.path(digest), data)

    def remove(self, digest: Digest) -> None:
        self.fs.rm_file(self.path(digest))

    def age(self, digest: Digest) -> float:
        return age(self.path(digest))

    def leave(self, area: str, name: str) -> None:
        self.fs.pipe_file(f"{self.folder}/{area}/{name}", b"left")

    def hide_marker(self) -> None:
        self.fs.mv(f"{self.folder}/marker.json", f"{self.folder}/hidden")

    def uploads(self) -> list[str]:
        found = self.fs.call_s3("list_multipart_uploads", Bucket=self.folder.split("/")[0])
        return [upload["Key"] for upload in found.get("Uploads", ())]


def age(path: str) -> float:
    """Make an object of the server two hours old; return a time after that."""
    from moto.s3.models import s3_backends

    bucket, _, key = path.partition("/")
    for account in s3_backends.values():
        if bucket in account["aws"].buckets:
            found = account["aws"].get_object(bucket, key)
            found.last_modified -= timedelta(hours=2)
    return SystemClock().now().timestamp() - 3600


@pytest.fixture
def area(s3_bucket: str) -> S3Area:
    return S3Area(s3_bucket)


@pytest.mark.usefixtures("short_parts")
class TestS3Blobs(BlobStoreContract, BlobUpkeepContract):
    large = bytes(range(256)) * 1000

    @pytest.fixture
    def area(self, s3_bucket: str) -> BlobArea:
        return S3Area(s3_bucket)

    @pytest.fixture
    def root_area(self, s3_bucket: str) -> RootArea:
        return S3Area(s3_bucket)


@pytest.fixture
def faulty_area(faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, short_parts: None) -> S3Area:
    return S3Area(s3.make_bucket(faulty_s3.url, monkeypatch))


_PARTED = bytes(range(256)) * 1000
_OUTAGES = {
    "refused": s3.cuts,
    "500": s3.refuses(500, "InternalError"),
    "503": s3.refuses(503, "SlowDown"),
    "403": s3.refuses(403, "AccessDenied"),
}


@pytest.mark.parametrize("outage", _OUTAGES)
@pytest.mark.parametrize("data", [b"small", _PARTED], ids=["small", "parted"])
def test_a_value_is_never_missing_while_the_service_does_not_answer(
    faulty_s3: FaultyS3, faulty_area: S3Area, data: bytes, outage: str
) -> None:
    blobs = faulty_area.open()
    digest = blobs.put([data])
    faulty_s3.inject(_OUTAGES[outage], path="blake3-")

    with pytest.raises(ValueUnavailable):
        blobs.open(digest, len(data))
    with pytest.raises(ValueUnavailable):
        blobs.contains(digest, len(data))
    with pytest.raises(ValueUnavailable):
        blobs.put([data])
    faulty_s3.heal()

    assert bytes(blobs.open(digest, len(data))) == data


def test_a_missing_value_is_not_called_so_while_the_marker_cannot_be_read(
    faulty_s3: FaultyS3, faulty_area: S3Area
) -> None:
    blobs = faulty_area.open()
    faulty_s3.inject(s3.refuses(503, "ServiceUnavailable"), path="marker.json")

    with pytest.raises(ValueUnavailable):
        blobs.open(integrity_digest([b"never stored"]), 12)


def test_a_bucket_that_is_gone_loses_no_value(faulty_s3: FaultyS3, faulty_area: S3Area) -> None:
    blobs = faulty_area.open()
    digest = blobs.put([b"data"])
    faulty_s3.inject(s3.refuses(404, "NoSuchBucket"))

    with pytest.raises(ValueUnavailable, match="is its bucket there"):
        blobs.open(digest, 4)


@pytest.mark.parametrize("fault", [s3.cuts, s3.truncates, s3.refuses(503, "SlowDown"), s3.flips])
@pytest.mark.parametrize("data", [b"small", _PARTED], ids=["small", "parted"])
def test_a_read_that_fails_once_is_made_again(
    faulty_s3: FaultyS3, faulty_area: S3Area, fault: Any, data: bytes
) -> None:
    blobs = faulty_area.open()
    digest = blobs.put([data])
    faulty_s3.inject(fault, method="GET", path="blake3-", times=1)

    assert bytes(blobs.open(digest, len(data))) == data


@pytest.mark.parametrize("fault", [s3.cuts, s3.cuts_after, s3.refuses(503, "SlowDown")])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_write_that_fails_once_is_made_again(
    faulty_s3: FaultyS3, faulty_area: S3Area, fault: Any, method: str
) -> None:
    blobs = faulty_area.open()
    faulty_s3.inject(fault, method=method, path="blake3-", times=1)

    digests = [blobs.put([b"small"]), blobs.put([_PARTED])]

    assert bytes(blobs.open(digests[0], 5)) == b"small"
    assert bytes(blobs.open(digests[1], len(_PARTED))) == _PARTED


def test_an_upload_that_fails_is_aborted_and_leaves_no_blob(
    faulty_s3: FaultyS3, faulty_area: S3Area
) -> None:
    blobs = faulty_area.open()
    faulty_s3.inject(s3.refuses(500, "InternalError"), method="PUT", path="partNumber=2")

    with pytest.raises(ValueUnavailable):
        blobs.put([_PARTED])

    assert list(blobs.list_digests()) == []
    assert faulty_area.uploads() == []


def test_an_upload_that_nobody_finished_is_swept_by_its_age(area: S3Area) -> None:
    blobs = area.open()
    bucket, _, folder = area.folder.partition("/")
    for key in (f"{folder}/blobs/ab/blake3-x", "another/blobs/ab/blake3-x"):
        area.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)

    (left,) = blobs.leftovers()
    assert left.area == "uploads"
    blobs.remove_leftover(left)
    blobs.remove_leftover(left)

    assert area.uploads() == ["another/blobs/ab/blake3-x"], "that one is somebody else's"


def test_a_sweep_aborts_uploads(area: S3Area) -> None:
    blobs = area.open()
    bucket, _, folder = area.folder.partition("/")
    area.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{folder}/blobs/ab/blake3-x")

    assert blobs.sweep_temporaries() == 1

    assert area.uploads() == []


# --- who may write ------------------------------------------------------------------------------
def test_a_small_put_is_one_request_and_a_second_one_replaces_nothing(
    faulty_s3: FaultyS3, faulty_area: S3Area
) -> None:
    blobs = faulty_area.open()
    faulty_s3.seen.clear()

    digest = blobs.put([b"data"])
    requests = [seen.split()[0] for seen in faulty_s3.seen]
    first = faulty_area.fs.info(faulty_area.path(digest))["LastModified"]
    blobs.put([b"data"])

    assert requests == ["PUT"]
    assert faulty_area.fs.info(faulty_area.path(digest))["LastModified"] == first


def test_a_small_read_is_one_request(faulty_s3: FaultyS3, faulty_area: S3Area) -> None:
    blobs = faulty_area.open()
    digest = blobs.put([b"data"])
    faulty_s3.seen.clear()

    blobs.open(digest, 4)

    assert [seen.split()[0] for seen in faulty_s3.seen] == ["GET"]


@pytest.mark.parametrize("data", [b"small", _PARTED], ids=["small", "parted"])
def test_an_object_that_was_cut_is_replaced_by_the_next_put(
    area: S3Area, data: bytes, short_parts: None
) -> None:
    blobs = area.open()
    digest = blobs.put([data])
    area.overwrite(digest, data[:3])

    blobs.put([data])

    assert bytes(blobs.open(digest, len(data))) == data


@pytest.mark.parametrize("data", [b"small", _PARTED], ids=["small", "parted"])
def test_a_server_that_knows_no_conditions_is_written_to_without(
    faulty_s3: FaultyS3, faulty_area: S3Area, data: bytes
) -> None:
    def knows_no_conditions(request: Any) -> bool:
        if "If-None-Match" not in request.headers:
            return False
        return s3.refuses(501, "NotImplemented", "A header you provided ...")(request)

    faulty_s3.inject(knows_no_conditions)
    blobs = faulty_area.open()

    digest = blobs.put([data])
    blobs.put([data])

    assert bytes(blobs.open(digest, len(data))) == data
    assert faulty_area.uploads() == []


def test_a_put_of_what_is_old_makes_it_young(area: S3Area) -> None:
    blobs = area.open()
    digest = blobs.put([b"data"])
    then = age(area.path(digest))

    blobs.put([b"data"])

    assert not blobs.collect(digest, then)
    assert bytes(blobs.open(digest, 4)) == b"data"


def test_two_who_upload_the_same_at_once_leave_one_blob(area: S3Area, short_parts: None) -> None:
    stores = [area.open() for _ in range(4)]
    threads = [threading.Thread(target=blobs.put, args=([_PARTED],)) for blobs in stores]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(stores[0].list_digests()) == [integrity_digest([_PARTED])]
    assert area.uploads() == []


def test_a_bucket_that_does_not_exist_is_told_and_not_made(s3_bucket: str) -> None:
    with pytest.raises(ValueUnavailable, match="make the bucket, or name another"):
        open_blobs(f"{s3_bucket}-misspelt/prefix", _STORE, bind=True)

    assert not fsspec.filesystem("s3").exists(f"{s3_bucket}-misspelt")


# --- what is said -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDenied", "s3:ListBucket"),
        ("InvalidAccessKeyId", "see to the credentials"),
        ("ExpiredToken", "see to the credentials"),
        ("RequestTimeTooSkewed", "clock of this machine"),
    ],
)
def test_a_refusal_says_what_to_do(
    faulty_s3: FaultyS3, faulty_area: S3Area, code: str, said: str
) -> None:
    blobs = faulty_area.open()
    digest = blobs.put([_PARTED])
    faulty_s3.inject(s3.refuses(403, code), path="blake3-")

    with pytest.raises(ValueUnavailable, match=said):
        blobs.open(digest, len(_PARTED))


def test_a_service_without_room_says_what_is_kept(faulty_s3: FaultyS3, faulty_area: S3Area) -> None:
    blobs = faulty_area.open()
    faulty_s3.inject(s3.refuses(507, "XMinioStorageFull"), path="blake3-")

    with pytest.raises(StoreUnavailable, match="committed is kept; make room and resume"):
        blobs.put([b"data"])


def test_what_a_service_quotes_of_a_signed_address_is_not_told(
    faulty_s3: FaultyS3, faulty_area: S3Area
) -> None:
    blobs = faulty_area.open()
    quoted = "GET /x?X-Amz-Credential=AKIA42&amp;X-Amz-Signature=5ec2e7 failed"
    faulty_s3.inject(s3.refuses(400, "BadRequest", quoted), path="blake3-")

    with pytest.raises(ValueUnavailable) as raised:
        blobs.put([b"data"])

    assert "AKIA42" not in str(raised.value)
    assert "5ec2e7" not in str(raised.value)


# --- parts --------------------------------------------------------------------------------------
def test_parts_are_of_equal_length_whatever_the_buffers_are() -> None:
    found = list(in_parts([b"abc", b"", bytearray(b"defgh"), memoryview(b"ij")], 4))

    assert found == [b"abcd", b"efgh", b"ij"]


def test_a_huge_value_has_no_more_parts_than_there_may_be() -> None:
    huge = 5 << 40

    assert -(-huge // part_bytes_of(huge, 8 << 20)) <= 10_000
    assert part_bytes_of(1, 8 << 20) == 8 << 20


def test_a_value_of_several_parts_of_full_length_comes_back(area: S3Area) -> None:
    blobs = area.open()

    digest = blobs.put([_LARGE])

    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


@pytest.mark.parametrize("length", [100_000, 200_000, 99_999, 100_001])
def test_a_value_of_whole_parts_comes_back_and_is_damaged_if_it_grew(
    area: S3Area, length: int, short_parts: None
) -> None:
    blobs, data = area.open(), bytes(range(250)) * 1000
    digest = blobs.put([data[:length]])

    assert bytes(blobs.open(digest, length)) == data[:length]
    area.overwrite(digest, data[: length + 1])
    with pytest.raises(ValueDamaged):
        blobs.open(digest, length)


def test_marker_is_missing_where_nobody_bound_the_store(s3_bucket: str) -> None:
    with pytest.raises(StoreError, match="marker is missing"):
        open_blobs(f"{s3_bucket}/prefix", _STORE)


def test_a_listing_of_many_blobs_holds_one_page_of_names(
    faulty_s3: FaultyS3, faulty_area: S3Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure_storage.s3_objects.PAGE", 2)
    blobs = faulty_area.open()
    stored = {blobs.put([b"%d" % n]) for n in range(5)}
    faulty_s3.seen.clear()

    listing = blobs.survey()
    found = [next(listing)]
    asked_first = len(faulty_s3.seen)
    found += listing

    assert {blob.digest for blob in found} == stored
    assert {blob.size_bytes for blob in found} == {1}
    assert (asked_first, len(faulty_s3.seen)) == (1, 3)
