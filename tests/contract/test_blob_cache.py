"""What this host keeps of a bucket: fetched once, verified, bounded, and never needed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import s3
from tests.contract.test_s3_blobs import S3Area
from tests.s3 import FaultyS3

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.cached_blobs import CachedBlobStore
from perdure_storage.checking import check_store
from perdure_storage.connect import open_run_store
from perdure_storage.contract_blobs import BlobArea, BlobStoreContract
from perdure_storage.contract_samples import a_step, a_value, by, claimed
from perdure_storage.errors import NotSerializable, ValueDamaged, ValueUnavailable
from perdure_storage.hashing import hex_of, integrity_digest
from perdure_storage.records import CacheTerms, Digest, Place
from perdure_storage.repairing import repair

_STORE = "store-1"
_DATA = bytes(range(256)) * 1000
_MOST = 4 << 20

Cached = Callable[..., BlobRoot]


class CachedArea(S3Area):
    """A bucket, seen from hosts that keep what they read: each that opens it is a host."""

    def __init__(self, bucket: str, folder: Path) -> None:
        super().__init__(bucket)
        self._folder = folder
        self._hosts = 0
        super().open()

    def open(self) -> BlobRoot:
        self._hosts += 1
        terms = CacheTerms(folder=str(self._folder / str(self._hosts)), limit_bytes=_MOST)
        return open_blobs(self.url, _STORE, cache=terms)


@pytest.mark.usefixtures("short_parts")
class TestCachedBlobs(BlobStoreContract):
    """The contract, but for what a host that has a good copy cannot see."""

    large = _DATA

    @pytest.fixture
    def area(self, s3_bucket: str, tmp_path: Path) -> BlobArea:
        return CachedArea(s3_bucket, tmp_path)

    @pytest.mark.parametrize("data", ["small", "large"], indirect=True)
    @pytest.mark.parametrize("damage", ["flip", "truncate"])
    def test_open_says_damaged_when_other_bytes_are_there(
        self, blobs: Any, area: Any, data: bytes, damage: str
    ) -> None:
        digest = blobs.put([data])
        area.overwrite(digest, data[:-1] + (b"?" if damage == "flip" else b""))

        with pytest.raises(ValueDamaged) as raised:
            area.open().open(digest, len(data))
        with pytest.raises(ValueDamaged):
            blobs.verify(digest, len(data))

        assert not raised.value.missing
        assert bytes(blobs.open(digest, len(data))) == data, "what is here is as it was"

    test_copy_out_says_damaged_when_other_bytes_are_there = None
    test_open_says_unavailable_when_the_root_is_not_there = None
    test_damaged_blob_is_not_called_damaged_when_the_root_is_not_there = None


@pytest.fixture
def cached(faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cached:
    """Return what opens the blobs as a process of this host."""
    bucket = s3.make_bucket(faulty_s3.url, monkeypatch)
    open_blobs(bucket, _STORE, bind=True)

    def open_(limit_bytes: int = _MOST, host: str = "host") -> BlobRoot:
        terms = CacheTerms(folder=str(tmp_path / host), limit_bytes=limit_bytes)
        return open_blobs(bucket, _STORE, cache=terms)

    return open_


def kept(host: Path) -> dict[str, Path]:
    return {path.name: path for path in host.glob("cache/blobs/*/blake3-*")}


def path_of(host: Path, digest: Digest) -> Path:
    return kept(host)[f"blake3-{hex_of(digest)}"]


def downloads(faulty_s3: FaultyS3) -> int:
    return sum(seen.startswith("GET") and "blake3-" in seen for seen in faulty_s3.seen)


def test_what_was_put_here_is_read_here_without_a_request(
    cached: Cached, faulty_s3: FaultyS3
) -> None:
    digest = cached().put([_DATA])
    faulty_s3.seen.clear()
    faulty_s3.inject(s3.cuts, path="blake3-")

    assert bytes(cached().open(digest, len(_DATA))) == _DATA
    assert downloads(faulty_s3) == 0


def test_what_another_host_put_is_fetched_once(cached: Cached, faulty_s3: FaultyS3) -> None:
    digest = cached(host="other").put([_DATA])

    for _ in range(3):
        assert bytes(cached().open(digest, len(_DATA))) == _DATA

    assert downloads(faulty_s3) == 1


def test_many_who_want_a_value_at_once_fetch_it_once(cached: Cached, faulty_s3: FaultyS3) -> None:
    digest = cached(host="other").put([_DATA])
    stores, found = [cached() for _ in range(6)], []

    def read(blobs: BlobRoot) -> None:
        found.append(bytes(blobs.open(digest, len(_DATA))))

    threads = [threading.Thread(target=read, args=(store,)) for store in stores]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [_DATA] * 6
    assert downloads(faulty_s3) == 1


def test_who_reads_may_change_what_was_read(cached: Cached) -> None:
    digest = cached(host="other").put([_DATA])

    mine = cached().open(digest, len(_DATA))
    mine[:3] = b"XYZ"

    assert bytes(cached().open(digest, len(_DATA))) == _DATA


@pytest.mark.parametrize("damage", [b"", _DATA[:100], bytes(len(_DATA)), _DATA + b"more"])
def test_a_copy_that_was_damaged_is_fetched_again(
    cached: Cached, faulty_s3: FaultyS3, tmp_path: Path, damage: bytes
) -> None:
    digest = cached().put([_DATA])
    path_of(tmp_path / "host", digest).write_bytes(damage)

    assert bytes(cached().open(digest, len(_DATA))) == _DATA
    assert downloads(faulty_s3) == 1
    assert path_of(tmp_path / "host", digest).read_bytes() == _DATA


def test_the_least_recently_used_go_and_the_bound_holds(cached: Cached, tmp_path: Path) -> None:
    host, limit = tmp_path / "host", 10 * 50_000
    blobs = cached(limit)
    data = [bytes([number]) * 50_000 for number in range(30)]
    first = blobs.put([data[0]])
    tick = 1_000_000_000

    for number, each in enumerate(data[1:]):
        blobs.put([each])
        blobs.open(first, 50_000)
        for used in (host / "cache" / "used").iterdir():  # the clock of files is too coarse here
            if used.stat().st_mtime > tick + 10_000:
                os.utime(used, (tick + number, tick + number + (used.name == hex_of(first))))
        assert sum(path.stat().st_size for path in kept(host).values()) <= limit

    assert path_of(host, first)
    assert f"blake3-{hex_of(integrity_digest([data[1]]))}" not in kept(host)
    assert f"blake3-{hex_of(integrity_digest([data[-1]]))}" in kept(host)
    assert len(list((host / "cache" / "used").iterdir())) == len(kept(host))


def test_a_value_larger_than_the_bound_is_read_and_not_kept(cached: Cached, tmp_path: Path) -> None:
    blobs = cached(1000)

    digest = blobs.put([_DATA])

    assert bytes(blobs.open(digest, len(_DATA))) == _DATA
    assert kept(tmp_path / "host") == {}


def test_a_mapped_value_outlives_its_copy(cached: Cached, tmp_path: Path) -> None:
    blobs = cached(300_000)
    digest = blobs.put([_DATA])
    mapped = blobs.open(digest, len(_DATA))

    blobs.put([bytes(200_000)])

    assert f"blake3-{hex_of(digest)}" not in kept(tmp_path / "host")
    assert bytes(mapped) == _DATA


@pytest.mark.parametrize("damage", [None, b"x" * len(_DATA), b"short"])
def test_repair_puts_what_was_lost_in_the_bucket_back_from_the_copy_here(
    s3_bucket: str, tmp_path: Path, damage: bytes | None
) -> None:
    area = CachedArea(s3_bucket, tmp_path / "hosts")
    blobs, elsewhere = area.open(), area.open()
    value = msgspec.structs.replace(
        a_value(place=Place.BLOB), integrity=blobs.put([_DATA]), size_bytes=len(_DATA)
    )
    with closing(open_run_store(tmp_path / "perdure.db", key=b"k" * 32)) as store:
        run = claimed(store)
        store.commit([by(run, a_step("run", "s", value=value))])
        if damage is None:
            area.remove(value.integrity)
        else:
            area.overwrite(value.integrity, damage)
        found = check_store(store, blobs, deep=True).problems

        mended = repair(store, blobs, found)

        assert [problem.digest for problem in mended] == [value.integrity]
        assert "puts it back if this host has a copy" in found[0].message
        assert check_store(store, elsewhere, deep=True).problems == ()
    assert bytes(elsewhere.open(value.integrity, len(_DATA))) == _DATA


def test_what_was_collected_is_forgotten_here(cached: Cached, tmp_path: Path) -> None:
    blobs = cached()
    digest = blobs.put([_DATA])

    assert blobs.collect(digest, 4e9)

    assert kept(tmp_path / "host") == {}
    with pytest.raises(ValueDamaged):
        blobs.open(digest, len(_DATA))


def test_a_value_that_is_not_here_is_unavailable_while_the_service_is_away(
    cached: Cached, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    digest = cached(host="other").put([_DATA])
    faulty_s3.inject(s3.cuts, path="blake3-")

    with pytest.raises(ValueUnavailable):
        cached().open(digest, len(_DATA))

    assert kept(tmp_path / "host") == {}
    assert list((tmp_path / "host" / "cache" / "blobs").glob("*.tmp")) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write all")
def test_a_folder_that_cannot_be_written_costs_the_copies_only(
    cached: Cached, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir(mode=0o500)
    blobs = cached()

    digest = blobs.put([_DATA])

    assert bytes(blobs.open(digest, len(_DATA))) == _DATA


def test_a_file_in_the_place_of_the_folder_costs_the_copies_only(
    cached: Cached, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "host").write_text("not a folder")
    blobs = cached()

    digest = blobs.put([_DATA])

    assert bytes(blobs.open(digest, len(_DATA))) == _DATA
    assert "values are not kept" in caplog.text


def test_nothing_is_kept_of_what_whoever_makes_it_gave_up(cached: Cached, tmp_path: Path) -> None:
    class Gives:
        def __iter__(self) -> Any:
            yield _DATA
            raise NotSerializable("the source has changed")

    with pytest.raises(NotSerializable):
        cached().put(Gives())  # type: ignore[arg-type]

    assert kept(tmp_path / "host") == {}


_READER = """
import os, sys
from perdure_storage.blobs import open_blobs
from perdure_storage.records import CacheTerms
url, folder, digest, size, dies = sys.argv[1:]
rename = os.rename
def killed(*names):
    if dies == "after":
        rename(*names)
    os.kill(os.getpid(), 9)
