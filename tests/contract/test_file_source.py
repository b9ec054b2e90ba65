"""What a source of files does beyond the contract of sources."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from perdure_scheduler import file_source
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.contract_sources import hear, listening
from perdure_scheduler.file_source import AT_ONCE, BEGUN, FileSource, passing_over
from perdure_scheduler.sources import Batch
from perdure_storage.clock import SystemClock

OFTEN = timedelta(milliseconds=50)
SELDOM = timedelta(minutes=5)
PATIENCE_S = 20.0


async def next_names(batches: AsyncIterator[Batch]) -> list[str]:
    """Return the names of the files that arrive next."""
    while not (batch := await asyncio.wait_for(anext(batches), PATIENCE_S)).arrivals:
        pass
    return [each.facts["name"] for each in batch.arrivals]


def names(source: FileSource, cursor: str | None = None) -> list[str]:
    """Return the names of the files that are there."""
    return [each.facts["name"] for each in there(source, cursor)]


def there(source: FileSource, cursor: str | None = None) -> list[Arrival]:
    """Return what a listening gives until it has listed everything."""

    async def run() -> list[Arrival]:
        found: list[Arrival] = []
        async with listening(source, cursor) as batches:
            async for batch in batches:
                found += batch.arrivals
                if not batch.arrivals and not (batch.cursor or "").startswith("old"):
                    break
        return found

    return asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


class Store(MemoryFileSystem):
    """An object store: it can be away, hang, hide a folder, and it counts how often it is asked."""

    protocol = "teststore"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]
    cachable = False
    away: Exception | None = None
    forbidden = ""
    gate: threading.Event | None = None
    asked: list[str] = []

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        type(self).asked.append(path)
        if self.gate is not None:
            self.gate.wait(PATIENCE_S)
        if self.away is not None:
            raise self.away
        if self.forbidden and path.endswith(self.forbidden):
            raise PermissionError(path)
        entries = super().ls(path, detail=True, **kwargs)
        return [self._tagged(entry) for entry in entries]

    def _tagged(self, entry: dict[str, Any]) -> dict[str, Any]:
        is_file = entry["type"] == "file"
        return {**entry, "ETag": f'"{len(self.cat(entry["name"]))}"'} if is_file else entry

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("teststore://"))
        return stripped


@pytest.fixture
def store() -> Iterator[type[Store]]:
    fsspec.register_implementation("teststore", Store, clobber=True)
    Store.store, Store.pseudo_dirs, Store.asked = {}, [""], []
    Store.away, Store.forbidden, Store.gate = None, "", None
    yield Store
    if Store.gate is not None:
        Store.gate.set()


def put(path: str, text: str = "1\n") -> None:
    with fsspec.open(f"teststore://{path}", "wt") as file:
        file.write(text)


# --- what is known of a file ---------------------------------------------------------------------
def test_facts_of_a_local_file_are_what_its_system_says(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    path.write_text("12345")
    os.utime(path, (1_750_000_000, 1_750_000_000))

    (arrival,) = there(FileSource(f"{tmp_path}/*.csv"))

    assert arrival.key == f"file://{path}"
    assert arrival.facts == {
        "path": str(path),
        "url": f"file://{path}",
        "name": "a b.csv",
        "size": 5,
        "modified": datetime.fromtimestamp(1_750_000_000, UTC).isoformat(),
    }


def test_object_has_its_etag_among_its_facts(store: type[Store]) -> None:
    put("in/a.csv", "123")

    (arrival,) = there(FileSource("teststore://in/*.csv"))

    assert arrival.facts["etag"] == "3"
    assert arrival.facts["url"] == arrival.key == "teststore:///in/a.csv"


def test_name_that_is_no_text_is_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good.csv").touch()
    (tmp_path / os.fsdecode(b"bad-\xff.csv")).touch()
    source = FileSource(f"{tmp_path}/*.csv")

    assert names(source) == ["good.csv"]
    assert names(source) == []
    assert sum("no text" in record.message for record in caplog.records) == 1


# --- which files are meant -----------------------------------------------------------------------
def test_file_that_is_still_written_under_another_name_arrives_when_it_is_renamed(
    tmp_path: Path,
) -> None:
    part = tmp_path / "a.csv.part"
    part.write_text("1")
    source = FileSource(f"{tmp_path}/*", every=SELDOM)

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            part.rename(tmp_path / "a.csv")
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv"]


def test_nothing_is_ignored_if_nothing_is_to_be(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").touch()

    assert names(FileSource(f"{tmp_path}/*", ignore=())) == [".a.tmp"]


def test_link_to_a_file_counts_and_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "in", tmp_path / "outside"
    inbox.mkdir()
    outside.mkdir()
    (outside / "a.csv").write_text("12")
    (inbox / "link.csv").symlink_to(outside / "a.csv")
    (inbox / "dead.csv").symlink_to(outside / "nothing.csv")
    (inbox / "itself.csv").symlink_to(inbox / "itself.csv")
    (inbox / "loop").symlink_to(inbox)
    (inbox / "folder.csv").mkdir()

    (arrival,) = there(FileSource(f"{inbox}/**/*.csv"))

    assert (arrival.facts["name"], arrival.facts["size"]) == ("link.csv", 2)


def test_folder_that_may_not_be_read_hides_no_other(store: type[Store]) -> None:
    put("in/lost+found/a.csv")
    put("in/good/b.csv")
    store.forbidden = "lost+found"

    assert names(FileSource("teststore://in/**/*.csv")) == ["b.csv"]


def test_pattern_of_one_file_means_that_file(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").touch()
    (tmp_path / "other.csv").touch()

    assert names(FileSource(str(tmp_path / "rates.csv"))) == ["rates.csv"]


def test_only_folders_that_can_hold_something_are_asked_for(store: type[Store]) -> None:
    put("in/2025/a.csv")
    put("in/2026/deep/b.csv")
    put("in/2026/c.csv")

    assert names(FileSource("teststore://in/2026*/*.csv")) == ["c.csv"]
    assert {path.strip("/") for path in store.asked} == {"in", "in/2026"}


# --- what is new ---------------------------------------------------------------------------------
def test_file_written_again_arrives_again_under_another_key_if_changes_count(
    store: type[Store],
) -> None:
    put("in/a.csv", "1")
    source = FileSource("teststore://in/*.csv", change=True)
    (first,) = there(source)

    assert there(source, BEGUN) == []
    put("in/a.csv", "22")
    (second,) = there(source, BEGUN)

    assert first.key == "teststore:///in/a.csv#1"
    assert second.key == "teststore:///in/a.csv#2"


def test_file_written_again_is_no_news_if_changes_do_not_count(store: type[Store]) -> None:
    put("in/a.csv", "1")
    source = FileSource("teststore://in/*.csv")
    there(source)

    put("in/a.csv", "22")

    assert there(source, BEGUN) == []


# --- what is gone ---------------------------------------------------------------------------------
def may_come_again(source: FileSource, folder: Path, *names: str) -> dict[str, bool]:
    """Return whether files may arrive again, after all that is there has arrived."""
    there(source)
    may = source.may_come_again()
    return {name: may(f"file://{folder}/{name}") for name in names}


def test_file_that_is_gone_may_not_come_again_and_one_that_is_there_may(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("1")
    source = FileSource(f"{tmp_path}/*.csv")

    may = may_come_again(source, tmp_path, "there.csv", "gone.csv")

    assert may == {"there.csv": True, "gone.csv": False}


def test_file_of_a_folder_that_shows_nothing_may_come_again(tmp_path: Path) -> None:
    for folder in ("mounted", "not_mounted"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mounted/there.csv").write_text("1")
    source = FileSource(f"{tmp_path}/*/*.csv")

    may = may_come_again(source, tmp_path, "mounted/a.csv", "not_mounted/a.csv", "no_folder/a.csv")

    assert may == {"mounted/a.csv": False, "not_mounted/a.csv": True, "no_folder/a.csv": True}


def test_file_that_is_not_finished_or_behind_a_link_for_now_may_come_again(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere" / "a.csv")
    for name in ("old.csv", "written.csv"):
        (tmp_path / name).write_text("1")
    os.utime(tmp_path / "old.csv", (0, 0))
    source = FileSource(f"{tmp_path}/*.csv", stable_for=timedelta(hours=1))

    may = may_come_again(source, tmp_path, "link.csv", "written.csv", "old.csv")

    assert set(may.values()) == {True}


def test_earlier_version_of_a_file_that_has_changed_may_not_come_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    source = FileSource(f"{tmp_path}/*.csv", change=True)
    [now] = there(source)
    may = source.may_come_again()

    assert may(now.key)
    assert not may(f"file://{tmp_path}/a.csv#1-0.000000")


def test_key_that_is_no_url_of_the_place_may_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("1")
    source = FileSource(f"{tmp_path}/*.csv")
    there(source)

    assert source.may_come_again()("readable~0123456789abcdef")


def test_object_that_is_gone_may_not_come_again(store: type[Store]) -> None:
    put("teststore://in/there.csv")
    source = FileSource("teststore://in/*.csv")
    [arrival] = there(source)
    may = source.may_come_again()

    assert may(arrival.key)
    assert not may(arrival.key.replace("there", "gone"))


def test_what_existed_is_known_and_what_lands_later_is_new(tmp_path: Path) -> None:
    (tmp_path / "old.csv").touch()
    source = FileSource(f"{tmp_path}/*.csv", existing="skip", stable_for=timedelta(hours=1))

    assert [(each.facts["name"], each.existed) for each in there(source)] == [("old.csv", True)]
    (tmp_path / "new.csv").touch()
    os.utime(tmp_path / "new.csv", (0, 0))
    assert [(each.facts["name"], each.existed) for each in there(source, BEGUN)] == [
        ("new.csv", False)
    ]


def test_what_landed_after_it_began_is_new_even_if_it_died_while_it_told_what_existed(
    tmp_path: Path,
) -> None:
    (tmp_path / "old.csv").touch()
    os.utime(tmp_path / "old.csv", (0, 0))

    async def begin() -> str | None:
        async with listening(FileSource(f"{tmp_path}/*", existing="skip"), None) as batches:
            return (await anext(batches)).cursor

    cursor = asyncio.run(begin())
    (tmp_path / "new.csv").touch()
    again = there(FileSource(f"{tmp_path}/*", existing="skip"), cursor)

    assert {each.facts["name"]: each.existed for each in again} == {
        "old.csv": True,
        "new.csv": False,
    }


def test_what_landed_before_a_time_is_passed_over_whoever_saw_it(tmp_path: Path) -> None:
    for name, age_s in (("before", 3600), ("after", -3600)):
        (tmp_path / name).touch()
        at = (SystemClock().now() - timedelta(seconds=age_s)).timestamp()
        os.utime(tmp_path / name, (at, at))

    found = there(FileSource(f"{tmp_path}/*"), passing_over(SystemClock().now()))

    assert {each.facts["name"]: each.existed for each in found} == {"before": True, "after": False}


def test_thousands_of_files_are_given_in_pieces_and_not_again(store: type[Store]) -> None:
    for number in range(2 * AT_ONCE + 1):
        put(f"in/{number:04}.csv")
    source = FileSource("teststore://in/*.csv", every=OFTEN)

    async def run() -> list[int]:
        async with listening(source, None) as batches:
            sizes = [len((await anext(batches)).arrivals) for _ in range(5)]
        return sizes

    assert asyncio.run(run()) == [AT_ONCE, AT_ONCE, 1, 0, 0]
    assert len(store.asked) == 2


def test_file_grows_until_it_has_been_the_same_for_long_enough(store: type[Store]) -> None:
    put("in/a.csv", "1")
    source = FileSource("teststore://in/*.csv", every=SELDOM, stable_for=timedelta(seconds=0.2))

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            put("in/a.csv", "12")
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv"]


def test_file_that_goes_while_it_is_waited_for_is_forgotten(store: type[Store]) -> None:
    put("in/a.csv")
    source = FileSource(
        "teststore://in/*.csv", every=timedelta(seconds=0.3), stable_for=timedelta(seconds=0.1)
    )

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            fsspec.filesystem("teststore").rm("/in/a.csv")
            put("in/b.csv")
            return await next_names(batches)

    assert asyncio.run(run()) == ["b.csv"]
    assert len(store.asked) < 10


# --- folders that come and go --------------------------------------------------------------------
def test_folder_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_source, "MISSING_EVERY_S", 0.05)
    source = FileSource(f"{tmp_path}/in/*.csv", every=SELDOM)

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            (tmp_path / "in").mkdir()
            (tmp_path / "in" / "a.csv").touch()
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv"]


def test_folder_that_is_moved_in_arrives_with_all_that_is_in_it(tmp_path: Path) -> None:
    inbox, ready = tmp_path / "in", tmp_path / "ready"
    inbox.mkdir()
    (ready / "deep").mkdir(parents=True)
    (ready / "a.csv").touch()
    (ready / "deep" / "b.csv").touch()
    source = FileSource(f"{inbox}/**/*.csv", every=SELDOM)

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            ready.rename(inbox / "ready")
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv", "b.csv"]


def test_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    source = FileSource(f"{inbox}/*.csv", every=timedelta(seconds=0.2))

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            shutil.rmtree(inbox)
            inbox.mkdir()
            (inbox / "a.csv").touch()
            first = await next_names(batches)
            (inbox / "b.csv").touch()
            return first + await next_names(batches)

    assert asyncio.run(run()) == ["a.csv", "b.csv"]


# --- what does not answer ------------------------------------------------------------------------
def test_store_that_is_away_is_told_of_and_afterwards_only_what_is_new_is_given(
    store: type[Store],
) -> None:
    put("in/a.csv")
    source = FileSource("teststore://in/*.csv")
    assert names(source) == ["a.csv"]
    store.away = ConnectionError("no route to host")

    with pytest.raises(ConnectionError, match="no route"):
        hear(source, BEGUN, 1)
    store.away = None
    put("in/b.csv")

    assert names(source, BEGUN) == ["b.csv"]


def test_store_that_hangs_is_told_of_and_not_asked_twice(
    store: type[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_source, "PATIENCE_S", 0.05)
    put("in/a.csv")
    store.gate = threading.Event()
    source = FileSource("teststore://in/*.csv")

    async def run() -> list[str]:
        for _ in range(3):
            with pytest.raises(TimeoutError, match="has not answered"):
                async with listening(source, None) as batches:
                    await anext(batches)
        assert len(store.asked) == 1
        assert store.gate is not None
        store.gate.set()
        monkeypatch.setattr(file_source, "PATIENCE_S", PATIENCE_S)
        async with listening(source, None) as batches:
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv"]
    assert len(store.asked) == 1


def test_folder_that_cannot_be_watched_is_listed_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(file_source, "MISSING_EVERY_S", 0.05)
    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", _no_more_watches)
    source = FileSource(f"{tmp_path}/*.csv", every=SELDOM)

    async def run() -> list[str]:
        async with listening(source, None) as batches:
            assert not (await anext(batches)).arrivals
            (tmp_path / "a.csv").touch()
            return await next_names(batches)

    assert asyncio.run(run()) == ["a.csv"]
    assert sum("only listed" in record.message for record in caplog.records) == 1


def _no_more_watches(*_: object) -> None:
    raise OSError(28, "inotify watch limit reached")


def test_files_in_a_bucket_are_heard_and_again_when_they_are_written_anew(
    s3_bucket: str,
) -> None:
    fs = fsspec.filesystem("s3")
    files = {"in/a.csv": b"1", "in/deep/b.csv": b"2", "in/c.txt": b"3"}
    fs.pipe({f"{s3_bucket}/{name}": data for name, data in files.items()})
    source = FileSource(f"{s3_bucket}/in/**/*.csv", change=True, every=OFTEN)

    async def run() -> list[list[str]]:
        async with listening(source, None) as batches:
            first = await next_names(batches)
            await asyncio.to_thread(fs.pipe, f"{s3_bucket}/in/a.csv", b"another")
            return [first, await next_names(batches)]

    heard = asyncio.run(asyncio.wait_for(run(), PATIENCE_S))

    assert heard == [["a.csv", "b.csv"], ["a.csv"]]
