"""Blob stores under their contract, and what each of them promises beyond it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem

from perdure_storage.blobs import BlobRoot, LocalBlobStore, open_blobs
from perdure_storage.clock import ManualClock, SystemClock
from perdure_storage.contract_blobs import BlobArea, BlobStoreContract
from perdure_storage.contract_retention import BlobUpkeepContract, RootArea
from perdure_storage.durable_files import DiskSync
from perdure_storage.errors import (
    StoreError,
    StoreUnavailable,
    ValueDamaged,
    ValueUnavailable,
)
from perdure_storage.hashing import hex_of, integrity_digest, sketch
from perdure_storage.records import Digest
from perdure_storage.roots import LocalRoot
from perdure_storage.wrappers import Fault, FaultyFS

_STORE = "store-1"


class CountingSync(DiskSync):
    """Counts what it pushes down."""

    def __init__(self) -> None:
        self.files = self.folders = 0

    def file(self, fd: int) -> None:
        self.files += 1
        super().file(fd)

    def folder(self, path: Path) -> None:
        self.folders += 1
        super().folder(path)


_LARGE = bytes(range(256)) * 80_000


class LocalArea:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / _STORE

    def open(self) -> BlobRoot:
        return open_blobs(self.root, _STORE, bind=True)

    def path(self, digest: Digest) -> Path:
        name = hex_of(digest)
        return self.folder / "blobs" / name[:2] / f"blake3-{name}"

    def overwrite(self, digest: Digest, data: bytes) -> None:
        self.path(digest).write_bytes(data)

    def remove(self, digest: Digest) -> None:
        self.path(digest).unlink()

    def age(self, digest: Digest) -> float:
        now = self.path(digest).stat().st_mtime
        os.utime(self.path(digest), (now - 7200, now - 7200))
        return now - 3600

    def leave(self, area: str, name: str) -> None:
        (self.folder / area).mkdir(exist_ok=True)
        (self.folder / area / name).write_bytes(b"left")

    def hide_marker(self) -> None:
        (self.folder / "marker.json").rename(self.folder / "hidden")


class RemoteArea:
    """A prefix on fsspec's filesystem in memory."""

    def __init__(self) -> None:
        self.url = f"memory://bucket-{secrets.token_hex(4)}/prefix"
        self.fs: Any = fsspec.filesystem("memory")
        self.folder = f"{self.fs._strip_protocol(self.url)}/{_STORE}"

    def open(self, fs: Any = None) -> BlobRoot:
        return open_blobs(self.url, _STORE, bind=True, fs=fs)

    def path(self, digest: Digest) -> str:
        name = hex_of(digest)
        return f"{self.folder}/blobs/{name[:2]}/blake3-{name}"

    def overwrite(self, digest: Digest, data: bytes) -> None:
        self.fs.pipe_file(self.path(digest), data)

    def remove(self, digest: Digest) -> None:
        self.fs.rm_file(self.path(digest))

    def age(self, digest: Digest) -> float:
        file = self.fs.store[self.path(digest)]
        file.modified -= timedelta(hours=2)
        return float((file.modified + timedelta(hours=1)).timestamp())

    def leave(self, area: str, name: str) -> None:
        self.fs.pipe_file(f"{self.folder}/{area}/{name}", b"left")

    def hide_marker(self) -> None:
        self.fs.mv(f"{self.folder}/marker.json", f"{self.folder}/hidden")


class TestLocalBlobs(BlobStoreContract, BlobUpkeepContract):
    @pytest.fixture
    def area(self, tmp_path: Path) -> BlobArea:
        return LocalArea(tmp_path / "data")

    @pytest.fixture
    def root_area(self, tmp_path: Path) -> RootArea:
        return LocalArea(tmp_path / "data")


class TestSpool(BlobStoreContract):
    @pytest.fixture
    def area(self, tmp_path: Path) -> BlobArea:
        return SpoolArea(tmp_path / "data")


