"""Folders as values, over every blob store: shared, restored whole, refused where hostile."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.clock import ManualClock, SystemClock
from perdure_storage.codecs import Codecs
from perdure_storage.directories import Directories, Manifest, StoredFile, is_directory
from perdure_storage.errors import NotSerializable, StoreError, ValueDamaged
from perdure_storage.guards import blobs_of_value
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import Buffer, Digest, StoredValue
from perdure_storage.values import Values

LARGE = bytes(range(256)) * 8_192  # more than is read in one piece


class CountingBlobs:
    """A blob store that remembers what it was given."""

    def __init__(self, below: BlobRoot) -> None:
        self.below = below
        self.given: list[Digest] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.below, name)

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        self.given.append(self.below.put(buffers, digest=digest))
        return self.given[-1]


@pytest.fixture(params=["folder", "remote"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> CountingBlobs:
    url = str(tmp_path / "blobs") if request.param == "folder" else f"memory://{tmp_path.name}"
    return CountingBlobs(open_blobs(url, "s", bind=True))


@pytest.fixture
def later() -> ManualClock:
    """Return a time at which every file that a test has made is old."""
    return ManualClock(SystemClock().now() + timedelta(hours=1))


@pytest.fixture
def directories(blobs: CountingBlobs, later: ManualClock) -> Directories:
    return Directories(Values(Codecs(), blobs), later)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "mine", {"a.txt": b"a", "deep/er/b.bin": LARGE, "deep/c": b""})


def make_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tree_of(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def test_a_restored_folder_is_the_one_that_was_stored(
    directories: Directories, folder: Path, tmp_path: Path
) -> None:
    (folder / "empty/inner").mkdir(parents=True)
    (folder / "a.txt").chmod(0o755)

    stored = directories.store(folder)
    directories.restore(stored, tmp_path / "other")

    assert tree_of(tmp_path / "other") == tree_of(folder)
    assert os.access(tmp_path / "other/a.txt", os.X_OK)
    assert not os.access(tmp_path / "other/deep/c", os.X_OK)


def test_an_empty_folder_can_be_stored(directories: Directories, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()

    directories.restore(directories.store(tmp_path / "none"), tmp_path / "other")

    assert tree_of(tmp_path / "other") == {}


def test_a_stored_folder_is_told_from_other_values_and_shows_what_is_in_it(
    directories: Directories, blobs: CountingBlobs, folder: Path
) -> None:
    stored = directories.store(folder)
    plain = Values(Codecs(), blobs).store({"a": 1})  # type: ignore[arg-type]

    assert is_directory(stored)
    assert not is_directory(plain)
    assert msgspec.json.decode(stored.preview)["files"] == 3


def test_what_refers_to_a_folder_refers_to_every_file_of_it(
    directories: Directories, blobs: CountingBlobs, folder: Path
) -> None:
    stored = directories.store(folder)

    assert set(blobs_of_value(stored)) == set(blobs.below.list_digests())


def test_only_the_file_that_changed_is_written(
    directories: Directories, blobs: CountingBlobs, folder: Path
) -> None:
    directories.store(folder)
    blobs.given.clear()
    (folder / "a.txt").write_bytes(b"other")

    directories.store(folder)

    assert blobs.given == [integrity_digest([b"other"])]


def test_a_file_that_is_written_again_with_the_same_bytes_makes_no_other_value(
    directories: Directories, blobs: CountingBlobs, folder: Path
) -> None:
    before = directories.store(folder)
    there = sorted(blobs.below.list_digests())
    (folder / "deep/er/b.bin").write_bytes(LARGE)

    after = directories.store(folder)

    assert after.value_digest == before.value_digest
    assert sorted(blobs.below.list_digests()) == there


def test_files_that_were_restored_are_not_read_again(
    directories: Directories, blobs: CountingBlobs, folder: Path, tmp_path: Path
) -> None:
    directories.restore(directories.store(folder), tmp_path / "other")
    blobs.given.clear()

    directories.store(tmp_path / "other")

    assert blobs.given == []


def test_a_change_in_the_same_tick_of_the_clock_is_not_overlooked(
    blobs: CountingBlobs, folder: Path
) -> None:
    values = Values(Codecs(), blobs)  # type: ignore[arg-type]
    now = ManualClock(datetime.fromtimestamp((folder / "a.txt").stat().st_ctime, UTC))
    directories = Directories(values, now)
    directories.store(folder)
    blobs.given.clear()

    directories.store(folder)

    # All are looked at again: another write in that tick would have left the same times.
    assert len(blobs.given) == 3


def test_a_change_through_a_memory_map_is_not_overlooked(
    directories: Directories, folder: Path, tmp_path: Path
) -> None:
    with open(folder / "deep/er/b.bin", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:3] = b"one"
        directories.store(folder)
        mapped[:3] = b"two"

        directories.restore(directories.store(folder), tmp_path / "other")

    assert (tmp_path / "other/deep/er/b.bin").read_bytes()[:3] == b"two"


def test_a_file_whose_blob_gc_took_is_written_again(
    directories: Directories, blobs: CountingBlobs, folder: Path, tmp_path: Path
) -> None:
    stored = directories.store(folder)
    for digest in stored.files:
        blobs.below.delete(digest)

    directories.restore(directories.store(folder), tmp_path / "other")

    assert tree_of(tmp_path / "other") == tree_of(folder)


def test_to_change_a_restored_file_changes_no_blob(
    directories: Directories, folder: Path, tmp_path: Path
) -> None:
    stored = directories.store(folder)
    directories.restore(stored, tmp_path / "one")
    with open(tmp_path / "one/deep/er/b.bin", "r+b") as file:
        file.write(b"changed in place")

    directories.restore(stored, tmp_path / "two")

    assert tree_of(tmp_path / "two") == tree_of(folder)


def test_a_damaged_file_is_told_and_leaves_no_half_folder(
    directories: Directories, blobs: CountingBlobs, folder: Path, tmp_path: Path
) -> None:
    stored = directories.store(folder)
    blobs.below.delete(integrity_digest([b"a"]))

    with pytest.raises(ValueDamaged):
        directories.restore(stored, tmp_path / "other")

    assert tree_of(tmp_path / "other") == {}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_nothing_is_restored_over_what_is_there(
    directories: Directories, folder: Path, tmp_path: Path
) -> None:
    stored = directories.store(folder)
    before = tree_of(folder)

    with pytest.raises(StoreError, match="is not empty"):
        directories.restore(stored, folder)

    assert tree_of(folder) == before


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../out", "a/../../out", "", ".", "a//b", "a/./b", "a\0b", ".."]
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(
    directories: Directories, blobs: CountingBlobs, tmp_path: Path, path: str, as_folder: bool
) -> None:
    digest = blobs.put([b"evil"])
    file = StoredFile(path, digest, 4, False)
    manifest = Manifest((), (path,)) if as_folder else Manifest((file,), ())
    stored = Values(Codecs(), blobs).store(manifest)  # type: ignore[arg-type]

    with pytest.raises(StoreError, match="does not lie in it"):
        directories.restore(stored, tmp_path / "place/inner")

    assert not (tmp_path / "place").exists()


def test_a_value_that_is_no_folder_is_not_restored(
    directories: Directories, blobs: CountingBlobs, tmp_path: Path
) -> None:
    stored: StoredValue = Values(Codecs(), blobs).store([1, 2])  # type: ignore[arg-type]

    with pytest.raises(StoreError, match="no folder"):
        directories.restore(stored, tmp_path / "other")


def test_symbolic_links_are_refused_by_name(directories: Directories, folder: Path) -> None:
    (folder / "deep/link").symlink_to("/etc/passwd")

    with pytest.raises(NotSerializable, match="symbolic link") as raised:
        directories.store(folder, name="state")

    assert raised.value.path == "state/deep/link"


def test_a_link_to_a_folder_is_refused_too(directories: Directories, folder: Path) -> None:
    (folder / "around").symlink_to(folder)

    with pytest.raises(NotSerializable, match="symbolic link"):
        directories.store(folder)


def test_pipes_are_refused_and_not_waited_for(directories: Directories, folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(NotSerializable, match="neither a file nor a folder"):
        directories.store(folder)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="this system has UTF-8 names only")
def test_a_name_that_is_not_utf_8_is_refused(directories: Directories, folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_bytes(b"x")

    with pytest.raises(NotSerializable, match="not UTF-8"):
        directories.store(folder)


def test_a_file_that_changes_while_it_is_stored_is_refused(
    blobs: CountingBlobs, folder: Path
) -> None:
    class Meanwhile(CountingBlobs):
        def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
            (folder / "deep/er/b.bin").write_bytes(b"from another thread")
            return super().put(buffers, digest=digest)

    directories = Directories(Values(Codecs(), Meanwhile(blobs.below)))  # type: ignore[arg-type]

    with pytest.raises(NotSerializable, match="changed while it was stored"):
        directories.store(folder)


def test_a_folder_that_is_not_there_is_refused(directories: Directories, tmp_path: Path) -> None:
    with pytest.raises(NotSerializable, match="cannot be read"):
        directories.store(tmp_path / "nowhere")
