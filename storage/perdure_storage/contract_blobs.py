"""The contracts of BlobStore and LogStore as tests: subclass, and provide the fixtures.

class TestMyBlobs(BlobStoreContract):
@pytest.fixture
def area(self) -> BlobArea: ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import pytest

from perdure_storage.errors import NotSerializable, ValueDamaged, ValueUnavailable
from perdure_storage.hashing import integrity_digest
from perdure_storage.protocols import BlobStore, LogStore
from perdure_storage.records import Buffer, Digest, RunId, StepId

_SMALL = b"a small blob"


class BlobArea(Protocol):
    """A place for blobs, and the powers over it that only a test has."""

    def open(self) -> BlobStore:
        """Return a store over the place, as a new process would have it."""
        ...

    def overwrite(self, digest: Digest, data: bytes) -> None:
        """Put other bytes under a blob's name, behind the store's back."""
        ...

    def remove(self, digest: Digest) -> None:
        """Remove a blob, behind the store's back."""
        ...

    def hide_marker(self) -> None:
        """Make the root look like a disk that is not mounted."""
        ...


class BlobStoreContract:
    """What every BlobStore does.

    Attributes:
        large: bytes that are written in more than one piece.
    """

    large = bytes(range(256)) * 80_000

    @pytest.fixture
    def data(self, request: pytest.FixtureRequest) -> bytes:
        """Return the bytes that a test names by their size."""
        return {"empty": b"", "small": _SMALL, "large": self.large}[request.param]

    @pytest.fixture
    def blobs(self, area: BlobArea) -> BlobStore:
        """Return an empty store."""
        return area.open()

    @pytest.mark.parametrize("data", ["empty", "small", "large"], indirect=True)
    def test_put_names_bytes_by_their_digest_and_open_returns_them(
        self, blobs: BlobStore, area: BlobArea, data: bytes
    ) -> None:
        digest = blobs.put([data])

        assert digest == integrity_digest([data])
        assert bytes(blobs.open(digest, len(data))) == data
        assert bytes(area.open().open(digest, len(data))) == data

    def test_put_stores_the_concatenation_of_its_buffers(self, blobs: BlobStore) -> None:
        parts: list[Buffer] = [b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""]

        digest = blobs.put(parts)

        assert digest == integrity_digest([b"abcdef"])
        assert bytes(blobs.open(digest, 6)) == b"abcdef"

    @pytest.mark.parametrize("data", ["small", "large"], indirect=True)
    def test_put_of_what_is_there_changes_nothing(self, blobs: BlobStore, data: bytes) -> None:
        first = blobs.put([data])

        assert blobs.put([data]) == first
        assert blobs.put([data], digest=first) == first
        assert list(blobs.list_digests()) == [first]

    def test_put_trusts_a_digest_that_the_caller_knows(self, blobs: BlobStore) -> None:
        digest = integrity_digest([self.large])

        assert blobs.put([self.large], digest=digest) == digest
        assert bytes(blobs.open(digest, len(self.large))) == self.large

    @pytest.mark.parametrize("data", ["small", "large"], indirect=True)
    def test_open_gives_memory_that_can_be_changed_without_changing_the_blob(
        self, blobs: BlobStore, area: BlobArea, data: bytes
    ) -> None:
        digest = blobs.put([data])

        mine = blobs.open(digest, len(data))
        mine[:3] = b"XYZ"

        assert bytes(mine[:3]) == b"XYZ"
        assert bytes(blobs.open(digest, len(data))) == data
        assert bytes(area.open().open(digest, len(data))) == data

    def test_open_says_missing_when_nothing_is_there(self, blobs: BlobStore) -> None:
        digest = integrity_digest([b"never stored"])

        with pytest.raises(ValueDamaged) as raised:
            blobs.open(digest, 12)

        assert raised.value.missing
        assert raised.value.digest == digest

    @pytest.mark.parametrize("data", ["small", "large"], indirect=True)
    @pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "swap", "empty"])
    def test_open_says_damaged_when_other_bytes_are_there(
        self, blobs: BlobStore, area: BlobArea, data: bytes, damage: str
    ) -> None:
        digest = blobs.put([data])
        area.overwrite(digest, _damaged(data, damage))

        for store in (blobs, area.open()):
            with pytest.raises(ValueDamaged) as raised:
                store.open(digest, len(data))

            assert not raised.value.missing

    def test_open_says_unavailable_when_the_root_is_not_there(
        self, blobs: BlobStore, area: BlobArea
    ) -> None:
        digest = blobs.put([_SMALL])
        area.remove(digest)
        area.hide_marker()

        with pytest.raises(ValueUnavailable):
            blobs.open(digest, len(_SMALL))

    def test_damaged_blob_is_not_called_damaged_when_the_root_is_not_there(
        self, blobs: BlobStore, area: BlobArea
    ) -> None:
        digest = blobs.put([_SMALL])
        area.overwrite(digest, _damaged(_SMALL, "flip"))
        area.hide_marker()

        with pytest.raises(ValueUnavailable):
            blobs.open(digest, len(_SMALL))

    @pytest.mark.parametrize("data", ["empty", "small", "large"], indirect=True)
    def test_copy_out_writes_the_bytes_to_a_file_that_is_the_callers(
        self, blobs: BlobStore, area: BlobArea, tmp_path: Path, data: bytes
    ) -> None:
        digest = blobs.put([data])
        mine = tmp_path / "mine"

        for store in (blobs, area.open()):
            with open(mine, "w+b") as file:
                store.copy_out(digest, len(data), file.fileno())
            assert mine.read_bytes() == data
            with open(mine, "r+b") as file:
                file.write(b"XYZ")

        assert bytes(area.open().open(digest, len(data))) == data

    @pytest.mark.parametrize("data", ["small", "large"], indirect=True)
    @pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "swap", "empty"])
    def test_copy_out_says_damaged_when_other_bytes_are_there(
        self, blobs: BlobStore, area: BlobArea, tmp_path: Path, data: bytes, damage: str
    ) -> None:
        digest = blobs.put([data])
        area.overwrite(digest, _damaged(data, damage))

        with open(tmp_path / "mine", "w+b") as file, pytest.raises(ValueDamaged) as raised:
            blobs.copy_out(digest, len(data), file.fileno())

        assert not raised.value.missing

    @pytest.mark.parametrize("data", ["empty", "small"], indirect=True)
    def test_copy_out_says_missing_when_nothing_is_there(
        self, blobs: BlobStore, tmp_path: Path, data: bytes
    ) -> None:
        with open(tmp_path / "mine", "w+b") as file, pytest.raises(ValueDamaged) as raised:
            blobs.copy_out(integrity_digest([data]), len(data), file.fileno())

        assert raised.value.missing

    def test_bytes_that_are_made_while_they_are_read_are_stored(self, blobs: BlobStore) -> None:
        digest = blobs.put(cast("list[Buffer]", _Made(self.large)))

        assert digest == integrity_digest([self.large])
        assert bytes(blobs.open(digest, len(self.large))) == self.large

    def test_nothing_is_stored_when_whoever_makes_the_bytes_gives_up(
        self, blobs: BlobStore
    ) -> None:
        with pytest.raises(NotSerializable):
            blobs.put(cast("list[Buffer]", _Made(self.large, gives_up=True)))

        assert list(blobs.list_digests()) == []

    def test_contains_looks_at_name_and_size(self, blobs: BlobStore) -> None:
        digest = blobs.put([_SMALL])

        assert blobs.contains(digest, len(_SMALL))
        assert not blobs.contains(digest, len(_SMALL) + 1)
        assert not blobs.contains(integrity_digest([b"other"]), 5)

    def test_quarantined_blob_is_missing_and_can_be_stored_again(
        self, blobs: BlobStore, area: BlobArea
    ) -> None:
        digest = blobs.put([self.large])
        area.overwrite(digest, _damaged(self.large, "flip"))

        blobs.quarantine(digest)

        with pytest.raises(ValueDamaged) as raised:
            blobs.open(digest, len(self.large))
        assert raised.value.missing
        assert blobs.put([self.large]) == digest
        assert bytes(blobs.open(digest, len(self.large))) == self.large

    def test_quarantine_of_what_is_not_there_does_nothing(self, blobs: BlobStore) -> None:
        blobs.quarantine(integrity_digest([b"nothing"]))

        assert list(blobs.list_digests()) == []

    def test_delete_removes_a_blob_and_is_idempotent(self, blobs: BlobStore) -> None:
        kept, gone = blobs.put([b"kept"]), blobs.put([b"gone"])

        blobs.delete(gone)
        blobs.delete(gone)

        assert list(blobs.list_digests()) == [kept]
        assert not blobs.contains(gone, 4)

    def test_list_digests_names_every_blob(self, blobs: BlobStore) -> None:
        stored = {blobs.put([bytes([number])]) for number in range(20)}

        assert set(blobs.list_digests()) == stored

    @pytest.mark.parametrize(
        "name",
        ["blake3:../../etc/passwd", "blake3:", "", "md5:" + "0" * 64, "blake3:" + "G" * 64],
    )
    def test_a_name_that_is_no_digest_never_becomes_a_path(
        self, blobs: BlobStore, name: str
    ) -> None:
        with pytest.raises(ValueError, match="not an integrity digest"):
            blobs.open(Digest(name), 1)

    def test_many_threads_put_the_same_bytes_at_once(self, blobs: BlobStore) -> None:
        found: list[Digest] = []
        threads = [
            threading.Thread(target=lambda: found.append(blobs.put([self.large]))) for _ in range(4)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert found == [integrity_digest([self.large])] * 4
        assert bytes(blobs.open(found[0], len(self.large))) == self.large


class _Made:
    """Makes the large bytes anew for whoever iterates; may give up at the end."""

    def __init__(self, data: bytes, gives_up: bool = False) -> None:
        self._data = data
        self._gives_up = gives_up

    def __iter__(self) -> Iterator[bytes]:
        yield self._data[:1000]
        yield self._data[1000:]
        if self._gives_up:
            raise NotSerializable("the source has changed")


def _damaged(data: bytes, damage: str) -> bytes:
    middle = len(data) // 2
    return {
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "truncate": data[:middle],
        "grow": data + b"more",
        "swap": data[::-1] if data != data[::-1] else b"?" * len(data),
        "empty": b"",
    }[damage]


_RUN = RunId("team/run 1")
_STEP = StepId("fit[3]/train#2")


class LogArea(Protocol):
    """A place for logs."""

    def open(self) -> LogStore:
        """Return a store over the place, as a new process would have it."""
        ...


class LogStoreContract:
    """What every LogStore does."""

    @pytest.fixture
    def logs(self, log_area: LogArea) -> LogStore:
        """Return an empty store."""
        return log_area.open()

    def test_read_returns_what_was_appended_in_order(self, logs: LogStore) -> None:
        for part in (b"one\n", b"two\n", b"", b"three"):
            logs.append(_RUN, _STEP, 1, 1, part)

        assert logs.read(_RUN, _STEP, 1, 1) == b"one\ntwo\nthree"

    def test_read_returns_nothing_when_nothing_was_printed(self, logs: LogStore) -> None:
        assert logs.read(_RUN, _STEP, 1, 1) == b""

    @pytest.mark.parametrize("offset", [0, 1, 3, 4, 9, 13, 14, 99, -1, -4, -9, -14, -99])
    def test_read_begins_at_the_offset_that_a_slice_would(
        self, logs: LogStore, offset: int
    ) -> None:
        for part in (b"one\n", b"two\n", b"three\n"):
            logs.append(_RUN, _STEP, 1, 1, part)

        assert logs.read(_RUN, _STEP, 1, 1, offset=offset) == b"one\ntwo\nthree\n"[offset:]

    def test_reader_that_goes_on_where_it_stopped_sees_everything_once(
        self, logs: LogStore
    ) -> None:
        seen = b""
        for part in (b"one\n", b"two\n", b"", b"three"):
            logs.append(_RUN, _STEP, 1, 1, part)
            seen += logs.read(_RUN, _STEP, 1, 1, offset=len(seen))

        assert seen == b"one\ntwo\nthree"

    def test_another_process_reads_and_goes_on(self, logs: LogStore, log_area: LogArea) -> None:
        logs.append(_RUN, _STEP, 1, 1, b"one ")

        other = log_area.open()
        other.append(_RUN, _STEP, 1, 1, b"two ")
        logs.append(_RUN, StepId("other"), 1, 1, b"elsewhere")

        assert logs.read(_RUN, _STEP, 1, 1) == b"one two "

    def test_generations_and_attempts_have_logs_of_their_own(self, logs: LogStore) -> None:
        for generation, attempt in ((1, 1), (1, 2), (2, 1)):
            logs.append(_RUN, _STEP, generation, attempt, f"{generation}.{attempt}".encode())

        assert logs.read(_RUN, _STEP, 1, 2) == b"1.2"
        assert logs.read(_RUN, _STEP, 2, 1) == b"2.1"

    @pytest.mark.parametrize("name", ["../../etc", "/", "a\x00b", ".", "x" * 5000, "\ud800"])
    def test_hostile_ids_never_become_paths(self, logs: LogStore, name: str) -> None:
        logs.append(RunId(name), StepId(name), 1, 1, b"text")

        assert logs.read(RunId(name), StepId(name), 1, 1) == b"text"
        assert logs.read(RunId(name), StepId(name + "x"), 1, 1) == b""

    def test_delete_removes_one_run_and_is_idempotent(self, logs: LogStore) -> None:
        logs.append(_RUN, _STEP, 1, 1, b"gone")
        logs.append(RunId("other"), _STEP, 1, 1, b"kept")

        logs.delete(_RUN)
        logs.delete(_RUN)

        assert logs.read(_RUN, _STEP, 1, 1) == b""
        assert logs.read(RunId("other"), _STEP, 1, 1) == b"kept"

    def test_a_deleted_run_can_be_logged_again(self, logs: LogStore) -> None:
        logs.append(_RUN, _STEP, 1, 1, b"before")
        logs.delete(_RUN)

        logs.append(_RUN, _STEP, 1, 1, b"after")

        assert logs.read(_RUN, _STEP, 1, 1) == b"after"