class SpoolArea(LocalArea):
    """The unsynced spool of one run."""

    def open(self) -> Any:
        return super().open().spool("run/1")

    def path(self, digest: Digest) -> Path:
        return next(self.folder.glob(f"spool/*/*/blake3-{hex_of(digest)}"))


class TestRemoteBlobs(BlobStoreContract, BlobUpkeepContract):
    @pytest.fixture
    def area(self) -> BlobArea:
        return RemoteArea()

    @pytest.fixture
    def root_area(self) -> RootArea:
        return RemoteArea()


# --- in a folder --------------------------------------------------------------------------------
@pytest.fixture
def local(tmp_path: Path) -> LocalArea:
    return LocalArea(tmp_path / "data")


def test_local_put_leaves_no_temporary_file(local: LocalArea) -> None:
    blobs = local.open()

    blobs.put([b"small"])
    blobs.put([_LARGE])
    blobs.put([_LARGE])

    assert list((local.folder / "incoming").iterdir()) == []


def test_local_put_takes_over_a_truncated_file_of_its_name(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    local.overwrite(digest, _LARGE[:100])

    local.open().put([_LARGE])

    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


def test_local_put_writes_large_bytes_once_also_in_another_process(local: LocalArea) -> None:
    digest = local.open().put([_LARGE])
    incoming = local.folder / "incoming"
    incoming.rmdir()
    incoming.touch()  # whoever writes a blob fails now

    assert local.open().put([_LARGE]) == digest


def test_local_put_tells_large_bytes_apart_that_are_like_earlier_ones(local: LocalArea) -> None:
    blobs = local.open()
    other = bytearray(_LARGE)
    other[-1] ^= 1
    assert sketch([other]) == sketch([_LARGE])

    digests = [blobs.put([_LARGE]), blobs.put([other])]

    assert digests == [integrity_digest([_LARGE]), integrity_digest([other])]
    assert bytes(blobs.open(digests[1], len(other))) == other


def test_local_open_does_not_read_a_large_blob_again_in_another_process(
    local: LocalArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = local.open().put([_LARGE])

    other = local.open()
    monkeypatch.setattr("perdure_storage.local_blobs._hash_file", _never)

    assert len(other.open(digest, len(_LARGE))) == len(_LARGE)


def test_local_open_reads_again_when_the_file_has_changed(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    blobs.open(digest, len(_LARGE))
    data = bytearray(_LARGE)
    data[5] ^= 1

    local.overwrite(digest, bytes(data))

    with pytest.raises(ValueDamaged):
        blobs.open(digest, len(_LARGE))


def test_local_open_reads_again_when_the_file_was_replaced_by_one_of_the_same_size(
    local: LocalArea,
) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    path = local.path(digest)
    other = path.with_name("other")
    other.write_bytes(bytes(len(_LARGE)))
    os.replace(other, path)

    with pytest.raises(ValueDamaged):
        blobs.open(digest, len(_LARGE))


def test_record_of_verified_blobs_is_not_believed_when_others_may_write_it(
    local: LocalArea, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    digest = local.open().put([_LARGE])
    (folder,) = temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    monkeypatch.setattr("perdure_storage.local_blobs._hash_file", _never)

    with pytest.raises(AssertionError, match="hashed"):
        local.open().open(digest, len(_LARGE))


def test_sweep_forgets_old_records_of_verified_blobs(
    local: LocalArea, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    blobs = local.open()
    digest = blobs.put([_LARGE])

    blobs.sweep_temporaries()
    assert len(list(temporary.glob("*/*"))) == 2, "the blob's, and the mark of its bytes"
    blobs.sweep_temporaries(older_than_s=-60)

    assert list(temporary.iterdir()) == []
    assert bytes(local.open().open(digest, len(_LARGE))) == _LARGE


def test_local_maps_are_isolated_from_each_other(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])

    one, two = (blobs.open(digest, len(_LARGE)) for _ in range(2))
    np.frombuffer(one, np.uint8)[:] = 7

    assert bytes(two) == _LARGE
    assert local.path(digest).read_bytes() == _LARGE


def test_local_map_outlives_the_blob(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    mapped = blobs.open(digest, len(_LARGE))

    blobs.delete(digest)

    assert bytes(mapped) == _LARGE


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_local_open_says_unavailable_when_it_may_not_read(local: LocalArea) -> None:
    digest = local.open().put([b"data"])
    local.path(digest).chmod(0)

    with pytest.raises(ValueUnavailable, match="Permission denied"):
        local.open().open(digest, 4)


def test_local_open_says_unavailable_when_a_folder_is_in_the_file_s_place(
    local: LocalArea,
) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    path = local.path(digest)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")

    with pytest.raises(ValueUnavailable, match="Not a directory"):
        blobs.open(digest, len(_LARGE))


def test_local_put_makes_folders_again_when_only_they_are_gone(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([_LARGE])
    local.path(digest).unlink()
    local.path(digest).parent.rmdir()
    (local.folder / "incoming").rmdir()

    assert blobs.put([_LARGE]) == digest
    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


def test_local_put_says_unavailable_when_the_root_was_deleted(local: LocalArea) -> None:
    blobs = local.open()
    blobs.put([_LARGE])
    local.folder.rename(local.root / "elsewhere")

    with pytest.raises(ValueUnavailable, match="is its disk mounted"):
        blobs.put([_LARGE + b"other"])

    assert not local.folder.exists()


def test_local_quarantine_keeps_the_damaged_bytes(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([b"data"])
    local.overwrite(digest, b"dat?")

    blobs.quarantine(digest)

    (aside,) = (local.folder / "quarantine").iterdir()
    assert aside.read_bytes() == b"dat?"


def test_a_put_of_what_is_old_makes_it_young_and_of_what_is_young_leaves_it_alone(
    local: LocalArea,
) -> None:
    blobs = local.open()
    digest = blobs.put([b"data"])
    first = local.path(digest).stat()

    blobs.put([b"data"])
    assert local.path(digest).stat().st_ctime_ns == first.st_ctime_ns  # verified as it was
    then = local.age(digest)
    blobs.put([b"data"])

    assert local.path(digest).stat().st_mtime > then


def test_sweep_removes_old_temporary_files_only(local: LocalArea) -> None:
    blobs = local.open()
    digest = blobs.put([b"data"])
    left = local.folder / "incoming" / ".1-0123456789abcdef.tmp"
    left.write_bytes(b"half a blob")
    clock = ManualClock(SystemClock().now())

    assert blobs.sweep_temporaries(clock=clock) == 0
    clock.advance(timedelta(days=1).total_seconds() + 60)
    assert blobs.sweep_temporaries(clock=clock) == 1

    assert not left.exists()
    assert blobs.contains(digest, 4)


def test_spools_of_runs_are_apart_and_dropped_alone(local: LocalArea) -> None:
    blobs = local.open()
    one, two = blobs.spool("../1"), blobs.spool("2")
    digest = one.put([_LARGE])
    two.put([_LARGE])

    blobs.drop_spool("../1")
    blobs.drop_spool("../1")

    with pytest.raises(ValueDamaged):
        blobs.spool("../1").open(digest, len(_LARGE))
    assert bytes(two.open(digest, len(_LARGE))) == _LARGE
    assert list(blobs.list_digests()) == []


# --- binding ------------------------------------------------------------------------------------
def test_root_without_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"marker is missing.*perdure\.open"):
        open_blobs(tmp_path, _STORE)


def test_marker_that_was_lost_can_be_put_back_as_the_message_says(local: LocalArea) -> None:
    digest = local.open().put([b"data"])
    (local.folder / "marker.json").unlink()
    with pytest.raises(StoreError, match="marker is missing") as refused:
        open_blobs(local.root, _STORE)

    said = re.search(r"put it back: (\S+) holding (\{.*\})$", str(refused.value))
    assert said is not None
    (local.root / said[1]).write_text(said[2])

    assert bytes(open_blobs(local.root, _STORE).open(digest, 4)) == b"data"


@pytest.mark.parametrize(
    ("url", "driver", "extra"), [("gs://b/p", "gcsfs", "gcs"), ("s3://b/p", "s3fs", "s3")]
)
def test_driver_that_is_not_installed_is_named_by_its_extra(
    url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    found = sys.modules["fsspec.registry"].__dict__["_registry"]  # the package hides the module
    monkeypatch.delitem(found, url.partition(":")[0], raising=False)

    with pytest.raises(StoreError, match=rf"pip install 'perdure\[{extra}\]'"):
        open_blobs(url, _STORE)


def test_root_of_another_store_is_refused(local: LocalArea) -> None:
    local.open()

    with pytest.raises(StoreError, match="not the blob root of store other"):
        open_blobs(local.root, "other")


def test_marker_of_another_store_is_refused(local: LocalArea) -> None:
    local.open()
    (local.folder / "marker.json").write_text('{"store":"other","format":1}')

    for bind in (False, True):
        with pytest.raises(StoreError, match="marker of another store"):
            open_blobs(local.root, _STORE, bind=bind)


def test_root_that_another_binds_and_uses_meanwhile_is_this_stores(
    local: LocalArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = LocalRoot.is_used

    def used_by_another(root: LocalRoot) -> bool:
        monkeypatch.undo()
        open_blobs(local.root, _STORE, bind=True).put([b"data"])
        return looks(root)

    monkeypatch.setattr(LocalRoot, "is_used", used_by_another)

    blobs = open_blobs(local.root, _STORE, bind=True)

    assert len(list(blobs.list_digests())) == 1


def test_used_root_that_lost_its_marker_is_not_bound_again(local: LocalArea) -> None:
    local.open().put([b"data"])
    local.hide_marker()

    with pytest.raises(StoreError, match="no marker"):
        open_blobs(local.root, _STORE, bind=True)


def test_two_stores_share_a_root(local: LocalArea) -> None:
    digest = local.open().put([b"data"])

    other = open_blobs(local.root, "store-2", bind=True)

    assert not other.contains(digest, 4)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 101])
def test_store_id_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="store id"):
        open_blobs(tmp_path, name, bind=True)


@pytest.mark.parametrize("url", ["", "file://", "nosuch://bucket/x"])
def test_url_that_cannot_be_used_is_a_clear_error(url: str) -> None:
    with pytest.raises(StoreError, match=r"blob root"):
        open_blobs(url, _STORE, bind=True)


def test_file_urls_and_relative_paths_are_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = open_blobs("data", _STORE, bind=True)
    digest = relative.put([b"data"])
    monkeypatch.chdir("/")

    assert isinstance(relative, LocalBlobStore)
    assert relative.contains(digest, 4)
    assert open_blobs(f"file://{tmp_path}/data", _STORE).contains(digest, 4)


# --- on a filesystem that fails -----------------------------------------------------------------
@pytest.fixture
def faulty() -> FaultyFS:
    return FaultyFS(fsspec.filesystem("memory"))


@pytest.fixture
def remote(faulty: FaultyFS) -> tuple[RemoteArea, BlobRoot]:
    area = RemoteArea()
    return area, area.open(faulty)


@pytest.mark.parametrize("at", [0, 5, 9_000_000, len(_LARGE) - 1])
@pytest.mark.parametrize("kind", ["no-space", "io-error", "time-out", "short-write"])
def test_failed_upload_is_reported_and_leaves_nothing(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS, kind: Any, at: int
) -> None:
    area, blobs = remote
    faulty.inject(Fault(kind=kind, at=at, on="write", path=".tmp"))

    with pytest.raises(StoreUnavailable if kind == "no-space" else ValueUnavailable):
        blobs.put([_LARGE])

    assert list(blobs.list_digests()) == []
    assert area.fs.find(f"{area.folder}/incoming") == []
    faulty.heal()
    digest = blobs.put([_LARGE])
    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


def test_full_storage_says_what_is_kept(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS
) -> None:
    _, blobs = remote
    faulty.inject(Fault(kind="no-space", on="write", path=".tmp"))

    with pytest.raises(StoreUnavailable, match="committed is kept; make room and resume"):
        blobs.put([_LARGE])


@pytest.mark.parametrize("at", [0, 1_000_000, len(_LARGE) - 1])
@pytest.mark.parametrize("kind", ["flip", "truncate", "swap"])
def test_blob_that_reads_wrong_twice_is_damaged(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS, kind: Any, at: int
) -> None:
    _, blobs = remote
    digest = blobs.put([_LARGE])
    faulty.inject(Fault(kind=kind, at=at, other=b"other object"))

    with pytest.raises(ValueDamaged) as raised:
        blobs.open(digest, len(_LARGE))

    assert not raised.value.missing


@pytest.mark.parametrize("kind", ["flip", "truncate", "swap"])
def test_blob_that_reads_wrong_once_is_read_again(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS, kind: Any
) -> None:
    _, blobs = remote
    digest = blobs.put([_LARGE])
    faulty.inject(Fault(kind=kind, at=7, other=b"other object"), times=1)

    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


def test_value_that_is_put_again_and_again_is_synced_once(tmp_path: Path) -> None:
    first = open_blobs(tmp_path, _STORE, bind=True)
    assert isinstance(first, LocalBlobStore)
    digest = first.put([b"sources"])
    sync = CountingSync()
    store = LocalBlobStore(first.root, sync=sync)

    for _ in range(3):
        store.put([b"sources"])
    once = sync.files
    path = LocalArea(tmp_path).path(digest)
    path.unlink()
    first.put([b"sources"])
    store.put([b"sources"])

    assert once == 1
    assert sync.files == 2, "it is another file now"


def test_blob_that_is_not_listed_yet_is_read(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS
) -> None:
    _, blobs = remote
    digest = blobs.put([_LARGE])
    faulty.inject(Fault(kind="stale", on="look"))

    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE


def test_listing_holds_one_folder_of_many_at_a_time(
    remote: tuple[RemoteArea, BlobRoot], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, blobs = remote
    put = {blobs.put([f"value {number}".encode()]) for number in range(300)}
    held: list[int] = []
    find = AbstractFileSystem.find

    def noted(fs: AbstractFileSystem, path: str, **options: Any) -> Any:
        found = find(fs, path, **options)
        held.append(len(found))
        return found

    monkeypatch.setattr(AbstractFileSystem, "find", noted)

    assert set(blobs.list_digests()) == put
    assert max(held) < 30


@pytest.mark.parametrize("kind", ["io-error", "time-out", "forbidden"])
@pytest.mark.parametrize("on", ["read", "look"])
def test_storage_that_does_not_answer_is_never_loss(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS, kind: Any, on: Any
) -> None:
    _, blobs = remote
    digest = blobs.put([_LARGE])
    faulty.inject(Fault(kind=kind, on=on, at=100))

    with pytest.raises(ValueUnavailable):
        (blobs.open if on == "read" else blobs.contains)(digest, len(_LARGE))


def test_missing_blob_is_not_called_missing_while_the_root_does_not_answer(
    remote: tuple[RemoteArea, BlobRoot], faulty: FaultyFS
) -> None:
    _, blobs = remote
    faulty.inject(Fault(kind="time-out", path="marker.json"))

    with pytest.raises(ValueUnavailable):
        blobs.open(integrity_digest([b"nothing"]), 7)


def test_errors_of_a_driver_lose_the_credentials_in_them(remote: Any) -> None:
    from perdure_storage.roots import failure

    error = failure(RuntimeError("GET https://key:secret@host/x failed"), "read")

    assert "secret" not in str(error)
    assert isinstance(error, ValueUnavailable)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_quota_and_file_size_are_all_full(number: int) -> None:
    from perdure_storage.roots import failure

    assert isinstance(failure(OSError(number, "full"), "store"), StoreUnavailable)


def _never(*_: object) -> Digest:
    raise AssertionError("the blob was hashed again")