if dies != "never":
    os.rename = killed
blobs = open_blobs(url, "store-1", cache=CacheTerms(folder=folder, limit_bytes=1 << 22))
print(len(blobs.open(digest, int(size))))
"""


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_fetch_that_is_killed_about_its_rename_leaves_nothing_that_is_believed(
    s3_bucket: str, tmp_path: Path, dies: str
) -> None:
    digest = open_blobs(s3_bucket, _STORE, bind=True).put([_DATA])
    host = tmp_path / "host"
    words = [sys.executable, "-c", _READER, s3_bucket, str(host), digest, str(len(_DATA))]

    killed = subprocess.run([*words, dies], capture_output=True, check=False)
    said = subprocess.run([*words, "never"], capture_output=True, text=True, check=True).stdout

    assert killed.returncode == -9, killed.stderr
    assert said == f"{len(_DATA)}\n"
    assert path_of(host, digest).read_bytes() == _DATA


def test_what_is_in_memory_is_not_copied_to_a_disk(tmp_path: Path) -> None:
    terms = CacheTerms(folder=str(tmp_path / "host"), limit_bytes=_MOST)

    blobs = open_blobs("memory://cache-test", _STORE, bind=True, cache=terms)

    assert not isinstance(blobs, CachedBlobStore)
    assert not (tmp_path / "host").exists()


def test_gc_holds_the_bound_when_it_was_made_smaller(cached: Cached, tmp_path: Path) -> None:
    blobs = cached()
    for number in range(8):
        blobs.put([bytes([number]) * 50_000])

    cached(200_000).sweep_temporaries()

    assert sum(path.stat().st_size for path in kept(tmp_path / "host").values()) <= 200_000
